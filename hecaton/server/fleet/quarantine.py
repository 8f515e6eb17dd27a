"""Workers that get nothing new: drained by an admin, or quarantined because their machine failed jobs in a row.

Both outlive a restart of the server. Also the judgement that lost workers need: whose fault was it? Called by
`attempts`, `channel`, `workers`, `duties` and `web`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from hecaton.core.model import AttemptRef, Charged, Reason, WorkerId, WorkerRecord
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.places.leases import IN_SERVICE, Lease, Member, OutOfService
from hecaton.server.fleet.revoking import withdraw
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.server.resources import Resources
from hecaton.store.port import AttemptEnd, EndResult, Store
from hecaton.wire.channel import Drain, Hello

STRIKES = 3
"""Attempts in a row that end by the machine's failure, until it is quarantined (docs/reliability.md, C5)."""

QUARANTINE = 600.0
"""Seconds. Then the machine gets work again; its next failure sends it back at once."""

MAX_WHY = 1000

_log = structlog.get_logger("hecaton.quarantine")


_LOSSES = frozenset({Reason.WORKER_LOST, Reason.POISON})


class BeforeLoss(msgspec.Struct, frozen=True):
    """Of a worker before it was lost, and how many of its attempts that ended."""

    strikes: list[Reason]
    out_of_service: OutOfService
    lost: int


class Quarantine:
    """On the server's event loop. A worker's reasons in `Fleet.out_of_service` decide about new work. The store has
    them a moment later, and gives them back at the next start. `count_failures` awaits nothing."""

    def __init__(self, resources: Resources, fleet: Fleet, scheduler: Scheduler) -> None:
        self._database, self._clock, self._settings = resources.database, resources.clock, resources.settings
        self._fleet, self._scheduler = fleet, scheduler
        self._strikes: dict[WorkerId, list[Reason]] = {}
        self._last_loss: tuple[WorkerId | None, float] = (None, 0.0)
        self._struck: dict[WorkerId, float] = {}  # when the last attempt ended that was counted
        self._before: dict[WorkerId, BeforeLoss] = {}
        self._boots: dict[WorkerId, str] = {}  # of the machine, when the worker was here last

    def load(self, workers: Sequence[WorkerRecord]) -> None:
        """At start, from the store."""
        for worker in workers:
            self._fleet.set_out_of_service(worker.id, _kept(worker))

    # -- by an admin ---------------------------------------------------------------------------

    async def drain(self, name: str) -> WorkerRecord:
        """Nothing new from now on; what has not started is asked back and given to others. NotFound."""
        record = await self._database.write(lambda store: store.set_drained(name, True))
        self._fleet.set_out_of_service(record.id, _kept(record))
        # Behind every claim that was planned before: their jobs are asked back too.
        await self._database.write(lambda store: None)
        if member := self._fleet.members.get(record.id):
            withdraw(member)
        self._tell(record.id, Drain())
        return record

    async def undrain(self, name: str) -> WorkerRecord:
        """Ends a quarantine too. The caller dispatches. NotFound."""
        record = await self._database.write(lambda store: store.set_drained(name, False))
        self._fleet.set_out_of_service(record.id, _kept(record))
        self._strikes.pop(record.id, None)
        self._scheduler.pulls.forget(record.id)
        self._tell(record.id, Drain(active=False))
        return record

    def _tell(self, worker: WorkerId, word: Drain) -> None:
        """One that is away hears it when it comes back."""
        member = self._fleet.members.get(worker)
        if member is not None and member.link is not None:
            member.link.send(word)

    def removed(self, worker: WorkerId) -> None:
        """By an admin, for good."""
        self._scheduler.pulls.removed(worker)

    # -- by what happens -----------------------------------------------------------------------

    def excused(self, lost: Member) -> bool:
        """Was this worker lost together with others: silent for a while too, or lost a moment ago? Then the cause is
        theirs in common (power, network), no job's and no machine's."""
        now, settings = self._clock.now(), self._settings
        who, at = self._last_loss
        self._last_loss = (lost.id, now)
        if who not in (None, lost.id) and now - at <= settings.lost_after:
            return True
        return any(
            member is not lost and now - member.last_contact > settings.suspect_after
            for member in self._fleet.members.values()
        )

    def count_failures(
        self, worker: WorkerId, ended: Sequence[EndResult], said: Mapping[AttemptRef, AttemptEnd]
    ) -> bool:
        """Count failures of the machine in a row. True if that was one too many: the caller then calls `keep`."""
        lost = sum([1 for end in ended if end.accepted and end.verdict and end.verdict.reason in _LOSSES])
        if lost:
            self._before[worker] = BeforeLoss(self._strikes.get(worker, []).copy(), self._reasons(worker), lost)
        for end in ended:
            if not end.accepted or end.verdict is None:
                continue
            if end.verdict.charged is Charged.INFRA and end.lane is not None:
                self._scheduler.shun(end.lane, worker)
            if end.verdict.charged is Charged.INFRA:
                if self._same_blow(worker, said.get(end.ref)):
                    continue
                reason = end.verdict.reason
                strike = Reason.WORKER_LOST if reason is Reason.POISON else reason
                self._strikes.setdefault(worker, []).append(strike)
            elif end.verdict.charged is Charged.USER or end.verdict.reason is Reason.OK:
                self._strikes.pop(worker, None)
        strikes = self._strikes.get(worker, [])
        if len(strikes) < STRIKES:
            return False
        self._strikes[worker] = strikes[-STRIKES + 1 :]  # one more after the quarantine, and it is back
        last = ", ".join(strikes[-STRIKES:])
        self._quarantine(worker, f"its last {STRIKES} attempts were ended by the machine ({last})")
        return True

    def _same_blow(self, worker: WorkerId, end: AttemptEnd | None) -> bool:
        """Attempts that ran side by side when the machine failed (its engine restarted) do not fail in a row: the first
        one counts."""
        if end is None:
            return False
        if end.started_at is not None and end.started_at < self._struck.get(worker, float("-inf")):
            return True
        self._struck[worker] = end.at
        return False

    async def restore(self, worker: WorkerId, hello: Hello) -> list[Lease]:
        """A worker is back. Attempts that it had been given up for are its own again if nobody else was given them,
        and count as no loss: leases for them, to be entered when it joins. Nor does a loss that was a reboot, which
        takes longer than `lost_after` on many machines, count against it."""
        self._fleet.contact(worker, self._clock.now())
        before = self._before.get(worker)
        rebooted = self._boots.get(worker, hello.boot_id) != hello.boot_id
        self._boots[worker] = hello.boot_id
        held = self._fleet.unknown(worker, hello.held)
        resumed = await self._database.write(lambda store: store.return_leases(worker, held)) if held else []
        self._before.pop(worker, None)
        wrong = sum(1 for one in resumed if one.charged is Charged.INFRA)
        if before is not None and rebooted:
            await self._forgive(worker, before, 0)
        elif before is not None and wrong:
            await self._forgive(worker, before, before.lost - wrong)
        for one in resumed:
            self._scheduler.forgive(one.lane, worker)
        return [Lease(one.ref, held[one.ref], one.lane, None, started=one.started) for one in resumed]

    async def _forgive(self, worker: WorkerId, before: BeforeLoss, losses: int) -> None:
        """The last loss of this worker was none, but for so many attempts."""
        strikes = before.strikes + [Reason.WORKER_LOST] * losses
        self._strikes[worker] = strikes[-STRIKES + 1 :]
        why = self._reasons(worker)
        if why.quarantine is not None and before.out_of_service.quarantine is None and len(strikes) < STRIKES:
            self._fleet.set_out_of_service(worker, msgspec.structs.replace(why, quarantine=None))
            await self._database.write(self.keep(worker))

    def _reasons(self, worker: WorkerId) -> OutOfService:
        return self._fleet.out_of_service.get(worker, IN_SERVICE)

    async def broken(self, worker: WorkerId, why: str) -> None:
        """It says itself that it starts no container: out at once, whatever it has done before. Said again in the same
        words a moment later, it is no news."""
        known = self._reasons(worker)
        if (
            known.quarantine == f"it starts no container: {why[:MAX_WHY]}"
            and known.until - self._clock.now() > QUARANTINE / 2
        ):
            return
        self._quarantine(worker, f"it starts no container: {why[:MAX_WHY]}")
        await self._database.write(self.keep(worker))

    def _quarantine(self, worker: WorkerId, why: str) -> None:
        reasons = msgspec.structs.replace(self._reasons(worker), quarantine=why, until=self._clock.now() + QUARANTINE)
        self._fleet.set_out_of_service(worker, reasons)
        member = self._fleet.members.get(worker)
        _log.warning("Worker quarantined", worker=member.name if member else worker, why=why, seconds=QUARANTINE)
        if member is not None:
            withdraw(member)

    async def release_due(self) -> int:
        """End the quarantines whose time is over. Returns how many; the caller dispatches."""
        now = self._clock.now()
        due = [worker for worker, why in self._fleet.out_of_service.items() if why.quarantine and why.until <= now]
        for worker in due:
            self._fleet.set_out_of_service(
                worker, msgspec.structs.replace(self._fleet.out_of_service[worker], quarantine=None)
            )
            await self._database.write(self.keep(worker))
        return len(due)

    def keep(self, worker: WorkerId) -> Callable[[Store], None]:
        """What stores the worker's quarantine as it is now."""
        why = self._fleet.out_of_service[worker]
        return lambda store: store.set_quarantine(worker, why.quarantine, why.until)


def _kept(record: WorkerRecord) -> OutOfService:
    return OutOfService(record.drained, record.quarantine, record.quarantined_until)
