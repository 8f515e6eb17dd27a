"""What a job needs of a machine: one grammar, and sizes as they are printed on boxes."""

from __future__ import annotations

import pytest

from hecaton.core.errors import BadRequest
from hecaton.core.placement.needs import (
    GIB,
    Cards,
    Needs,
    cards_of,
    is_model,
    needs_of,
    nominal,
    size_of,
    suits,
    workers_of,
)

MIB = 1 << 20

# Name, MiB as the driver reports them, GB as printed on the box.
CARDS = (
    ("NVIDIA GeForce GTX 1050 Ti", 4040, 4), ("NVIDIA GeForce GTX 1060 6GB", 6078, 6),
    ("NVIDIA GeForce GTX 1080", 8119, 8), ("NVIDIA GeForce GTX 1080 Ti", 11178, 11), ("NVIDIA TITAN V", 12066, 12),
    ("NVIDIA GeForce RTX 2060", 6144, 6), ("NVIDIA GeForce RTX 2080 Ti", 11019, 11),
    ("NVIDIA GeForce RTX 3060", 12288, 12), ("NVIDIA GeForce RTX 3070", 8192, 8),
    ("NVIDIA GeForce RTX 3080", 10240, 10),
    ("NVIDIA GeForce RTX 3090", 24576, 24), ("NVIDIA GeForce RTX 3090", 24268, 24),
    ("NVIDIA GeForce RTX 4060 Ti", 16380, 16), ("NVIDIA GeForce RTX 4070", 12282, 12),
    ("NVIDIA GeForce RTX 4080", 16376, 16), ("NVIDIA GeForce RTX 4090", 24564, 24),
    ("NVIDIA GeForce RTX 5080", 16303, 16), ("NVIDIA GeForce RTX 5090", 32607, 32),
    ("Quadro RTX 5000", 16384, 16), ("Quadro RTX 8000", 46080, 48), ("NVIDIA RTX A2000 12GB", 12282, 12),
    ("NVIDIA RTX A4000", 16376, 16), ("NVIDIA RTX A5000", 24564, 24), ("NVIDIA RTX A6000", 49140, 48),
    ("NVIDIA RTX 6000 Ada Generation", 49140, 48), ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, 96),
    ("Tesla K80", 11441, 12), ("Tesla M60", 7618, 8), ("Tesla P4", 7611, 8), ("Tesla P40", 22919, 24),
    ("Tesla P100-PCIE-16GB", 16280, 16), ("Tesla V100-SXM2-16GB", 16160, 16), ("Tesla V100-SXM2-32GB", 32510, 32),
    ("Tesla T4", 15109, 16), ("Tesla T4", 15360, 16), ("NVIDIA A2", 15356, 16), ("NVIDIA A10G", 23028, 24),
    ("NVIDIA A30", 24258, 24), ("NVIDIA A40", 46068, 48), ("NVIDIA A100-SXM4-40GB", 40536, 40),
    ("NVIDIA A100-SXM4-80GB", 81251, 80), ("NVIDIA L4", 23034, 24), ("NVIDIA L40S", 46068, 48),
    ("NVIDIA H100 80GB HBM3", 81559, 80), ("NVIDIA H100 NVL", 95830, 94), ("NVIDIA H200", 143771, 141),
    ("NVIDIA B200", 183359, 180), ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864, 5), ("NVIDIA A100 MIG 3g.20gb", 19968, 20),
    ("NVIDIA H100 MIG 1g.10gb", 9728, 10),
)  # fmt: skip


@pytest.mark.parametrize(("name", "reported", "gb"), CARDS)
def test_a_card_is_as_large_as_its_box_says(name: str, reported: int, gb: int) -> None:
    assert nominal(reported * MIB) == gb * GIB
    assert suits(Cards(low=gb * GIB, high=gb * GIB), name, reported * MIB)
    assert not suits(Cards(low=(gb + 1) * GIB), name, reported * MIB)


def test_a_size_that_nobody_sells_is_itself() -> None:
    assert [nominal(size) for size in (56 * GIB, 700 * MIB, 500 * GIB)] == [56 * GIB, 700 * MIB, 500 * GIB]


@pytest.mark.parametrize(
    ("asked", "name", "is_one"),
    [
        ("a100", "NVIDIA A100-SXM4-80GB", True), ("A100", "NVIDIA A100-SXM4-80GB", True),
        ("a10", "NVIDIA A100-SXM4-80GB", False), ("a10", "NVIDIA A10G", True), ("a10", "NVIDIA A10", True),
        ("l4", "NVIDIA L4", True), ("l4", "NVIDIA L40S", False), ("l40", "NVIDIA L40S", True),
        ("4090", "NVIDIA GeForce RTX 4090", True), ("rtx4090", "NVIDIA GeForce RTX 4090", True),
        ("rtx 4090", "NVIDIA GeForce RTX 4090", True), ("090", "NVIDIA GeForce RTX 4090", False),
        ("3090", "NVIDIA GeForce RTX 3090 Ti", True), ("3090ti", "NVIDIA GeForce RTX 3090", False),
        ("h100", "NVIDIA H100 80GB HBM3", True), ("t4", "Tesla T4", True), ("v100", "Tesla V100-SXM2-16GB", True),
        ("a100", "NVIDIA A100 80GB PCIe", True), ("h100", "NVIDIA GH100", False),
    ],
)  # fmt: skip
def test_a_model_is_a_part_of_a_name_that_begins_and_ends_like_a_word(asked: str, name: str, is_one: bool) -> None:
    assert is_model(name, asked) is is_one


@pytest.mark.parametrize("text", ["24G", "24g", "24GB", "24GiB", "24 GB", "24576M", "24.0G", "0.0234375T"])
def test_a_size_is_read_however_people_write_it(text: str) -> None:
    assert size_of(text) == 24 * GIB


@pytest.mark.parametrize(
    ("text", "meant"),
    [("24", "24G?"), ("24X", "24G?"), ("24 gigs", "24G?"), ("0G", "24G, or 512M"), ("-4G", "24G"), ("", "24G"),
     ("G", "24G"), ("1e3G", "1G?"), ("٤G", "24G"), ("9" * 15 + "T", "G"), ("1" * 10_000 + "G", "G"), ("24G\0", "24G?")],
)  # fmt: skip
def test_what_is_no_size_is_refused_with_the_nearest_that_is_one(text: str, meant: str) -> None:
    with pytest.raises(BadRequest) as caught:
        size_of(text)
    assert meant in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "cards"),
    [
        ("a100", Cards(("a100",))),
        ("a100,h100", Cards(("a100", "h100"))),
        ("RTX 4090", Cards(("RTX 4090",))),
        ("24GB..48GB:2", Cards((), 24 * GIB, 48 * GIB, 2)),
        ("A100:24GB..48GB:2", Cards(("A100",), 24 * GIB, 48 * GIB, 2)),
        ("2:a100", Cards(("a100",), count=2)),
        ("24GB", Cards((), 24 * GIB)),
        ("24G..", Cards((), 24 * GIB)),
        ("..48G", Cards((), 0, 48 * GIB)),
    ],
)
def test_cards_are_read_as_dstack_writes_them_too(text: str, cards: Cards) -> None:
    assert cards_of(text) == cards


@pytest.mark.parametrize(
    "text", ["", ":", "a100,", "a100:h100", "24G:48G", "1:2", "0", "65", "..", "48G..24G", "a/b", "é"]
)
def test_cards_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        cards_of(text)
    assert caught.value.hint


def test_workers_are_named_or_left_out() -> None:
    assert workers_of("box7, ada,!rig") == (("ada", "box7"), ("rig",))
    for text in ("", "!", "a b", "zone=lab", ",", "!!a"):
        with pytest.raises(BadRequest):
            workers_of(text)


def test_what_is_asked_together_is_one_need() -> None:
    assert needs_of({}) is None
    assert needs_of({"gpus": 2}) == Needs(2)
    assert needs_of({"vram": "24G"}) == Needs(part=24 * GIB)
    assert needs_of({"gpus": 1, "vram": "24G"}) == Needs(1, Cards(low=24 * GIB)), "whole cards of at least that size"
    assert needs_of({"gpus": 0}) == Needs(0)
    assert needs_of({"gpu": "a100:2"}) == Needs(2, Cards(("a100",)))
    assert needs_of({"gpu": "a100", "vram": "24G", "on": "!x"}) == Needs(None, Cards(("a100",)), 24 * GIB, off=("x",))
    assert needs_of({"cpus": 4, "memory": "8G"}) == Needs(cpus=4.0, memory=8 * GIB)
    contradictions: list[dict[str, object]] = [
        {"gpus": 0, "vram": "1G"}, {"gpus": 0, "gpu": "a100"}, {"gpus": 1, "gpu": "a100:2"},
        {"gpu": "24G", "vram": "8G"},
    ]  # fmt: skip
    for asked in contradictions:
        with pytest.raises(BadRequest):
            needs_of(asked)


@pytest.mark.parametrize(
    ("needs", "text"),
    [
        (Needs(1, Cards(low=24 * GIB)), "1 card with 24 GB"),
        (Needs(2, Cards(("a100", "h100"))), "2 a100 or h100 cards"),
        (Needs(part=3 * GIB // 2), "1.5 GB of a card"),
        (Needs(0, cpus=4, memory=8 * GIB), "4 CPUs and 8 GB of memory"),
        (Needs(0), "a place without a card"),
        (Needs(2, Cards((), 24 * GIB, 48 * GIB)), "2 cards with 24 GB to 48 GB"),
    ],
)
def test_needs_are_said_in_a_few_words(needs: Needs, text: str) -> None:
    assert str(needs) == text
