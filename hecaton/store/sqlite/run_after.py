"""What `job.run_after` says of a waiting job: ready, delayed or withheld.

Three cases share one number, because the indexes that claims walk are cut by it: a job that may not be claimed is in
another index, and no claim ever steps over it.

    0      ready       a claim may take it
    > 0    delayed     it waits for its next attempt until then (seconds since the epoch); `claim` makes it ready
    -1     withheld    its batch is paused; the sweep of the batch's resumption makes it ready
"""

from __future__ import annotations

READY = 0.0
WITHHELD = -1.0

IS_READY = "run_after = 0"
IS_DELAYED = "run_after > 0"
IS_WITHHELD = "run_after < 0"
"""In the words of the partial indexes: SQLite knows by them that it may use one."""
