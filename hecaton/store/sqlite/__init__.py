"""The store in one SQLite file.

- `backup`: A copy of a server's folder that is consistent while the server runs.
- `database`: The database adapter for SQLite: one writer thread with group commit, one reader thread with snapshots of
  its own.
- `file`: The SQLite file itself: made safely, refused when something is wrong with it, opened, its errors put into
  words.
- `inspection`: Is everything there, and whole?.
- `migrate`: Brings a SQLite database to the schema of this release: numbered SQL files, each applied once in its own
  transaction.
- `rows`: Base of the SQLite store's parts, and the translation between rows and the nouns of core.
- `store`: The `Store` port over one SQLite connection, put together from its parts.
- `verbs/`: The verbs of the port in SQL, by what they are about.
"""
