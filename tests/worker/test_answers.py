"""What a container answered: kept and checked alike at every size, and kept too where it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hecaton.core.model import Body, Kind, Reason
from hecaton.worker.doors import answers
from hecaton.worker.doors.door import Answer
from hecaton.worker.memory.spool import Spool
from tests.worker.brain import ref

SIZES = [100, 60_000, 100_000, 2_000_000]


async def _ended(folder: Path, kind: Kind, data: bytes, reason: Reason = Reason.OK) -> tuple[Reason, Body | None, str]:
    """As an exchange does it: reason, body, message and hint."""
    spool = Spool(folder)
    answer: Answer = Answer(ref("a"), reason, kind, data)
    body: Body | None = Body.inline(kind, data)
    if not answers.is_small(answer):
        answer, body = await answers.stored(answer, None, spool, 1 << 30, lambda wanted: None)
    ended, body, failure = answers.checked(answer, body)
    if body is not None and body.blob is not None:
        assert spool.result(ref("a")).read_bytes() == data
    return ended, body, f"{failure.message} {failure.hint}" if failure else ""


@pytest.mark.parametrize("size", SIZES)
async def test_json_that_is_none_is_refused_and_kept_with_its_place(tmp_path: Path, size: int) -> None:
    data = b'{"acc": 0.9, "notes": "' + b"x" * size + b'", "val_loss": NaN}'
    reason, body, said = await _ended(tmp_path, Kind.JSON, data)
    assert reason is Reason.RESULT_INVALID
    assert "the result is not JSON: $.val_loss: NaN" in said
    assert "json.dumps(result)" in said
    assert body is not None
    assert (body.kind, body.size) == (Kind.TEXT, len(data))


@pytest.mark.parametrize("size", SIZES)
async def test_text_that_is_none_is_refused_and_kept_as_bytes(tmp_path: Path, size: int) -> None:
    reason, body, said = await _ended(tmp_path, Kind.TEXT, b"x" * size + b"\xff")
    assert reason is Reason.RESULT_INVALID
    assert f"the result is not UTF-8 text: no UTF-8 from byte {size} on" in said
    assert body is not None
    assert (body.kind, body.size) == (Kind.BYTES, size + 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", list(Kind))
async def test_what_is_right_passes(tmp_path: Path, size: int, kind: Kind) -> None:
    data = b'["' + b"x" * size + b'\\u0000"]'
    reason, body, _ = await _ended(tmp_path, kind, data)
    assert reason is Reason.OK
    assert body is not None
    assert (body.kind, body.size) == (kind, len(data))


@pytest.mark.parametrize("size", SIZES)
async def test_what_the_container_itself_refused_is_kept(tmp_path: Path, size: int) -> None:
    reason, body, _ = await _ended(tmp_path, Kind.TEXT, b"[NaN" + b" " * size + b"]", Reason.RESULT_INVALID)
    assert reason is Reason.RESULT_INVALID
    assert body is not None
    assert (body.kind, body.size) == (Kind.TEXT, size + 5)


async def test_a_job_that_failed_otherwise_has_no_body(tmp_path: Path) -> None:
    assert (await _ended(tmp_path, Kind.JSON, b"1", Reason.HANDLER_ERROR))[:2] == (Reason.HANDLER_ERROR, None)
    assert (await _ended(tmp_path, Kind.JSON, b"", Reason.RESULT_INVALID))[:2] == (Reason.RESULT_INVALID, None)
