"""Folders and files of jobs: what they are called and what they hold.

- `kept`: The files that an attempt has made: by which names and in which pieces they are kept.
- `manifest`: A folder by content: what lies in it, by which names, and the sha256 of each file.
- `mounts`: How a job asks for a folder of the machine that it runs on: by the name that an admin gave it, and where it
  is to appear.
"""
