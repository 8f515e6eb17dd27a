"""The verbs of the port in SQL, by what they are about: each a unit that has what it needs handed in.

- `accounts`: Users, images and workers in SQLite.
- `backups`: What follows when a backup was put in place of the database that it is a copy of.
- `batch_ends`: What a batch has to know about each of its jobs that ends: counters, causes, the pause.
- `batches`: Batches in SQLite: create, append, show, results, and the sweeps of pause, resumption and cancellation.
- `blobs`: The register of blobs in SQLite: which there are, and who added them.
- `meta`: Facts of the whole database, by name, in SQLite.
- `queue`: What moves jobs in SQLite: claim, start, end, cancel, expire; hot.
- `retention`: Removes what is old from SQLite, a few rows at a time.
- `returns`: What gives a worker back the attempts that it had been given up for, in SQLite.
- `submit`: What makes jobs in SQLite: submit; hot.
- `views`: What shows jobs in SQLite: one job, lists, attempts, bodies, leases, lanes.
"""
