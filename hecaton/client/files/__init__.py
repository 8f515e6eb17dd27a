"""Folders and files of jobs on the side of whoever submits them.

- `fetching`: Brings the files that a job has made into a local folder.
- `ignored`: What of a folder stays at home: by its `.gitignore` and `.hecatonignore` files, and what nobody means to
  send.
- `seen`: Which content files had when they were read the last time: `<HECATON_HOME>/client/folders/`.
- `sending`: A folder to the server: one question for what is missing there, and that alone; small files together.
- `snapshot`: A folder as it is now: what of it is sent, by name and content.
"""
