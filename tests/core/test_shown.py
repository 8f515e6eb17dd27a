"""What stands in a Python prompt for an answer of the server."""

from __future__ import annotations

import msgspec

from hecaton.core.shown import LONGEST
from tests.client.views import finished, view


def test_a_job_shows_what_it_holds_and_nothing_else() -> None:
    assert repr(view(attempt=2, worker="gpu-1")) == (
        "JobView(id='019328aa-0000-7000-8000-000000000001', index=7, state=IN_QUEUE, image='my/image', owner='ada', "
        "mode=native, created_at=1.0, attempt=2, worker='gpu-1', payload_kind=json, payload_size=4)"
    )


def test_so_does_its_payload_and_its_result() -> None:
    shown = str(finished({"a": [1, None]}, payload=msgspec.Raw(b'"in"'), tags={"lr": "0.1"}, args=("-x",)))
    assert 'payload="in"' in shown
    assert 'result={"a":[1,null]}' in shown
    assert "args=['-x'], tags={'lr': '0.1'}" in shown


def test_a_long_one_is_cut() -> None:
    shown = repr(finished("x" * 10 * LONGEST))
    assert len(shown) < 3 * LONGEST
    assert "xxx..." in shown
