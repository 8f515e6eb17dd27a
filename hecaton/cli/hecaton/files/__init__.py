"""Commands about folders and files of jobs.

- `get`: `hecaton get`.
- `workdir`: The folder that goes along with a job: which one it is, what of it goes, and the words about it.
"""
