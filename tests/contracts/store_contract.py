"""The contract of the ports `Database` and `Store`: an adapter's tests subclass it and provide a fixture `database`."""

from __future__ import annotations

from tests.contracts.store_accounts import AccountContract
from tests.contracts.store_attempts import AttemptContract
from tests.contracts.store_batches import BatchContract
from tests.contracts.store_checkpoints import CheckpointContract
from tests.contracts.store_queue import QueueContract
from tests.contracts.store_retention import RetentionContract
from tests.contracts.store_transactions import TransactionContract
from tests.contracts.store_views import ViewContract


class StoreContract(
    AccountContract,
    QueueContract,
    BatchContract,
    AttemptContract,
    CheckpointContract,
    ViewContract,
    TransactionContract,
    RetentionContract,
):
    """Everything that an adapter has to do."""
