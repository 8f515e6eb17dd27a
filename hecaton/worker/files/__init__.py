"""Files of jobs on the worker's disk.

- `made`: What attempts have put into /outputs, from their end until the server has it.
- `reading`: Reads what an attempt has made, in loads that can be sent one after the other.
- `walk`: Everything in a folder that a container has filled, whatever it has put there.
"""
