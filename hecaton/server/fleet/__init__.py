"""The workers' side: who is connected, what they hold, who gets what.

- `attempts`: What becomes of attempts: they start, say how far they are, and end.
- `channel`: The server's end of the workers' connection: WebSocket frames in, use cases of `workers` and `attempts`
  called, messages out.
- `checks`: What a worker says is checked before it is stored: a broken or hostile worker must not break the replies to
  users.
- `dispatcher`: Hands out what waits: now, soon, or when its time has come.
- `lanes`: What the scheduler knows of a lane, and which lanes wait for which work.
- `members`: Which workers are connected and what they hold: the server's memory of leases.
- `packed`: Lanes whose jobs need more than a place has anyway, or another one: places are opened for them.
- `quarantine`: Workers that get nothing new: drained by an admin, or quarantined because their machine failed jobs in a
  row.
- `revoking`: Which given jobs are asked back, of those that have not started.
- `scheduler`: Which lane has work, which slot has room, and who gets what: memory only, decided by
  `core.placement.matching.place`.
- `unwritten_starts`: News that attempts have started, until it is written: most end before, which saves a write.
- `workers`: Workers come and go: joined, away, draining, lost or removed, and what becomes of the attempts that
  they had.
- `images/`: What images are on the workers' machines, and which cannot be had there.
- `places/`: Where jobs run: the slots of workers, what they hold, and which have room.
"""
