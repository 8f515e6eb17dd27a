"""What failures of a batch have in common."""

from __future__ import annotations

from hecaton.core.batches import cause_of
from hecaton.core.model import Failure, Reason

NUMPY = "ModuleNotFoundError: No module named 'numpy'"
TORCH = "ModuleNotFoundError: No module named 'torch'"


def _told(last: str) -> Failure:
    return Failure(
        f"the container ended with exit code 1 without ever asking for work. Its last lines:\n  in x\n{last}"
    )


def test_a_cause_says_what_was_printed_last_where_the_message_quotes_it() -> None:
    cause = cause_of(Reason.STARTUP_EXIT, _told(NUMPY))
    assert cause.message == f"the container ended with exit code 1 without ever asking for work: {NUMPY}"
    assert cause == cause_of(Reason.STARTUP_EXIT, _told(NUMPY))
    assert cause != cause_of(Reason.STARTUP_EXIT, _told(TORCH))


def test_a_cause_is_else_the_first_line() -> None:
    assert cause_of(Reason.HANDLER_ERROR, Failure("two\nlines", "ValueError")).message == "ValueError: two"
    assert cause_of(Reason.HANDLER_ERROR, Failure("")).message == ""
    assert cause_of(Reason.WORKER_LOST, None).message == ""
