"""Drives a `WorkerState` in tests: says events in short words, keeps the actions, checks the invariants after each."""

from __future__ import annotations

from typing import TypeVar

from hecaton.core.model import AttemptRef, Body, Gpu, JobId, Kind, Mode, Reason
from hecaton.core.options import Options
from hecaton.core.placement.holds import Holds
from hecaton.wire.channel import Assignment, FileRef, FromWorker, ImageRef
from hecaton.worker.brain import events as ev
from hecaton.worker.brain import invariants
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.brain.slots import Done
from hecaton.worker.brain.state import WorkerState
from hecaton.worker.runtimes.port import Exit

A = TypeVar("A", bound=ev.Action)
M = TypeVar("M")

SETTINGS = WorkerSettings(slots=1, idle_timeout=900, drain_timeout=30, startup_timeout=600)
BLOB = "ab" * 32
NOW = 1000.0


def ref(job: str, attempt: int = 1) -> AttemptRef:
    return AttemptRef(JobId(job), attempt)


def assignment(
    job: str,
    *,
    attempt: int = 1,
    warm_key: str | None = "w1",
    slot: int = 0,
    blob: bool = False,
    timeout: float | None = None,
    mode: Mode = Mode.NATIVE,
    file: FileRef | None = None,
    image: str = "python:3.9-slim",
    payload: Body | None = None,
    args: tuple[str, ...] = (),
    no_overlap: bool = False,
    holds: Holds | None = None,
) -> Assignment:
    if payload is None:
        payload = Body(Kind.BYTES, b"", BLOB, 2_000_000) if blob else Body.inline(Kind.JSON, b'{"n":1}')
    return Assignment(
        ref=ref(job, attempt), slot=slot, image=ImageRef(image, None, {}, 1), owner="ada", warm_key=warm_key, mode=mode,
        payload=payload, key=f"key-{job}", file=file, args=args,
        options=Options(timeout=timeout, no_overlap=no_overlap), holds=holds,
    )  # fmt: skip


class Brain:
    """`all`: every action since the start; `last`: those of the last event."""

    def __init__(
        self,
        settings: WorkerSettings = SETTINGS,
        gpus: tuple[Gpu, ...] = (),
        done: tuple[Done, ...] = (),
        no_overlap_until: float = 0.0,
    ) -> None:
        self.state = WorkerState(gpus, settings, "c", done, no_overlap_until)
        self.now = NOW
        self.all: list[ev.Action] = []
        self.last: list[ev.Action] = []
        self.hear(ev.Guarded(NOW, True))

    def hear(self, event: ev.Event) -> list[ev.Action]:
        self.last = self.state.handle(event)
        self.all += self.last
        invariants.check(self.state.holdings)
        invariants.check_orders(self.state.holdings, self.last)
        return self.last

    def connect(self, drop: tuple[AttemptRef, ...] = ()) -> None:
        self.hear(ev.Welcomed(self.now, drop))

    def disconnect(self) -> None:
        self.hear(ev.LinkLost(self.now))

    def assign(self, *jobs: Assignment) -> None:
        self.hear(ev.Assigned(self.now, jobs))

    def revoke(self, *refs: AttemptRef) -> None:
        self.hear(ev.Revoked(self.now, refs))

    def cancel(self, *refs: AttemptRef) -> None:
        self.hear(ev.CancelAsked(self.now, refs))

    def accept(self, *refs: AttemptRef) -> None:
        self.hear(ev.ResultsAccepted(self.now, refs))

    def boot(self, container: str) -> None:
        """The container's image is pulled, it starts, and it asks for work."""
        self.hear(ev.ImageReady(self.now, container))
        self.hear(ev.ContainerStarted(self.now, container))
        self.hear(ev.ContainerReady(self.now, container))

    def answer(self, container: str, job: AttemptRef, reason: Reason = Reason.OK) -> None:
        self.hear(ev.JobAnswered(self.now, container, job, reason, Body.inline(Kind.JSON, b"1")))

    def exit(self, container: str, code: int = 0, *, oom: bool = False, error: str = "", output: str = "") -> None:
        self.hear(ev.ContainerExited(self.now, container, Exit(code, oom, error), output))

    def gone(self, container: str) -> None:
        self.hear(ev.ContainerGone(self.now, container))

    def wait(self, seconds: float) -> None:
        """Time passes; the clock rings when the brain asked for it, and at the end."""
        until, heard = self.now + seconds, list[ev.Action]()
        while (due := self.state.deadline()) is not None and self.now < due <= until:
            self.now = due
            heard += self.hear(ev.Tick(self.now))
        self.now = until
        self.last = heard + self.hear(ev.Tick(self.now))

    def stop(self, *, at_once: bool = False) -> None:
        self.hear(ev.StopAsked(self.now, at_once))

    def did(self, kind: type[A]) -> list[A]:
        """The actions of this kind that the last event led to."""
        return [action for action in self.last if isinstance(action, kind)]

    def ever(self, kind: type[A]) -> list[A]:
        return [action for action in self.all if isinstance(action, kind)]

    def said(self, kind: type[M]) -> list[M]:
        """The messages of this kind that the last event led to."""
        return [report.message for report in self.did(ev.Report) if isinstance(report.message, kind)]

    def messages(self) -> list[FromWorker]:
        return [report.message for report in self.did(ev.Report)]

    def started(self) -> list[str]:
        return [action.container for action in self.did(ev.StartContainer)]

    def stopped(self) -> list[str]:
        return [action.container for action in self.did(ev.StopContainer)]

    def given(self) -> list[tuple[str, AttemptRef]]:
        return [(action.container, action.assignment.ref) for action in self.did(ev.GiveJob)]

    def results(self) -> list[tuple[AttemptRef, Reason]]:
        return [(action.outcome.ref, action.outcome.reason) for action in self.did(ev.Deliver)]

    def running(self, *jobs: Assignment, container: str = "c-1") -> None:
        """Bring the worker to where the first of these jobs runs."""
        self.connect()
        self.assign(*jobs)
        self.boot(container)
