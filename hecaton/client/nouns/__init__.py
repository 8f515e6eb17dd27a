"""What there is: the calls of `Client`, one file per noun.

- `batches`: Many jobs as one.
- `calls`: What the calls about every noun have in common: the transport, paths, and words that are one of a few.
- `images`: Images, and what is set for all of their jobs.
- `jobs`: One job: submit it, look at it, wait for it, fetch what it made.
- `users`: Who may use the server (for admins), and what each has stored and waiting.
- `workers`: Machines that run jobs.
"""
