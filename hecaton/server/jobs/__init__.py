"""The people's side: use cases around jobs and batches.

- `batches`: Use cases around batches, for people: submit many jobs as one, watch them, fetch results, pause, cancel,
  repeat.
- `budget`: Bytes: of each user, against his budget, and of the server's disk, against its floor.
- `end_news`: A job that was waited for, as it is at its end, without asking the store again: all of it has just passed
  by.
- `jobs`: Use cases around jobs, for people: submit, look, wait, cancel, retry, read logs.
- `machines`: A machine with its cards, what they do, and who works there.
- `quotas`: What one user may have at a time: asked before anything is stored, so that nobody's waiting work costs the
  others.
- `requests`: From what people send to what is stored: options, payload, uploads, checked.
- `submissions`: Stores new jobs: those that are submitted in the same turn of the event loop together, with one
  decision about who gets them and one hand-over to the store.
- `sweeper`: Carries out what was decided about whole batches - pause, resumption, cancellation - step by step, so that
  a million jobs never block the store.
- `usages`: Use cases around what is stored and used, for people: who has how much, and making room.
- `views`: Turns what the store and the server's memory know into the replies of `wire.api`.
- `waits`: Why nothing happens to a job now: in all, and for each worker.
"""
