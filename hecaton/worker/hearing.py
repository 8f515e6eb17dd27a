"""What comes over the link becomes events; what the worker says of itself when it connects."""

from __future__ import annotations

import hecaton
from hecaton.core.options import OF_WORKERS
from hecaton.serverless.protocol import DEFAULT_MAX_RESULT
from hecaton.wire.channel import (
    LOST_AFTER,
    PROTOCOL,
    Accepted,
    Assign,
    Cancel,
    CardInfo,
    CardsNow,
    Drain,
    Hello,
    Resolve,
    Revoke,
    ToWorker,
    Welcome,
)
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.holdings import Holdings
from hecaton.worker.image_watch import ImageWatch
from hecaton.worker.memory.outbox import Outbox
from hecaton.worker.no_overlap import NoOverlapLease
from hecaton.worker.runtimes.port import Runtime
from hecaton.worker.site import Site

TELLS_OF_CARDS = 4
"""The first version of the protocol that has the message."""


class Hearing:
    """The agent's ear (`link.Listener`), on its loop. `options`: of a job, that this worker carries out. `max_result`:
    bytes, as the server has said. `cards`: of this machine, as they were seen last; None: nobody looks."""

    def __init__(
        self,
        runtime: Runtime,
        holdings: Holdings,
        images: ImageWatch,
        outbox: Outbox,
        lease: NoOverlapLease,
        site: Site,
    ) -> None:
        self.options = OF_WORKERS | runtime.options
        self.max_result = DEFAULT_MAX_RESULT
        self.cards: tuple[CardInfo, ...] | None = None
        self._said: tuple[CardInfo, ...] | None = None  # of cards, in the hello
        self._hears_of_cards = False
        self._runtime = runtime
        self._holdings = holdings
        self._images = images
        self._outbox = outbox
        self._lease = lease
        self._site = site
        self._post, self._now = site.post, site.now
        self._lost_after = LOST_AFTER  # until a server has said it
        self._started_at = self._now()
        self._connections = 0

    def hello(self) -> Hello:
        self._connections += 1
        places = self._holdings.places
        self._said = self.cards
        return Hello(
            protocol=PROTOCOL,
            version=hecaton.__version__,
            runtime=self._runtime.name,
            slots=self._holdings.slot_infos(),
            held=self._holdings.held(self._now()),
            serves=self._runtime.serves,
            boot_id=self._site.boot,
            started=self._started_at,
            connection=self._connections,
            doors=tuple(sorted(self._runtime.doors)),
            options=tuple(sorted(self.options)),
            mounts=tuple(sorted(self._site.folders.mounts)),
            cards=self.cards,
            cpus=places.cpus,
            memory=places.memory,
        )

    def welcome(self, message: Welcome) -> None:
        self.max_result = message.max_result
        self._hears_of_cards = message.protocol >= TELLS_OF_CARDS
        if self.cards is not None and self.cards != self._said:
            self.tell_cards(self.cards)
        self._lost_after = message.lost_after
        self._post(ev.Welcomed(self._now(), message.drop, message.drained))

    def tell_cards(self, cards: tuple[CardInfo, ...]) -> None:
        """To a server that knows the message; one that connects later hears it with the hello."""
        self.cards = cards
        if self._hears_of_cards:
            self._site.say(CardsNow(cards))

    def assured(self, at: float) -> None:
        now = self._now()
        self._lease.renew(at, self._lost_after)
        self._post(ev.Assured(now, now + self._lease.left(), self._lease.grace))

    def hear(self, message: ToWorker) -> None:
        now = self._now()
        if isinstance(message, Assign):
            self._post(ev.Assigned(now, message.jobs))
        elif isinstance(message, Accepted):
            self._post(ev.ResultsAccepted(now, message.refs, message.fenced))
        elif isinstance(message, Revoke):
            self._post(ev.Revoked(now, message.refs))
        elif isinstance(message, Cancel):
            self._post(ev.CancelAsked(now, message.refs))
        elif isinstance(message, Drain):
            self._post(ev.Drained(now, message.active))
        elif isinstance(message, Resolve):
            self._images.answer(message)

    def lost(self) -> None:
        self._outbox.lost()
        self._post(ev.LinkLost(self._now()))

    def dismissed(self, code: int, message: str) -> None:
        self._post(ev.ShutdownAsked(self._now(), code, message))
