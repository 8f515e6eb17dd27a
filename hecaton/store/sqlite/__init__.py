"""The store in one SQLite file.

- `backup`: A copy of a server's folder that is consistent while the server runs.
- `database`: The database adapter for SQLite: one writer thread with group commit, one reader thread with snapshots of
  its own.
- `file`: The SQLite file itself: made safely, refused when something is wrong with it, opened, its errors put into
  words.
- `inspection`: Is everything there, and whole?.
- `migrate`: Brings a SQLite database to the schema of this release: numbered SQL files, each applied once in its own
  transaction.
- `rows`: The translation between rows and the nouns of core: columns have names, and nobody counts them.
- `run_after`: What `job.run_after` says of a waiting job: ready, delayed or withheld.
- `statements`: The way of the verbs to SQLite: statements in the transaction that is open on one connection.
- `store`: The `Store` port over one SQLite connection: says which unit has which verb.
- `tally`: How many bytes each user has stored: kept up by the verbs that store and remove, in their own transactions,
  so that nobody ever has to count.
- `there`: What is there and not marked as deleted, remembered.
- `made/`: What attempts make besides a result, in SQLite.
- `verbs/`: The verbs of the port in SQL, by what they are about.
"""
