"""Until when no-overlap jobs may run, as a worker's next process reads it from the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from hecaton.worker.no_overlap import NoOverlapLease


def test_the_next_process_knows_until_when_the_earlier_one_was_assured(tmp_path: Path) -> None:
    lease = NoOverlapLease(tmp_path, "monday")
    lease.renew(1000.0, lost_after=60.0)
    lease.renew(1002.5, lost_after=60.0)
    assert NoOverlapLease(tmp_path, "monday").until == lease.until == 1047.5


def test_after_a_reboot_monotonic_time_means_nothing(tmp_path: Path) -> None:
    NoOverlapLease(tmp_path, "monday").renew(1000.0, lost_after=60.0)
    assert NoOverlapLease(tmp_path, "tuesday").until == 0.0


@pytest.mark.parametrize("text", ["", "[]", "junk", '["monday", "soon"]'])
def test_a_file_that_cannot_be_read_assures_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "lease").write_text(text)
    assert NoOverlapLease(tmp_path, "monday").until == 0.0
