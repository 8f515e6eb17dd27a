"""Files of jobs on the worker's disk, and what else of this machine a container sees.

- `checkpoints`: The state of a job that outlives an attempt: what its container keeps in /checkpoints.
- `content`: What is in the folders that travel with jobs, each content once, by its sha256.
- `fetching`: Brings the folders of jobs to this machine: the manifest, then in one request what of it is missing.
- `made`: What attempts have put into /outputs, from their end until the server has it.
- `overlay`: Mounts one folder over another.
- `reading`: Reads what an attempt has made, in loads that can be sent one after the other.
- `walk`: Everything in a folder that a container has filled, whatever it has put there.
- `mounts`: The folders of this machine that its admins let jobs ask for, by name: what the file says, and what a job
  gets of it.
- `folders`: The folders of this machine that a container sees beside its channel folder: mounts, a cache, room for what
  is fast and need not last.
- `caches`: What jobs keep in `/cache` is bounded: what was used least recently goes.
- `workfolders`: The folders in which jobs work: laid out once for all that bring the same, and for each container one
  of its own over it, to write to.
"""
