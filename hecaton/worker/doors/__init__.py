"""How a running container is spoken to.

- `answers`: From what a container answered to the body of a result: kept on disk where it is large, and checked.
- `channel_folder`: The folder that a container and the worker share: socket, log, in/, out/, turns (see
  `hecaton.serverless.protocol`); a pipe in which the launcher of a job's file says that it runs, and the place of the
  mount at PYTHON_TARGET.
- `connection`: One connection of a container at the native door: what comes through it, at which rate, and what waits
  to go out.
- `door`: The door to a running container: how it is given work and how it answers.
- `exchange`: Jobs into one container and answers out of it, through its door: payloads, logs, results.
- `handler`: The door to a handler file: it calls `hecaton.serverless.start` as a native image does, but it comes with
  the job, and the image's Python, or what its first line names, runs it.
- `http/`: How a container is spoken to that is a server: a job is a request, the answer its result.
- `launch`: How a job's file is run: by a launcher of ours, which the image's ENTRYPOINT runs as it would any other
  command, and which says in the channel folder that it does.
- `native`: The door to a container that calls `hecaton.serverless.start`: frames over the Unix socket in the channel
  folder.
- `removal`: Removes what containers have left in their folders, whatever it is: 100,000 folders in each other, a
  million files, modes and bits that forbid it.
- `script`: The door to a script: a fresh container is the job, its exit code the verdict, a JSON file its result.
- `table`: Which door belongs to which way of speaking to a container: one row each.
- `turns`: The worker's end of `turns`: the numbers of jobs that were given ahead (see `hecaton.serverless.protocol`).
"""
