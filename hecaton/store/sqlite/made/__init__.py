"""What attempts make besides a result, in SQLite.

- `files`: Files of attempts in SQLite: what they are called, and in which blobs their bytes are.
- `logs`: Logs of attempts in SQLite.
"""
