"""What may be asked of a job: the bounds that SDK, command line and server share, and which jobs it makes unlike."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hecaton.core import options
from hecaton.core.batches import lane_of
from hecaton.core.doors import WAYS
from hecaton.core.errors import BadRequest
from hecaton.core.model import JobSpec, Mode
from hecaton.core.option_kinds import Changes
from hecaton.core.options import (
    EVERYWHERE,
    NOTHING_ASKED,
    OF_IMAGES,
    OPTIONS,
    Options,
    check,
    checked,
    joined,
    with_defaults,
)
from hecaton.core.placement.matching import warm_key

NAN, INF = float("nan"), float("inf")
NO_NUMBERS: list[object] = [True, False, "1", "", b"1", [], {}, 1j]
HUGE: list[object] = [NAN, INF, -INF, 1e300, -1e300, 10**30, -(10**30), 10**5000]
NO_SIZES: list[object] = [
    "",
    "24",
    "G",
    "0G",
    "-1G",
    "1.5.5G",
    "24GX",
    "1e9G",
    "24 G B",
    "9" * 600 + "G",
    24,
    2.5,
    True,
]

SENSELESS: dict[str, list[object]] = {
    "timeout": [0, -1, 0.0, -0.0, 30 * 86400.1, *NO_NUMBERS, *HUGE],
    "queue_ttl": [0, -1, 0.0, -0.0, 30 * 86400.1, *NO_NUMBERS, *HUGE],
    "retries": [-1, 101, 1.5, 1.0, None, *NO_NUMBERS, *HUGE],
    "priority": [-1001, 1001, 0.5, 0.0, None, *NO_NUMBERS, *HUGE],
    "no_overlap": [1, "yes", None],
    "entrypoint": ["", "None", "tini", None, True, 0, ["none"]],
    "startup_timeout": [0, -1, 0.0, -0.0, 30 * 86400.1, *NO_NUMBERS, *HUGE],
    "env": [
        None, [], "A=1", {"": "x"}, {"1A": "x"}, {"A=B": "x"}, {"A": 1}, {"A": "x\0"}, {"HECATON_DIR": "/"},
        {f"A{number}": "" for number in range(65)}, {"A": "x" * 32 * 1024},
    ],
    "protocol": ["", "HTTP", "grpc", None, True, 0],
    "port": [0, -1, 65536, 80.0, None, *NO_NUMBERS, *HUGE],
    "ready": ["", "health", "http://x/", "/a b", "/a\n", "/é", 1, True, "/" + "x" * 1024],
    "path": ["", "predict", "http://x/", "/a b", "/a\n", None, 1, "/" + "x" * 1024],
    "mount": [
        None, [], "data", {"": "/d"}, {"Data": "/d"}, {"../x": "/d"}, {"a" * 33: "/d"}, {"d": 1}, {"d": ""},
        {"d": "d"}, {"d": "/"}, {"d": "//d"}, {"d": "/d/"}, {"d": "/d/../etc"}, {"d": "/d/./e"}, {"d": "/d\0"},
        {"d": "/d:ro"}, {"d": "/d,readonly"}, {"d": "/" + "d" * 256}, {"d": "/proc"}, {"d": "/sys/fs"},
        {"d": "/dev/shm"},
        {"d": "/run"}, {"d": "/run/hecaton/in"}, {"d": "/cache"}, {"d": "/checkpoints/x"}, {"d": "/x", "e": "/x"},
        {"d": "/x", "e": "/x/y"}, {f"d{number}": f"/d{number}" for number in range(17)},
    ],
    "cpus": [0, -1, 0.0, -0.0, 1025, *NO_NUMBERS, *HUGE],
    "memory": NO_SIZES,
    "shm": NO_SIZES,
    "gpus": [-1, 65, 1.0, *NO_NUMBERS, *HUGE],
    "gpu": ["", ":", "a100,", "a100:h100", "65", "48G..24G", "a/b", "é", 1, True, ["a100"], "a" * 513],
    "vram": ["", "24", "0G", "-1G", "G", "24X", "1e3G", 24, 24.0, True, "9" * 400 + "G", "9" * 15 + "T"],
    "on": ["", "!", "a b", "zone=lab", ",", "a,,b", 1, True, "a" * 513],
}  # fmt: skip
SENSIBLE: dict[str, list[object]] = {
    "timeout": [None, 1e-9, 1, 90.5, 30 * 86400],
    "queue_ttl": [None, 1e-9, 1, 90.5, 30 * 86400],
    "retries": [0, 1, 100],
    "priority": [-1000, 0, 1000],
    "no_overlap": [False, True],
    "entrypoint": ["image", "none"],
    "startup_timeout": [None, 1e-9, 1, 90.5, 30 * 86400],
    "env": [{}, {"A": ""}, {"_a1": "x\n=y", "B": "é"}],
    "protocol": ["native", "http"],
    "port": [1, 8000, 65535],
    "ready": [None, "/", "/health?deep=1"],
    "path": ["/", "/predict", "/v1/chat/completions?x=%20"],
    "mount": [{}, {"data": "/mnt/data"}, {"a-1_b": "/srv/é x", "home": "/srv/éx"}, {"d": "/cached", "e": "/runs"}],
    "cpus": [None, 1e-2, 1, 2.5, 1024],
    "memory": [None, "24G", "512M", "1.5 GiB", "24gb"],
    "shm": [None, "8G", "64M"],
    "gpus": [None, 0, 1, 64],
    "gpu": [None, "a100", "A100,h100", "24GB..48GB:2", "A100:40G..80G:2", "RTX 4090"],
    "vram": [None, "24G", "24GB", "512MiB", "1.5g"],
    "on": [None, "box7", "box7,ada", "!box7", "box7, !ada"],
}


def cases(table: dict[str, list[object]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}-{position}") for name, values in table.items()
        for position, value in enumerate(values)
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), cases(SENSELESS))
def test_what_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadRequest, match=f"^{name} is .*: expected ") as caught:
        checked({name: value})
    assert len(caught.value.message) < 120


@pytest.mark.parametrize(("name", "value"), cases(SENSIBLE))
def test_what_is_within_its_bounds_passes(name: str, value: Any) -> None:
    check(Options(**{name: value}))
    assert getattr(checked({name: value}), name) == value


def test_every_option_has_senseless_and_sensible_values_here() -> None:
    assert set(SENSELESS) == set(SENSIBLE) == set(OPTIONS)


def test_an_option_that_there_is_not_is_named_with_the_nearest_that_there_is() -> None:
    with pytest.raises(TypeError, match=r"^there is no option 'retires': did you mean 'retries'\?$"):
        checked({"retires": 3})
    with pytest.raises(TypeError, match=r"^there is no option 'qqq'$"):
        checked({"qqq": 3})


def test_a_job_comes_first_then_its_image() -> None:
    image = with_defaults(NOTHING_ASKED, {"startup_timeout": 1200})
    assert joined(Options(retries=2), image) == Options(retries=2, startup_timeout=1200)
    assert joined(Options(startup_timeout=5.0), image) == Options(startup_timeout=5.0)
    assert with_defaults(image, {}) == image
    assert with_defaults(image, {"startup_timeout": None}) is NOTHING_ASKED
    asked = Options(retries=2)
    assert joined(asked, NOTHING_ASKED) is asked


def test_an_image_has_only_what_is_open_to_it_and_within_its_bounds() -> None:
    for name, senseless in SENSELESS.items():
        for value in senseless if name in OF_IMAGES else SENSIBLE[name]:
            if name not in OF_IMAGES or value is not None:
                with pytest.raises(BadRequest):
                    with_defaults(NOTHING_ASKED, {name: value})
    with pytest.raises(BadRequest, match=r"no option 'x+' for its jobs") as caught:
        with_defaults(NOTHING_ASKED, {"x" * 10_000: 1})
    assert len(caught.value.message) < 200


# As stored by the release that had no options that make jobs unlike: by owner, image, mode and file.
KEYS = {
    (1, 2, Mode.NATIVE, None): 6864722077160733516,
    (1, 2, Mode.HANDLER, "ab" * 32): 3491490394737240952,
    (1, 2, Mode.SCRIPT, None): 4641641959624432240,
}
WARM = {
    (1, 2, Mode.NATIVE, None): "1-2-tag-3-",
    (1, 2, Mode.HANDLER, "ab" * 32): "1-2-tag-3-abababababababab",
    (1, 2, Mode.SCRIPT, None): None,
}


ALIKE = [{name: values[-1]} for name, values in SENSIBLE.items() if OPTIONS[name].changes is Changes.NOTHING]


@pytest.mark.parametrize("asked", [{}, *ALIKE], ids=str)
def test_no_key_that_is_stored_has_changed(asked: dict[str, Any]) -> None:
    for (owner, image, mode, file), key in KEYS.items():
        lane = lane_of(owner, image, JobSpec(mode, file or ("cd" * 32 if WAYS[mode].needs_file else None), **asked))
        everybody = all(not OPTIONS[name].by_worker or name in EVERYWHERE for name in asked)
        assert (lane.key() == key) is everybody, "a lane of its own, where not every worker carries it out"
        assert warm_key(lane, None, 3) == WARM[owner, image, mode, file]


def test_a_container_without_the_entrypoint_of_its_image_is_another_one() -> None:
    without, default = (lane_of(1, 2, JobSpec(entrypoint=word)) for word in ("none", "image"))
    assert default.key() == KEYS[1, 2, Mode.NATIVE, None] != without.key()
    assert warm_key(default, None, 3) != warm_key(without, None, 3)


def test_a_container_with_other_variables_is_another_one_whatever_their_order() -> None:
    lanes = [lane_of(1, 2, JobSpec(env=env)) for env in ({"A": "1", "B": "2"}, {"B": "2", "A": "1"}, {"A": "1"}, {})]
    assert lanes[0].key() == lanes[1].key()
    assert len({lane.key() for lane in lanes}) == len({warm_key(lane, None, 3) for lane in lanes}) == 3
    assert lanes[3].key() == KEYS[1, 2, Mode.NATIVE, None]
    unlike = [lane_of(1, 2, JobSpec(env=env)) for env in ({"A": "1", "B": "2"}, {"A": '1", "B": "2'})]
    assert len({warm_key(lane, None, 3) for lane in unlike}) == 2


@pytest.mark.parametrize("changes", [Changes.CONTAINER, Changes.PLACEMENT])
def test_what_makes_jobs_unlike_is_a_part_of_their_lane_and_container(
    monkeypatch: pytest.MonkeyPatch, changes: Changes
) -> None:
    apart = msgspec.structs.replace(OPTIONS["priority"], changes=changes, by_worker=True)
    monkeypatch.setitem(OPTIONS, "priority", apart)
    monkeypatch.setattr(options, "_APART", (apart,))
    plain, asked, other = (lane_of(1, 2, JobSpec(priority=value)) for value in (0, 3, 4))
    assert plain.key() == KEYS[1, 2, Mode.NATIVE, None], "what is at its default is not named"
    assert len({lane.key() for lane in (plain, asked, other)}) == 3
    shapes = {warm_key(lane, None, 3) for lane in (plain, asked, other)}
    assert len(shapes) == (3 if changes is Changes.CONTAINER else 1)
    scripts = {lane_of(1, 2, JobSpec(Mode.SCRIPT, "f", priority=value)) for value in (3, 4)}
    assert len(scripts) == (1 if changes is Changes.CONTAINER else 2), "each has a container of its own anyway"
    assert all(dict(lane.asks).keys() == {"priority"} for lane in scripts), "its worker has to know it all the same"
