"""What passes between the worker and its server.

- `bodies`: Payloads, handler files and results over 64 KiB: by HTTP beside the channel, streamed, tried until it works.
- `leftovers`: What containers print that is no job's: kept apart, bounded, and said in the worker's log.
- `link`: The worker's one connection to its server.
- `logs`: What handlers print: pieces of a container's log file, cut by attempt, capped, and kept until the server has
  them.
- `notify`: Tells systemd how the worker is doing, for `hecaton-gpu status`.
- `reaching`: How the worker reaches its server: whom it trusts, by which way it goes, and in words why it does not get
  there.
- `registration`: Who this worker is: a login is exchanged once for a worker id and a token, kept in
  `<home>/worker/<name>/`.
"""
