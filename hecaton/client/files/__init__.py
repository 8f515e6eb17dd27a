"""Folders and files of jobs on the side of whoever submits them.

- `fetching`: Brings the files that a job has made into a local folder.
"""
