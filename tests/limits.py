"""Every number that bounds somebody, as docs/operations.md#limits has it: test_limits.py compares.

To add one: name it as a constant beside the code that it guards, write a row here, and `python -m tests.limits` writes
the page. Where the row names a constant, `{path.below.hecaton.NAME:unit}`, the page has its value. Units are `size`
(bytes), `time` (seconds) and `count`. A default of `Settings` and a bound of an option are named alike.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import hecaton


class Row(NamedTuple):
    """`beyond`: what becomes of more than that."""

    what: str
    limit: str
    beyond: str


ROWS = (
    # A request
    Row(
        "Head of a request",
        "{server.web.heads.MAX_HEAD:size} and {server.web.heads.MAX_HEADERS:count} headers; as much around the chunks"
        " of a body, trailers too",
        "431, and the connection is closed at once",
    ),
    Row(
        "Requests that wait on their connection for an answer to another one",
        "{server.web.heads.MAX_PIPELINED:count}",
        "the connection is closed",
    ),
    Row("Body of a GET", "none", "400, and the connection is closed"),
    Row(
        "Body of a request",
        "{server.web.http.BODY_LIMIT:size}, of one with items {server.web.batch_api.BODY_LIMIT:size}; an inline payload"
        " {core.model.INLINE_LIMIT:size}",
        "413; larger payloads are uploaded (the client does it)",
    ),
    Row(
        "Payload, result",
        "{server.settings.Settings.max_payload:size} and {server.settings.Settings.max_result:size} (`--max-payload`,"
        " `--max-result`)",
        "413; the job fails with `result_too_large`",
    ),
    Row(
        "Waiting jobs of one user",
        "{server.settings.Settings.max_queued:count} (`--max-queued`); of a paused batch the bytes count",
        "429 with `Retry-After`, naming the quota",
    ),
    Row(
        "Bytes stored for one user: payloads, results, logs, uploads, items of paused batches",
        "{server.jobs.budget.MAX_USER_BYTES:size}, or half of the disk if that is less (`--max-user-bytes`)",
        "413, naming the budget; what runs is stored, nothing more of his is started; `hecaton usage` shows it",
    ),
    Row(
        "Files that an attempt has made",
        "{core.files.kept.MAX_FILES:count}, with names of {core.files.kept.MAX_NAME_BYTES:size} under"
        " {core.files.kept.MAX_LEVELS:count} folders, each in {core.files.kept.MAX_PIECES:count} pieces;"
        " {worker.files.reading.MAX_KEPT_BYTES:size} together; of {worker.files.walk.MAX_SEEN:count} names that are"
        " looked at; a worker tells of {wire.api.files.MAX_TOLD:count} in a request",
        "the others are named, as far as there is room, or counted; `hecaton get JOB --list` says why each is not kept",
    ),
    Row(
        "Free disk of the server",
        "{server.jobs.budget.DISK_FLOOR:size}, or a twentieth of the disk if that is less (`--disk-floor`)",
        "503 for all but admins, and nothing is started; below half of it workers keep large results",
    ),
    Row(
        "Kinds of waiting jobs (image, mode, handler, options) of one user",
        "{server.jobs.quotas.MAX_WAITING_LANES:count}",
        "429 with `Retry-After`",
    ),
    Row(
        "Places (containers at work) of one user",
        "all that nobody else has work for (`--max-running`)",
        "his jobs wait; `job show` says so",
    ),
    Row(
        "A file for `--each` that is one array over several lines",
        "{cli.hecaton.jobs.each.ARRAY_LIMIT:size}",
        "refused; one item to a line has no limit",
    ),
    Row("Items of a batch in one request", "{wire.api.batches.MAX_ITEMS:count}", "413; the client sends several"),
    Row(
        "Items, arguments and tags in a request that is longer than others may be",
        "{server.web.batch_api.MAX_OBJECTS:count} objects in the items, {server.web.http.BODY_LIMIT:size} beside them",
        "413; the client sends several",
    ),
    Row("Jobs, batches on a page (`?limit=`)", "{server.web.queries.MAX_PAGE:count}", "400"),
    Row("Name of a user, a worker", "{server.accounts.directory.MAX_NAME:count} characters", "400"),
    Row("Name of an image", "{core.references.MAX_NAME:count} characters", "400"),
    Row(
        "Images of one user that are not registered",
        "{server.accounts.entries.MOST_OWN:count}; unused ones go after {server.accounts.entries.KEPT_UNUSED:time},"
        " removed ones count as long",
        "409",
    ),
    Row("Name of a batch", "{server.jobs.batches.LONGEST_NAME:count} characters", "400"),
    Row(
        "Arguments of a script",
        "each shorter than {server.jobs.requests.MAX_ARGUMENT:size}, all together"
        " {server.jobs.requests.MAX_ARGUMENTS:size}",
        "400",
    ),
    Row("Name of a job's file", "{server.jobs.requests.MAX_FILE_NAME:count} characters", "400"),
    Row("Name of a job", "{server.jobs.requests.MAX_NAME:count} printable characters", "400"),
    Row(
        "Tags of a job",
        "{server.jobs.requests.MAX_TAGS:count}; the key {server.jobs.requests.MAX_TAG_KEY:count} characters, the value"
        " {server.jobs.requests.MAX_TAG_VALUE:count}",
        "400",
    ),
    Row("`Idempotency-Key`", "{server.web.api.MAX_KEY:count} characters", "400"),
    Row(
        "Password",
        "{server.accounts.auth.MIN_PASSWORD:count} to {server.accounts.auth.MAX_PASSWORD:count} characters",
        "400",
    ),
    Row(
        "Body of a request that holds a password",
        "{server.web.api.PASSWORD_BODY_LIMIT:size}",
        "413",
    ),
    Row(
        "Wrong passwords for one name from one address (of `IPv6`: its `/64`)",
        "{server.accounts.throttle.OF_PAIR.burst:count}, then one every"
        " {server.accounts.throttle.OF_PAIR.interval:time}",
        "429 with `Retry-After`",
    ),
    Row(
        "Wrong passwords for one name, from wherever",
        "{server.accounts.throttle.OF_NAME.burst:count}, then one every"
        " {server.accounts.throttle.OF_NAME.interval:time}",
        "429; not where the password was right before, as the next two",
    ),
    Row(
        "Wrong passwords, and wrong keys of lines to join, from one address",
        "{server.accounts.throttle.OF_ADDRESS.burst:count}, then one every"
        " {server.accounts.throttle.OF_ADDRESS.interval:time}",
        "429",
    ),
    Row(
        "Wrong passwords in all",
        "{server.accounts.throttle.IN_ALL.burst:count}, then one every {server.accounts.throttle.IN_ALL.interval:time}",
        "429",
    ),
    Row(
        "Places where a user's password was right before",
        "the newest {server.accounts.homes.MAX_HOMES:count} addresses (of `IPv6`: their `/64`), for"
        " {server.accounts.homes.HOME_AGE:time}",
        "older ones are strangers",
    ),
    Row(
        "Passwords that wait to be checked or set",
        "{server.accounts.auth.MAX_CHECKS:count}, of one address or user {server.accounts.auth.MAX_CHECKS_OF_ONE:count}"
        "; some of the room is for those whose password was right before",
        "429 with `Retry-After`, before anything is computed",
    ),
    Row("A user's token", "{server.accounts.auth.MAX_TOKEN:count} characters", "401"),
    Row("Durations in options of a job", "{core.option_kinds.LONGEST:time}", "400"),
    Row(
        "`--env`",
        "{core.option_kinds.MAX_VARIABLES:count} variables, {core.option_kinds.MAX_VARIABLE_BYTES:size} with their"
        " names",
        "400",
    ),
    Row("Cards of one job", "{core.placement.needs.MAX_CARDS:count}", "400"),
    Row(
        "What is written of cards, sizes or workers",
        "{core.placement.needs.MAX_NEED:count} characters; a size: {core.placement.needs.MAX_SIZE:size}",
        "400",
    ),
    Row(
        "Files of a checkpoint",
        "{worker.files.checkpoints.MAX_CHECKPOINT_FILES:count}; /checkpoints is looked at every"
        " {worker.files.checkpoints.LOOK_EVERY:time}; a file counts after {worker.files.checkpoints.FILE_QUIET:time}"
        " without a change, a folder that does not say that it is complete after"
        " {worker.files.checkpoints.FOLDER_QUIET:time}",
        "it is not sent",
    ),
    Row(
        "`--mount`",
        "{core.files.mounts.MAX_MOUNTS:count} of one job, and of one machine; {core.files.mounts.MAX_TARGET:count}"
        " characters for each place",
        "400",
    ),
    Row("`hecaton user update --uid`", "up to {core.files.mounts.MAX_UID:count}, and not root", "400"),
    Row(
        "`/cache` on one worker, of all owners together",
        "{worker.files.caches.PERCENT:count} % of its disk, looked at every {worker.files.caches.LOOK_EVERY:time}",
        "folders of it that were not used for {worker.files.caches.REST:time} go, those used least recently first",
    ),
    Row("`--retries`", "{core.options.OPTIONS.retries.high:count}", "400"),
    Row(
        "`--priority`",
        "{core.options.OPTIONS.priority.low:count} to {core.options.OPTIONS.priority.high:count}",
        "400",
    ),
    Row(
        "Asking a registry about an image",
        "{server.accounts.registry.LONGEST_QUESTION:time} in all, {server.accounts.questions.MAX_ANSWER:size} for each"
        " answer",
        "registered with a warning, without a digest",
    ),
    Row(
        "Refused requests in the server's log",
        "{server.accounts.audit.MAX_REFUSALS:count} lines, then {server.accounts.audit.REFUSALS_PER_SECOND:count}/s;"
        " logins have as many of their own; names of at most {server.accounts.audit.MAX_OBJECT:count} characters",
        "not written; the next line says how many",
    ),
    # A connection
    Row(
        "Images that `/metrics` tells apart",
        "{server.metrics.statistics.MAX_IMAGES:count}",
        "counted as `other`",
    ),
    Row(
        "Time for the head of a request",
        "{server.settings.Settings.request_timeout:time} to twice as long",
        "the connection is closed",
    ),
    Row(
        "Body of a request",
        "as long, and its size at {server.web.protocol.SLOWEST:size}/s more",
        "the connection is closed",
    ),
    Row(
        "A wait (`?wait=`)",
        "{server.jobs.jobs.MAX_WAIT:time} in one request, {server.web.queries.MAX_WAIT:time} for results of a"
        " batch; clients ask again",
        "answered with what there is",
    ),
    Row(
        "Submissions of one Python client whose connections are open for their ends",
        "{client.following.MOST_FOLLOWED:count}",
        "others are waited for with requests of their own",
    ),
    Row(
        "Events behind a slow reader",
        "{server.hub.QUEUE_LIMIT:count}; log text is read from the disk",
        "older ones are skipped",
    ),
    Row(
        "Bodies that are being received, beyond {server.bodies.SMALL_BODY:size} each",
        "{server.bodies.MAX_BODIES:size} together, an eighth of the memory where that is less; a quarter of it for one"
        " user or worker",
        "they wait for {server.bodies.PATIENCE:time}, {server.bodies.MAX_WAITING_BODIES:count} of one; then 429 or 503",
    ),
    Row(
        "Answers of one user or worker that go on for long: events, logs, downloads, jobs that are submitted and"
        " followed",
        "{server.hub.MAX_STREAMS:count}",
        "429 with `Retry-After`, naming the bound",
    ),
    Row(
        "Connections",
        "one for each {server.connections.CONNECTION_MEMORY:size} in half of the memory, and files that the process may"
        " open, less {server.web.protocol._RESERVED:count} (the limit is raised as far as allowed at start)",
        "who has not been let in yet, and has been there longest, is cut off; else 503",
    ),
    Row(
        "Connections from one address (of `IPv6`: its `/64`), or of one user",
        "a quarter of them; a proxy that is trusted (`--trusted-proxy`) may have more",
        "the same",
    ),
    Row(
        "Connections of users, all together",
        "seven eighths of them: workers and admins always find room",
        "503",
    ),
    Row(
        "Connections of one worker or admin that have room there",
        "{server.connections.MAX_KEPT_OF_ONE:count}",
        "they count as a user's",
    ),
    Row("Life of a line to join", "{server.accounts.keys.KEY_LIFE:time}, one use", "401"),
    Row(
        "Time for the first byte where TLS is spoken, and from then on for its handshake",
        "{server.web.handshake.MAX_HANDSHAKE:time}",
        "the connection is closed",
    ),
    Row("An idle connection", "{server.app.IDLE:time}", "closed"),
    # A job
    Row(
        "Log of one attempt",
        "its first {worker.link.logs.HEAD:size} and its last {worker.link.logs.TAIL:size}; each attempt of a job has a"
        " log of its own, kept with it",
        "a line between the two says how much is missing",
    ),
    Row(
        "What a container prints that is no job's",
        "{worker.link.leftovers.KEPT_OF_ONE:size} of one container, of {worker.link.leftovers.KEPT_FILES:count}"
        " containers; a line in the worker's log each {worker.link.leftovers.SAY_SECONDS:time}",
        "what comes then is counted; the oldest go",
    ),
    Row(
        "Progress",
        "{serverless.protocol.MAX_PROGRESS:size} as JSON",
        "not shown",
    ),
    Row(
        "Error of a handler",
        "message {serverless.protocol.MAX_MESSAGE:count} characters, traceback"
        " {serverless.protocol.MAX_TRACEBACK:count}",
        "cut off",
    ),
    Row(
        "JSON of a result",
        "{serverless.values.MAX_DEPTH:count} levels, integers of {serverless.values.MAX_DIGITS:count} digits",
        "the job fails with `result_invalid`",
    ),
    Row(
        "Last words of a container in a failure",
        "{worker.containers.container.OUTPUT_LIMIT:size}",
        "the whole of it is in the log",
    ),
    Row(
        "Attempts lost to machines",
        "{core.lifecycle.INFRA_LIMIT:count}; {core.lifecycle.EXCUSED_LIMIT:count} with those that were not the job's"
        " doing",
        "the job fails; with `poison` where a worker was lost each time",
    ),
    Row(
        "Causes of failure in a batch that are counted apart",
        "{core.batches.MAX_CAUSES:count}",
        "the rest is counted together",
    ),
    Row(
        "Memory of a container whose job asks for none",
        "all of the machine's but a part in {worker.capacity.RESERVE_PART:count}, which is at least"
        " {worker.capacity.LEAST_RESERVE:size} and at most {worker.capacity.MOST_RESERVE:size} (`--memory`)",
        "its job ends with `oom_host`; what jobs ask for is no more than that all together",
    ),
    Row("CPUs of one job", "{core.options.MAX_CPUS:count} (`--cpus`)", "400, naming the option"),
    Row("Processes and threads of a container", "{worker.runtimes.starting.PIDS_LIMIT:count}", "no more can be begun"),
    Row(
        "`/dev/shm` of a container",
        "{worker.runtimes.starting.DEFAULT_SHM_SIZE:size} (`--shm-size`)",
        "writing there fails",
    ),
    Row(
        "A frame from a container",
        "header {serverless.protocol.MAX_HEADER:size}, body {serverless.protocol.MAX_BODY:size}",
        "its connection is closed",
    ),
    Row(
        "Connections from a container that have not said who they are",
        "{worker.doors.native.MAX_STRANGERS:count}",
        "refused",
    ),
    Row(
        "Frames of a container",
        "{worker.doors.connection.MAX_FRAMES:count} a second, {worker.doors.connection.FRAMES_AT_ONCE:count} at once",
        "they are read later",
    ),
    Row(
        "Bytes that wait for a container",
        "{worker.doors.connection.MAX_WAITING:size}",
        "its connection is closed, its job fails with `handler_error`, and it is stopped",
    ),
    Row(
        "Connections that a container opens",
        "one each {worker.doors.connection.ACCEPT_SECONDS:time}; {worker.doors.connection.HELLO_SECONDS:time} until it"
        " has said who it is; a line in the worker's log each {worker.doors.connection.COMPLAINT_SECONDS:time}",
        "they wait; closed; counted in the next line",
    ),
    Row(
        "What a container calls a job, an attempt, a file",
        "{worker.doors.native.MAX_JOB_ID:count} characters, {worker.doors.native.MAX_ATTEMPT:count},"
        " {worker.doors.native.MAX_FILE_NAME:count} characters",
        "its connection is closed",
    ),
    Row(
        "What a container keeps in `out/` of its channel folder",
        "{worker.memory.usage.MAX_OUT:size} or {worker.memory.usage.RESULTS:count} of the largest results,"
        " {worker.memory.usage.MAX_OUT_FILES:count} files, {worker.memory.usage.MAX_OUT_DEPTH:count} folders in each"
        " other; looked at each second",
        "it is stopped, its job fails with `result_too_large`",
    ),
    Row(
        "Results that a container says it keeps",
        "{worker.doors.native.MAX_PENDING:count}",
        "its connection is closed",
    ),
    # A worker
    Row(
        "Head of what a container that is a server answers, and each line of it",
        "{worker.doors.http.door.MAX_ANSWER_HEAD:size}",
        "the job fails; its body is a result, and has the bound of one",
    ),
    Row(
        "A worker that does not read",
        "{server.fleet.channel.OUTBOX_LIMIT:count} messages",
        "its connection is cut, it comes back",
    ),
    Row(
        "A worker that is silent",
        "suspect after {server.settings.Settings.suspect_after:time}, lost after"
        " {server.settings.Settings.lost_after:time} (`--lost-after`)",
        "see [reliability](reliability.md)",
    ),
    Row(
        "A frame between server and worker",
        "{wire.bounds.MAX_FRAME:size}, {wire.bounds.MAX_MESSAGES:count} messages, {server.web.protocol.MAX_PARTS:count}"
        " parts",
        "the connection is closed",
    ),
    Row(
        "What one message of a worker names",
        "{wire.bounds.MAX_SLOTS:count} slots, {wire.bounds.MAX_REFS:count} attempts, {wire.bounds.MAX_NAMES:count}"
        " images; names of {wire.bounds.MAX_NAME:count} characters, texts of {wire.bounds.MAX_TEXT:size}, pieces of a"
        " log of {wire.bounds.MAX_PIECE:size}",
        "its connection is closed, and nobody else notices",
    ),
    Row(
        "What a worker says per second",
        "{server.fleet.checks.MAX_SAID_PER_SECOND:count} messages and attempts,"
        " {server.fleet.checks.MAX_SAID_AT_ONCE:count} at once, {server.fleet.checks.MAX_AT_ONCE:count} in one go;"
        " {server.fleet.channel.UNSTORED_LIMIT:size} that are not stored yet",
        "it is read more slowly",
    ),
    Row(
        "Results of one worker that the store refuses while it takes others",
        "{server.fleet.attempts.MAX_UNSTORED:count}, tried again three times in half a minute",
        "the connection is cut, and the worker says them anew",
    ),
    Row(
        "Jobs of which is known which workers have no room for their payload",
        "{server.fleet.attempts.MAX_LACKING:count}",
        "of the others it is asked anew",
    ),
    Row("Slots of a worker", "{wire.bounds.MAX_SLOTS:count}", "its connection is closed"),
    Row(
        "Slots of a worker that are used",
        "as many as at its first connection, or when an admin last said `hecaton worker undrain`",
        "the others get nothing; `hecaton worker list` says so",
    ),
    Row(
        "Jobs that a worker has",
        "{server.fleet.lanes.MAX_DEPTH:count} on one slot, {server.fleet.places.leases.MAX_HELD:count} in all",
        "the others wait in the queue",
    ),
    Row(
        "What a worker says of a job",
        "failure {server.fleet.checks.MAX_TEXT:size}, note {server.fleet.checks.MAX_NOTE:count} characters, progress"
        " {server.fleet.checks.MAX_PROGRESS:size}, log {server.fleet.checks.MAX_LOG:size}, duration"
        " {server.fleet.checks.MAX_SECONDS:time}",
        "cut off; such progress is not shown",
    ),
    Row(
        "What a worker says of itself and of images",
        "why it can start nothing {server.fleet.quarantine.MAX_WHY:count} characters, why an image cannot be had"
        " {server.fleet.images.versions.MAX_TEXT:count}, a digest {server.fleet.checks.MAX_VERSION:count}",
        "cut off",
    ),
    Row(
        "Removal of what one container has left",
        "{worker.doors.removal.REMOVAL_SECONDS:time} each half minute, in a thread of its own; the start and the end of"
        " a worker wait {worker.doors.removal.REMOVAL_PATIENCE:time} for it",
        "the worker goes on, and tries again; what it cannot remove its log names once",
    ),
    Row(
        "A folder that goes along with a job",
        "{core.files.manifest.MAX_FOLDER:size} in {core.files.manifest.MAX_ENTRIES:count} files, links and folders; a"
        " name {core.files.manifest.MAX_NAME:size}, the manifest {core.files.manifest.MAX_MANIFEST:size}",
        "refused",
    ),
    Row(
        "A folder that goes along with `hecaton run` without being named",
        "{cli.hecaton.files.workdir.MAX_UNASKED:size}",
        "refused; `--workdir FOLDER` sends it, `--no-workdir` the script alone",
    ),
    Row(
        "Folders of which a client remembers what was in them",
        "{client.files.seen.MAX_FOLDERS:count}",
        "what was sent longest ago is read again as a whole",
    ),
    Row(
        "Small files that are sent together",
        "{wire.bundles.MAX_BUNDLED:count} files of at most {wire.bundles.SMALL:size}, {wire.bundles.MAX_BUNDLE:size}"
        " together",
        "400 or 413; the client sends several bundles",
    ),
    Row(
        "What folders of jobs hold, kept on a worker's disk",
        "a tenth of the disk, {worker.files.content.MAX_CONTENT:size} at most;"
        " {worker.files.workfolders.MAX_LAID_OUT:count} folders that are ready for the next job",
        "what was used least recently and is in no running job's folder goes; it is fetched again",
    ),
    Row(
        "Handler files kept on a worker's disk",
        "{worker.memory.spool.FILES_LIMIT:size}",
        "the least recently used go; they are fetched again",
    ),
)

# Named like a bound, and nobody's.
EXEMPT: Mapping[str, str] = {
    "cli.hecaton.demo.cluster.START_LIMIT": "how long the demo waits for itself",
    "cli.hecaton.demo.cluster.STOP_LIMIT": "how long the demo waits for itself",
    "cli.hecaton.jobs.notes.MAX_LOOKED_AT": "how much is read for a warning",
    "client.connection.CONNECT_LIMIT": "a client's patience with its server",
    "client.http.LONGEST_PAUSE": "a client's patience with its server",
    "core.files.kept.MAX_SIZE": "more than any disk has",
    "core.files.kept.MAX_WHY": "our own words",
    "worker.containers.kills.LONGEST_LINE": "of the kernel's log, as the kernel has it",
    "core.shown.LONGEST": "how much of one text stands in a Python prompt",
    "wire.api.accounts.LONGEST_AGE": "ten years: nothing is older",
    "server.files.files_api.LONGEST_NUMBER": "more digits than any file's number has",
    "serverless.protocol.DEFAULT_MAX_RESULT": "until the worker has said what --max-result is",
    "serverless.protocol.MAX_INLINE": "core.model.INLINE_LIMIT as containers know it",
    "store.sqlite.file.QUICK_CHECK_LIMIT": "how much is read at start",
    "wire.channel.DIRECT_LIMIT": "how a body travels, which nobody sees",
    "worker.brain.slots.MAX_AHEAD": "how much a container has before it asks; the rest comes when it does",
    "worker.cards.reading.MAX_HOLDERS": "how many programs one sentence names",
    "worker.memory.disk.MAX_WANTED": "when a disk counts as full, whatever was to be written",
    "worker.link.link.LONGEST_DELAY": "a worker's patience with its server",
}

_BOUND = re.compile(r"(MAX|LIMIT|LONGEST|MOST)(_|$)|_(MAX|LIMIT|LONGEST|MOST)(_|$)", re.IGNORECASE)
_NAMED = re.compile(r"\{([\w.]+):(\w+)\}")
_PAGE = Path(hecaton.__file__).resolve().parents[1] / "docs" / "operations.md"


def rendered(row: Row) -> str:
    """The line of the page."""
    return "| " + " | ".join(_NAMED.sub(_shown, cell) for cell in row) + " |"


def numbers_by_hand(row: Row) -> list[str]:
    """What would not change with its constant."""
    return re.findall(r"\d+", re.sub(r"`[^`]*`|\b[45]\d\d\b", "", _NAMED.sub("", " ".join(row))))


def on_the_page() -> list[str]:
    return _parts()[1].splitlines()


def write() -> None:
    before, _, after = _parts()
    _PAGE.write_text(before + "".join(f"{rendered(row)}\n" for row in ROWS) + after)


def _parts() -> tuple[str, str, str]:
    """The page before the rows, these, and what follows."""
    text = _PAGE.read_text()
    start = text.index("|---|---|---|\n", text.index("\n## Limits\n")) + len("|---|---|---|\n")
    end = text.find("\n\n", start) + 1 or len(text)
    return text[:start], text[start:end], text[end:]


def named_in(rows: tuple[Row, ...]) -> set[str]:
    return {name for row in rows for cell in row for name, _ in _NAMED.findall(cell)}


@cache
def bounds() -> frozenset[str]:
    """All public numbers of modules that are named like a bound, and such settings of the server."""
    package = Path(hecaton.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        module = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        for name in _assigned(ast.parse(path.read_text())):
            if _BOUND.search(name) and not name.startswith("_") and isinstance(value(f"{module}.{name}"), int | float):
                found.add(f"{module}.{name}")
    found.update(
        f"server.settings.Settings.{field.name}"
        for field in msgspec.structs.fields(_object("server.settings.Settings"))
        if _BOUND.search(field.name) and isinstance(field.default, int | float)
    )
    return frozenset(found)


def _assigned(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
        for target in targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def value(name: str) -> Any:
    """Of a constant, of a struct's field (its default), or of a row of a table, by its path below `hecaton`."""
    holder, _, last = name.rpartition(".")
    owner = _object(holder)
    if isinstance(owner, type) and issubclass(owner, msgspec.Struct):
        return next(field.default for field in msgspec.structs.fields(owner) if field.name == last)
    return _member(owner, last)


def _object(path: str) -> Any:
    """The longest beginning that is a module, and what the rest of the names leads to."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(["hecaton", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = _member(found, part)
        return found
    raise LookupError(path)


def _member(owner: Any, name: str) -> Any:
    return owner[name] if isinstance(owner, Mapping) else getattr(owner, name)


def _shown(match: re.Match[str]) -> str:
    return _UNITS[match[2]](value(match[1]))


def _size(size: float) -> str:
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= step and size % step == 0:
            return f"{size // step:,.0f} {unit}"
    return f"{size:,.0f} bytes"


def _time(seconds: float) -> str:
    for unit, step in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds % step == 0 and (seconds >= 2 * step or (unit == "h" and seconds == step)):
            return f"{seconds // step:,.0f} {unit}"
    return f"{seconds:g} s"


_UNITS = {"size": _size, "time": _time, "count": "{:,.0f}".format}


if __name__ == "__main__":
    write()
