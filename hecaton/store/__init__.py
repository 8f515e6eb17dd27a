"""What is remembered: the port, and what its adapters share.

- `accounts`: The part of the store's port about users, images and workers.
- `blobs`: Large payloads, results and handler files as files in a folder, named by their SHA-256.
- `durable`: Makes new names in a folder survive a power cut.
- `port`: What is remembered, as a port: one method = one domain verb, guarded by the state or attempt that it expects.
- `retention`: The part of the `Store` port that keeps it from growing for ever: what is removed, by the age of ended
  jobs.
- `writer`: A thread that runs work in batches, so that a hundred callers share one commit.
- `sqlite/`: The store in one SQLite file.
"""
