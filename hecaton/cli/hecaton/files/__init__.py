"""Commands about folders and files of jobs.

- `get`: `hecaton get`.
"""
