"""What people type whom other programs have taught it, and the line that does it here.

A word in braces is filled with what they have typed behind (`suggestions.filled`). A word that becomes a command is
taken out: tests/cli/test_habits.py notices one that is both, and a line that is none.
"""

from __future__ import annotations

from collections.abc import Mapping


def _lines(*rows: tuple[str, str]) -> Mapping[str, str]:
    return {word: line for words, line in rows for word in words.split()}


_LIST = "hecaton job list"
_SCRIPT = "hecaton run {FILE}"
_EACH = "hecaton job new --each {FILE} IMAGE"

ROOT = _lines(
    ("jobs ls list queue squeue qstat history", _LIST),
    ("status", "hecaton job show {JOB}|hecaton job list|hecaton server show"),
    ("show describe inspect", "hecaton job show {JOB}"),
    ("exec srun start launch execute python", _SCRIPT),
    ("submit sbatch qsub new create send", "hecaton job new {FILE} IMAGE"),
    ("map each", _EACH),
    ("log", "hecaton logs {JOB}"),
    ("tail follow", "hecaton logs -f {JOB}"),
    ("attach watch", "hecaton wait {JOB}"),
    ("result results output", "hecaton wait {JOB} -o FILE"),
    ("fetch download", "hecaton get {JOB}"),
    ("kill stop rm delete abort scancel qdel", "hecaton cancel {JOB}"),
    ("rerun restart", "hecaton retry {JOB}"),
    ("login auth signin", "hecaton server login {NAME}"),
    ("logout signout", "hecaton server remove {NAME}"),
    ("connect use switch", "hecaton server connect {NAME}"),
    ("init setup config configure add", "hecaton server new --ip HOST:8181 --name NAME"),
    ("whoami ping info doctor", "hecaton server show"),
    ("servers", "hecaton server list"),
    ("images", "hecaton image list"),
    ("push pull build", "hecaton image new {NAME}"),
    ("workers nodes node gpus gpu top sinfo machines nvidia-smi", "hecaton worker list"),
    ("users", "hecaton user list"),
    ("passwd password", "hecaton user passwd {USERNAME}"),
    ("batches", "hecaton batch list"),
    ("install worker-install", "sudo hecaton-gpu install SERVER"),
    ("serve server-start", "hecaton-server --port 8181"),
    ("shell console repl", "hecaton"),
    ("version", "hecaton --version"),
)

JOB = _lines(
    ("jobs ps ls all queue", _LIST),
    ("submit create add send", "hecaton job new {FILE} IMAGE"),
    ("run start launch exec execute", _SCRIPT),
    ("each map batch", _EACH),
    ("status stat info describe inspect get why", "hecaton job show {JOB}"),
    ("log output", "hecaton job logs {JOB}"),
    ("tail", "hecaton job logs -f {JOB}"),
    ("result results download fetch", "hecaton job wait {JOB} -o FILE"),
    ("attach watch follow", "hecaton job wait {JOB}"),
    ("rm remove delete kill stop abort", "hecaton job cancel {JOB}"),
    ("rerun restart resume again", "hecaton job retry {JOB}"),
)

BATCH = _lines(
    ("batches ps ls all", "hecaton batch list"),
    ("new submit create run add map each", _EACH),
    ("status info describe get inspect", "hecaton batch show {BATCH}"),
    ("result output download fetch", "hecaton batch results {BATCH} -o FILE"),
    ("rm remove delete kill stop abort", "hecaton batch cancel {BATCH}"),
    ("rerun restart", "hecaton batch retry {BATCH} --failed"),
    ("continue unpause", "hecaton batch resume {BATCH}"),
)

IMAGE = _lines(
    ("images ls", "hecaton image list"),
    ("add create register push pull build", "hecaton image new {NAME}"),
    ("rm remove rmi", "hecaton image delete {NAME}"),
    ("info inspect describe get env", "hecaton image show {NAME}"),
    ("edit set change", "hecaton image update {NAME}"),
    ("refresh", "hecaton image update {NAME} --refresh"),
)

WORKER = _lines(
    ("workers ls status", "hecaton worker list"),
    ("info gpus cards", "hecaton worker show {NAME}"),
    ("new add install create join", "sudo hecaton-gpu install SERVER"),
    ("rm delete", "hecaton worker remove {NAME}"),
    ("stop pause disable cordon", "hecaton worker drain {NAME}"),
    ("start resume enable uncordon", "hecaton worker undrain {NAME}"),
    ("logs", "sudo hecaton-gpu logs -f"),
)

USER = _lines(
    ("users ls", "hecaton user list"),
    ("new add invite", "hecaton user create --username {NAME}"),
    ("rm remove", "hecaton user delete {NAME}"),
    ("password reset", "hecaton user passwd {NAME}"),
    ("edit change set role promote demote", "hecaton user update {NAME} --role ROLE"),
)

SERVER = _lines(
    ("servers ls", "hecaton server list"),
    ("add create register join", "hecaton server new --ip HOST:8181 --name NAME"),
    ("use switch select set activate", "hecaton server connect {NAME}"),
    ("rm delete forget logout", "hecaton server remove {NAME}"),
    ("info status get inspect ping", "hecaton server show {NAME}"),
    ("edit change", "hecaton server update {NAME}"),
    ("auth signin", "hecaton server login {NAME}"),
    ("start run serve", "hecaton-server --port 8181"),
)
