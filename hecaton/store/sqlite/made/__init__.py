"""What goes along with jobs and what attempts make besides a result, in SQLite.

- `checkpoints`: The state of jobs in SQLite: of each the newest complete checkpoint, and in which blobs its bytes are.
- `files`: Files of attempts in SQLite: what they are called, and in which blobs their bytes are.
- `folders`: Folders that users send along, in SQLite: which there are, and in which blobs their files are.
- `logs`: Logs of attempts in SQLite.
"""
