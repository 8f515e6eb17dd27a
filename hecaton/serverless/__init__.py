"""Runs your handler inside your image. Standard library only, Python 3.8 and newer.

- `checkpoints`: The folder in which a job keeps what its next attempt goes on with.
- `calling`: Calls the user's handler, whatever its shape; what happens becomes an `Outcome`.
- `job`: What a handler is given: the payload and the names of the job.
- `kept`: Files that a handler leaves in the folder of outputs are its job's: they are put aside before the next job
  begins.
- `link`: The container's connection to its worker: opened anew whenever it breaks; keeps results until acknowledged.
- `loop`: `start()`, the life of a container: from the log file to the next job; and `progress()`.
- `output`: Sends what the container prints to the worker's log file, and keeps it so whatever a handler does to stdout.
- `protocol`: The frames between a worker and a container, protocol version 1; both ends use this module.
- `results`: Gets a result out of the container: as a frame's body when it is small, as a file in the worker's `out/`
  when not.
- `tryout`: `python handler.py payload.json`: runs a handler once on a local file, with no worker.
- `turns`: Which of the jobs that were given ahead of their turn may still begin here.
- `values`: One rule for JSON at the edge: what a handler may return or report, checked where it leaves the handler.
"""

from hecaton.serverless.checkpoints import checkpoint
from hecaton.serverless.job import ServerLessInput
from hecaton.serverless.loop import progress, start

__all__ = ["ServerLessInput", "checkpoint", "progress", "start"]
