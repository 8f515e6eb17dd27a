"""The calls that the README promises from Python.

- `api`: The calls that the README promises: `HecatonServer.new_job` and `get_job`.
"""
