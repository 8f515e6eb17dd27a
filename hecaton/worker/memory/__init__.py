"""What the worker keeps on disk.

- `disk`: Notices that the worker's disk is full, and that it has room again.
- `journal`: What the worker must remember over a crash: its containers, which attempt runs in which, results not
  accepted yet.
- `outbox`: Results, logs and progress on their way to the server.
- `peers`: Which process is at the other end of a Unix socket, and whether it still lives.
- `records`: What the journal has a record of.
- `spool`: The worker's files on their way: payloads before their job runs, handler files, results over 64 KiB until the
  server has them.
- `tail`: The last records of the journal, in memory that a killed process leaves behind: a mapped file.
- `usage`: How much a container keeps in out/, where every byte and every name is its worker's.
"""
