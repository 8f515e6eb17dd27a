"""What is remembered: the port, and what its adapters share.

- `blobs`: Large payloads, results and handler files as files in a folder, named by their SHA-256.
- `durable`: Makes new names in a folder survive a power cut.
- `instance`: Tells a database from an older copy of it, put in its place by whichever means.
- `port/`: What is remembered, as a port: one method = one domain verb, guarded by the state or attempt that it expects.
- `sqlite/`: The store in one SQLite file.
- `writer`: A thread that runs work in batches, so that a hundred callers share one commit.
"""
