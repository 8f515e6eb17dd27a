"""How a running container is spoken to.

- `answers`: From what a container answered to the body of a result: kept on disk where it is large, and checked.
- `channel_folder`: The folder that a container and the worker share: socket, log, in/, out/, turns (see
  `hecaton.serverless.protocol`).
- `door`: The door to a running container: how it is given work and how it answers.
- `exchange`: Jobs into one container and answers out of it, through its door: payloads, logs, results.
- `handler`: The door to a handler file: it calls `hecaton.serverless.start` as a native image does, but the image's
  Python runs it.
- `native`: The door to a container that calls `hecaton.serverless.start`: frames over the Unix socket in the channel
  folder.
- `script`: The door to a script: a fresh container is the job, its exit code the verdict, a JSON file its result.
- `table`: Which door belongs to which way of speaking to a container: one row each.
- `turns`: The worker's end of `turns`: the numbers of jobs that were given ahead (see `hecaton.serverless.protocol`).
"""
