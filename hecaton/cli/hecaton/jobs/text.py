"""How one job is shown: a row, all details, why it waits, why it failed, its result. For `jobs`, `live` and `demo`."""

from __future__ import annotations

import base64
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import click

from hecaton.cli import output
from hecaton.cli.hecaton.holders import holder_line
from hecaton.cli.terminal import (
    Column,
    HarmlessStream,
    ago,
    bar,
    duration,
    harmless,
    harmless_json,
    is_terminal,
    one_line,
    size,
)
from hecaton.core.batches import LAST_LINES
from hecaton.core.doors import WAYS
from hecaton.core.errors import HecatonError, NotFound
from hecaton.core.image_versions import short

if TYPE_CHECKING:
    from hecaton.client import Client
    from hecaton.core.option_kinds import Option
    from hecaton.wire.api import AttemptView, JobSummary, JobView

COPY = 1024 * 1024

SHOWN_LINES = 5
"""Of the log of an earlier attempt; `--json` has 50, and `hecaton job logs --attempt N` all."""

NOBODY = "no worker is registered yet. On a machine with a GPU: sudo hecaton-gpu install SERVER"


def rows(views: Sequence[JobSummary], now: float, empty: str) -> list[str]:
    """A line for each. Without any: `empty` is said on stderr."""
    tags = any(view.tags for view in views)
    columns = [
        Column("#", right=True),
        Column("STATUS", flexible=True, state=True),
        Column("JOB", flexible=True),
        Column("IMAGE", flexible=True),
        Column("SUBMITTED"),
        Column("RAN", right=True),
        Column("WORKER", flexible=True),
        *([Column("TAGS", flexible=True, optional=True)] if tags else []),
        Column("OWNER", flexible=True, optional=True),
        Column("ID", optional=True),
    ]
    return output.table_lines(columns, [_row(view, now, tags) for view in views], empty)


def _row(view: JobSummary, now: float, tags: bool) -> list[str]:
    why = f" ({view.reason})" if view.state == "FAILED" and view.reason else ""
    ran = duration((view.ended_at or now) - view.started_at) if view.started_at else ""
    return [
        str(view.index),
        view.state + why,
        ": ".join(filter(None, (view.name, runs(view)))),
        view.image,
        ago(view.created_at, now),
        ran,
        view.worker or "",
        *([tagged(view.tags)] if tags else []),
        view.owner,
        view.id,
    ]


def runs(view: JobSummary | JobView) -> str | None:
    """The file that travelled with it, and its arguments, as they would be typed."""
    return shlex.join([view.file_name, *view.args]) if view.file_name else None


def tagged(tags: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in tags.items())


class Numbered(Protocol):
    @property
    def index(self) -> int: ...


def number_of(look: Callable[[str], Numbered], key: str | None) -> str | None:
    """The number of a job or batch that another one names by its id (`key`), or that, if it is there no more."""
    try:
        return None if key is None else str(look(key).index)
    except HecatonError:
        return key


def details(view: JobView, now: float, retry_of: str | None) -> list[str]:
    """`retry_of`: what it repeats, as people call that."""
    lines = output.field_lines([*_fields(view, now), ("retry of", retry_of)])
    if WAYS[view.mode].takes_payload:
        lines += output.block_lines("payload", _payload(view))
    if not view.state.terminal:
        lines += _waiting(view, now)
    if view.state == "FINISHED":
        lines += output.block_lines("result", _result(view))
    if view.failure or view.state in ("FAILED", "CANCELLED"):
        lines += ["", *ending(view, view.log_tail or "")]
        if view.log_tail:
            lines += output.block_lines("last log lines", view.log_tail)
    if len(view.attempts) > 1 or (not view.state.terminal and any(attempt.reason for attempt in view.attempts)):
        lines += output.block_lines("attempts", "\n".join(_attempt(attempt, view, now) for attempt in view.attempts))
    return lines


def _fields(view: JobView, now: float) -> list[tuple[str, object]]:
    from hecaton.core.doors import DEFAULT
    from hecaton.core.options import given

    queued, starting, running = spent(view, now)
    started = view.assigned_at is not None
    return [
        ("id", view.id),
        ("index", view.index),
        ("name", view.name),
        ("runs", runs(view)),
        ("tags", tagged(view.tags) or None),
        ("status", view.state + (" (asked to stop)" if view.cancel_requested and not view.state.terminal else "")),
        ("image", view.image),
        ("image version", view.attempts[-1].image_version if view.attempts else None),
        ("mode", view.mode if view.mode != DEFAULT else None),
        ("owner", view.owner),
        ("submitted", ago(view.created_at, now)),
        ("in the queue", duration(queued)),
        ("starting", duration(starting) if started else None),
        ("running", duration(running) if started and running else None),
        ("worker", view.worker),
        ("doing", view.note if view.state in ("ASSIGNED", "IN_PROGRESS") else None),
        ("progress", progress(view.progress) if view.progress is not None else None),
        ("attempt", f"{view.attempt}, up to {view.retries} retries" if view.retries else view.attempt or None),
        ("checkpoint", _checkpoint(view, now)),
        ("exit code", view.exit_code or None),
        *((option.label, _asked(option, value)) for option, value in given(view) if option.label),
        *_of_its_image(view),
    ]


def _checkpoint(view: JobView, now: float) -> str | None:
    found = view.checkpoint
    if found is None:
        return None
    whose = f"of attempt {found.attempt}" if found.attempt else "of the job that it repeats"
    return f"{whose}, {ago(found.made_at, now)}: {size(found.size)}, {found.files} file{'s' * (found.files > 1)}"


def spent(view: JobView, now: float) -> tuple[float, float, float]:
    """Seconds in the queue, starting and running, of all its attempts: together the time from submission to end."""
    end = view.ended_at or now
    spans = [(one.assigned_at, one.started_at, one.ended_at) for one in view.attempts]
    if not spans and view.assigned_at is not None:
        spans = [(view.assigned_at, view.started_at, view.ended_at)]
    starting = sum((started or ended or end) - assigned for assigned, started, ended in spans)
    running = sum((ended or end) - started for _, started, ended in spans if started is not None)
    return max(0.0, end - view.created_at - starting - running), starting, running


def _of_its_image(view: JobView) -> list[tuple[str, object]]:
    """Options that it did not ask for, and that its latest attempt has from its image."""
    from hecaton.core.options import given

    defaults = view.attempts[-1].defaults if view.attempts else None
    asked = {option.name for option, _ in given(view)}
    found = () if defaults is None else given(defaults)
    return [(o.label or o.name, f"{_asked(o, value)} (its image's)") for o, value in found if o.name not in asked]


def _asked(option: Option, value: Any) -> object:
    from hecaton.core.option_kinds import ValueKind

    if option.kind is ValueKind.FLAG:
        return f"yes: {option.meaning}" if option.meaning else "yes"
    if option.kind is ValueKind.VARIABLES:
        return ", ".join(value)  # their values may be secrets, which belong on no screen
    if option.kind is ValueKind.MOUNTS:
        return ", ".join(f"{name} at {place}" for name, place in value.items())
    return duration(value) if option.kind is ValueKind.SECONDS else value


def progress(value: Any) -> str:
    """What a handler reported: a share as a bar, anything else as it is."""
    share = _share(value)
    if share is not None:
        return bar(share) + (f", {value['done']} of {value['total']}" if isinstance(value, dict) else "")
    if isinstance(value, str):
        return value
    import msgspec

    return msgspec.json.encode(value).decode()


def progress_bar(value: Any) -> str:
    """The same, and nothing where it is no bar."""
    return "" if _share(value) is None else progress(value)


def _share(value: Any) -> float | None:
    """From 0 to 1: of `progress(0.2)` and `progress(done=12, total=60)`."""
    if isinstance(value, dict) and value.keys() == {"done", "total"}:
        done, total = value["done"], value["total"]
        if all(type(one) in (int, float) for one in (done, total)) and 0 <= done <= total and total > 0:
            return float(done / total)
    return value if isinstance(value, float) and 0 <= value <= 1 else None


def _payload(view: JobView) -> str:
    import msgspec

    raw = bytes(view.payload)
    if raw == b"null" and (view.payload_kind != "json" or view.payload_size > len(raw)):
        return f"({view.payload_kind}, {size(view.payload_size)})"
    if view.payload_kind == "text":
        return msgspec.json.decode(raw, type=str)
    return msgspec.json.format(raw, indent=2).decode()


def _result(view: JobView) -> str:
    import msgspec

    from hecaton.client.jobs import has_result

    if view.removed:
        return f"({view.removed})"
    if not has_result(view):
        fetch = f"hecaton job wait {view.index}"
        return f"({view.result_kind or 'none'}, {size(view.result_size)}; {fetch} prints it)"
    raw = bytes(view.result)
    if view.result_kind == "text":
        return msgspec.json.decode(raw, type=str)
    return msgspec.json.format(raw, indent=2).decode()


def waiting_lines(view: JobView, now: float | None = None) -> list[str]:
    """Why a job waits, one line for each worker; with `now` also one for each job that works there."""
    lines = []
    for waiting in view.waiting:
        # "*" stands for all workers, or for none at all.
        lines.append(one_line(waiting.why if waiting.worker == "*" else f"{waiting.worker} {waiting.why}"))
        if now is not None:
            lines += [f"  {one_line(holder_line(holder, now))}" for holder in waiting.holders]
    return lines or [NOBODY]


def _waiting(view: JobView, now: float) -> list[str]:
    if view.state != "IN_QUEUE":
        return output.block_lines("why it waits", "\n".join(waiting_lines(view))) if view.waiting else []
    return output.block_lines("why it waits", "\n".join([*waiting_lines(view, now), *before_it(view)]))


def before_it(view: JobView) -> list[str]:
    ahead = view.queue_position
    return [f"{'1 job is' if ahead == 1 else f'{ahead} jobs are'} before it"] if ahead else []


def _attempt(attempt: AttemptView, view: JobView, now: float) -> str:
    """One line, and the end of its log: that of the attempt that ended the job has a block of its own."""
    text = f"{attempt.number}  {attempt.worker}  {attempt.reason or 'running'}"
    if attempt.ended_at is not None:
        text += f" after {duration(attempt.ended_at - (attempt.started_at or attempt.assigned_at))}"
    text += f", {ago(attempt.ended_at or attempt.assigned_at, now)}"
    text += f", image {short(attempt.image_version)}" if attempt.image_version else ""
    text += f", exit code {attempt.exit_code}" if attempt.exit_code else ""
    text += f": {one_line(attempt.failure.message)}" if attempt.failure else ""
    if attempt.log_tail and not (view.state.terminal and attempt.number == view.attempt):
        text += "".join(f"\n   | {line}" for line in harmless(attempt.log_tail).splitlines()[-SHOWN_LINES:])
    return text


def ending(view: JobView, seen: str = "") -> list[str]:
    """Why there is no result: reason, message, where it happened, what to do next. `seen`: what of its log is shown
    beside; it is not said twice."""
    from hecaton.client.jobs import hint_of, keeps_refused

    lines = [harmless(f"Job {view.index} is {view.state}" + (f": {view.reason}" if view.reason else ""))]
    failure = view.failure
    if failure is None:
        return lines
    message, quoted, log = failure.message.partition(f". {LAST_LINES}\n")
    message = message if quoted and _holds(seen, log) else failure.message
    lines.append(harmless(f"{failure.type}: {message}" if failure.type else message))
    traceback = None if failure.traceback and _holds(seen, failure.traceback) else failure.traceback
    if traceback:
        lines += output.block_lines("traceback of the handler", traceback)
    hint = hint_of(view) or _missing_module(f"{failure.type}: {failure.message}\n{failure.traceback or ''}")
    if hint:
        lines += [""] if traceback else []
        lines.append(harmless(hint))
    if keeps_refused(view):
        kept = f"({view.result_kind}, {size(view.result_size)}): hecaton job wait {view.index} -o FILE"
        lines.append(f"What it returned is kept {kept} writes it to a file.")
    return lines


def _holds(seen: str, text: str) -> bool:
    """Whether what was shown ends with the text, or has it within: each of its lines, whatever stands between."""
    shown = iter(seen.splitlines())
    return all(any(line.strip() == one.strip() for one in shown) for line in text.strip().splitlines())


def _missing_module(text: str) -> str | None:
    found = re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", text)
    if found is None:
        return None
    return f"The image has no module {found[1]}: it has to be installed there. Your own go along with --workdir."


def print_result(client: Client, view: JobView) -> None:
    """The result of a finished job on stdout: JSON (indented on a terminal), text, or raw bytes into a pipe."""
    from hecaton.client.jobs import has_result

    terminal = is_terminal(sys.stdout)
    if view.removed:
        raise NotFound(f"job {view.index}: {view.removed}", f"hecaton job retry {view.index} computes it again.")
    if view.result_kind == "bytes" and terminal:
        output.say(
            f"The result is {size(view.result_size)} of bytes: hecaton job wait {view.index} -o FILE writes them."
        )
    elif view.result_kind == "json" and bytes(view.result) == b"null" and has_result(view) and WAYS[view.mode].silent:
        return
    elif view.result_kind == "bytes" or not has_result(view):
        _copy_result(client, view, terminal)
    elif terminal or view.result_kind != "text":
        click.echo(harmless_json(_result(view), sys.stdout) if view.result_kind == "json" else harmless(_result(view)))
    else:
        click.echo(_result(view).encode(), nl=False)


def _copy_result(client: Client, view: JobView, terminal: bool) -> None:
    stream = HarmlessStream() if terminal else None
    piece = b""
    with _fetched(client, view) as file:
        while last := file.read(COPY):
            piece = last
            click.echo(stream.feed(piece.decode(errors="replace")) if stream else piece, nl=False)
    if stream:
        click.echo(stream.end(), nl=False)
    if view.result_kind == "json" and not piece.endswith(b"\n"):
        click.echo()


def with_result(client: Client, view: JobView) -> JobView:
    """The same with its result in it, however large that is."""
    import msgspec

    from hecaton.client.jobs import has_result

    if view.state != "FINISHED" or view.removed or has_result(view):
        return view
    with _fetched(client, view) as file:
        data = file.read()
    if view.result_kind == "bytes":
        return msgspec.structs.replace(view, result_base64=base64.b64encode(data).decode())
    raw = data if view.result_kind == "json" else msgspec.json.encode(data.decode(errors="replace"))
    return msgspec.structs.replace(view, result=msgspec.Raw(raw))


@contextmanager
def _fetched(client: Client, view: JobView) -> Iterator[IO[bytes]]:
    """By way of a file: results may be larger than the memory."""
    with tempfile.TemporaryDirectory(prefix="hecaton-") as folder:
        path = Path(folder) / "result"
        client.download_result(view.id, path)
        with path.open("rb") as file:
            yield file
