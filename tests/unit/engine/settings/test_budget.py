"""The budget as a value: what may be written, and how many bytes it allows at an instant."""

from __future__ import annotations

import itertools

import pytest

from engine.settings.budget import CHOICES, Budget
from engine.units import GIB

JUNK = [
    "",
    " ",
    "x",
    "6GB",
    "6 GiB",
    "1,5",
    "6,",
    ",6",
    "6,7",
    "6 7",
    "--1",
    "+1",
    "- 1",
    "-",
    ".5",
    "6.",
    "1_000",
    "0x10",
    "٣",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "infinity",
    "True",
    "None",
    "1e",
    "1e400",
    "1e-400",
    "1e99",
    "-1e99",
    "1e-12",
    "-0.0000000001",
    "65537",
    "-65537",
    "9" * 400,
    "cuda:0",
    "cuda:0=",
    "=6",
    "=",
    "cuda:0=6,",
    ",cuda:0=6",
    "cuda:0=6,,cuda:1=6",
    "cuda:0=6,7",
    "7,cuda:0=6",
    "cuda:0=6;cuda:1=6",
    "cuda:0=6 cuda:1=6",
    "cuda:0==6",
    "cuda:0=6=7",
    "cuda:0=nan",
    "cuda:0=6GB",
    "cuda:x=1",
    "cuda:=1",
    "cuda:-1=1",
    "cuda:00=1",
    "cuda:1000=1",
    "cuda:٣=1",
    "cuda: 0=1",
    "CUDA:0=1",
    "gpu=1",
    "auto=6",
    "mps:0=1",
    "cpu:0=1",
    "fakegpu:0=1",
    "cuda:0=6,cuda:0=6",
    "cuda=6, cuda = 7",
    "cpu=1,mps=2,cpu=1",
]


@pytest.mark.parametrize("text", JUNK)
def test_anything_else_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(ValueError, match=r"\. max_vram is in GiB: ") as caught:
        Budget.parse(text)
    for choice in ("0 = no limit", "6 = at most 6", "-1 = all but 1 of what is free", 'a list: "cuda:0=6,cuda:1=-1"'):
        assert choice in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("6GB", '"6GB" is not a number'),
        ("cuda:0=6,7", '"7" is not DEVICE=NUMBER with the device cpu, cuda, cuda:N or mps'),
        ("cuda:0=6,cuda:1", '"cuda:1" is not DEVICE=NUMBER with the device cpu, cuda, cuda:N or mps'),
        ("cuda:0=6,cuda:1=6GB", '"6GB" is not a number'),
        ("6,7", '"6,7" is not a number'),
        ("cuda:0=6,", '"" is not DEVICE=NUMBER with the device cpu, cuda, cuda:N or mps'),
        ("cpu=1,cpu=2", "cpu is listed twice"),
        ("cuda:0=6,cpu=-1", '"cpu=-1" is below 0, and the CPU takes a cap only'),
        ("70000", '"70000" is too much, 65536 is the most'),
        ("1e-12", '"1e-12" is less than a byte'),
    ],
)
def test_a_refusal_says_what_is_wrong_before_the_choices(text: str, why: str) -> None:
    with pytest.raises(ValueError, match="max_vram") as caught:
        Budget.parse(text)
    assert str(caught.value) == f"{why}. {CHOICES}"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("0", "0"),
        ("0.0", "0"),
        ("00", "0"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("0e5", "0"),
        ("6", "6"),
        ("6.0", "6"),
        (" 6 ", "6"),
        ("1.5", "1.5"),
        ("1e1", "10"),
        ("2.5E-1", "0.25"),
        ("-1", "-1"),
        ("-1.50", "-1.5"),
        ("65536", "65536"),
        ("cpu=2", "cpu=2"),
        ("mps=2.0", "mps=2"),
        ("cuda:0=6,cuda:1=-1", "cuda:0=6,cuda:1=-1"),
        (" cuda:1 = -1 , cuda = 6.00,cpu=-0 ", "cuda:1=-1,cuda=6,cpu=0"),
        ("cuda:999=1", "cuda:999=1"),
    ],
)
def test_a_budget_is_kept_spelled_in_one_way(text: str, kept: str) -> None:
    budget = Budget.parse(text)
    assert str(budget) == kept
    assert Budget.parse(kept) == budget
    assert str(Budget.parse(kept)) == kept
    assert hash(Budget.parse(kept)) == hash(budget)


def test_any_number_of_bytes_survives_being_written_as_gib() -> None:
    scattered = [7**power % 2 ** (1 + power % 46) for power in range(500)]
    for nbytes in [*range(1, 100), *scattered, 65536 * GIB]:
        for text in (repr(nbytes / GIB), f"cuda:0={nbytes / GIB!r}", str(Budget.parse(repr(nbytes / GIB)))):
            assert Budget.parse(text).allowance("cuda:0", None, 0) == nbytes


# What it allows


@pytest.mark.parametrize("free", [None, 0, 5 * GIB])
@pytest.mark.parametrize("device", ["cpu", "cuda:0", "mps", "fakegpu:0"])
def test_0_is_no_limit_anywhere(device: str, free: int | None) -> None:
    assert Budget.parse("0").allowance(device, free, GIB) is None


@pytest.mark.parametrize(("free", "ours"), [(None, 0), (0, 7 * GIB), (80 * GIB, 0)])
@pytest.mark.parametrize("device", ["cuda:0", "cuda:7", "mps", "fakegpu:0"])
def test_a_cap_is_the_same_on_each_gpu_whatever_is_free(device: str, free: int | None, ours: int) -> None:
    assert Budget.parse("1.5").allowance(device, free, ours) == 3 * GIB // 2


@pytest.mark.parametrize(
    ("free", "ours", "allowed"),
    [
        (8 * GIB, 0, 7 * GIB),
        (8 * GIB, 3 * GIB, 10 * GIB),
        (GIB, 0, 0),
        (GIB // 2, 0, 0),
        (0, 0, 0),
        (0, GIB, 0),
        (0, 3 * GIB, 2 * GIB),
        (GIB + 1, 0, 1),
        (None, 3 * GIB, None),
    ],
)
def test_less_than_0_is_what_is_free_and_ours_less_that_and_never_below_0(
    free: int | None, ours: int, allowed: int | None
) -> None:
    for text in ("-1", "cuda:0=-1", "cuda=-1"):
        assert Budget.parse(text).allowance("cuda:0", free, ours) == allowed


def test_what_is_free_counts_anew_at_each_use_and_our_own_bytes_do_not_matter_to_it() -> None:
    budget, total, others = Budget.parse("-2"), 24 * GIB, 4 * GIB
    for ours in range(0, 20 * GIB, GIB // 3):
        assert budget.allowance("cuda:0", total - others - ours, ours) == 18 * GIB
    assert budget.allowance("cuda:0", total - 2 * others, 0) == 14 * GIB


@pytest.mark.parametrize("number", ["6", "-1", "1.5"])
def test_a_plain_number_is_for_gpus_and_never_for_the_cpu(number: str) -> None:
    budget = Budget.parse(number)
    assert budget.allowance("cpu", 64 * GIB, GIB) is None
    assert budget.allowance("cuda:0", 64 * GIB, GIB) is not None


def test_each_device_of_a_list_has_its_own_limit_and_others_none() -> None:
    budget = Budget.parse("cuda:0=6, cuda:1=-1, cpu=2")
    assert budget.allowance("cuda:0", 8 * GIB, 0) == 6 * GIB
    assert budget.allowance("cuda:1", 8 * GIB, 0) == 7 * GIB
    assert budget.allowance("cpu", 8 * GIB, 0) == 2 * GIB
    assert budget.allowance("cuda:2", 8 * GIB, 0) is None
    assert budget.allowance("cuda:10", 8 * GIB, 0) is None
    assert budget.allowance("mps", 8 * GIB, 0) is None
    assert Budget.parse("cuda:0=6").allowance("cpu", 8 * GIB, 0) is None


@pytest.mark.parametrize("items", list(itertools.permutations(["cuda=4", "cuda:1=2", "cuda:2=0"])))
def test_cuda_is_every_cuda_device_that_is_not_listed_itself_in_any_order(items: tuple[str, ...]) -> None:
    budget = Budget.parse(",".join(items))
    assert budget.allowance("cuda:0", None, 0) == 4 * GIB
    assert budget.allowance("cuda:11", None, 0) == 4 * GIB
    assert budget.allowance("cuda:1", None, 0) == 2 * GIB
    assert budget.allowance("cuda:2", None, 0) is None
    assert budget.allowance("mps", None, 0) is None


@pytest.mark.parametrize(("text", "limited"), [("0", False), ("cuda=0,cpu=0", False), ("-1", True), ("cpu=0.5", True)])
def test_a_budget_is_true_where_it_limits_anything(text: str, limited: bool) -> None:
    assert bool(Budget.parse(text)) is limited
