"""`Store`, put together from its parts, and `Database`, which runs functions over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from hecaton.store.port.accounts import Accounts
from hecaton.store.port.batches import Batches
from hecaton.store.port.blobs import BlobRegister
from hecaton.store.port.files import Files
from hecaton.store.port.folders import SentFolders
from hecaton.store.port.jobs import Jobs
from hecaton.store.port.logs import Logs
from hecaton.store.port.meta import Meta
from hecaton.store.port.retention import Retention

T = TypeVar("T")


class Store(Jobs, Batches, Accounts, Logs, BlobRegister, Files, SentFolders, Meta, Retention, Protocol):
    """Verbs of one open transaction. For use inside the function that `Database.write` or `read` runs, on its thread;
    never kept."""


class Database(Protocol):
    """Opens, migrates and closes; runs functions over a `Store` inside transactions."""

    async def write(self, work: Callable[[Store], T]) -> T:
        """Run `work` in order of the calls; return when it is durable. An exception undoes this work alone."""
        ...

    async def read(self, work: Callable[[Store], T]) -> T: ...
    async def settle(self) -> None:
        """What was given back (`give_back`) leaves the disk now, as far as nobody reads it."""

    async def close(self) -> None: ...
