"""Properties that every parser of ours has for any input; the examples are the same in every run but a soak."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from engine.errors import LoadFailed
from engine.http import keep_alive
from engine.settings import toml
from engine.settings.budget import CHOICES, Budget
from engine.weights.files import layout

pytestmark = pytest.mark.soak("parsers")

YEAR = 365 * 86400


def outcome(parse: Callable[[Any], Any], value: object) -> Any:
    """Return what `parse` returns, or the error that refuses the value."""
    try:
        return parse(value)
    except (ValueError, LoadFailed) as refusal:
        return refusal


NUMBERS = st.one_of(st.integers(-70_000, 70_000), st.floats(-70_000, 70_000), st.floats()).map(str)
DEVICES = st.sampled_from(["cpu", "cuda", "cuda:0", "cuda:1", "cuda:01", "mps", "gpu", " cuda:7 "])
PAIRS = st.lists(st.tuples(DEVICES, NUMBERS).map("=".join), min_size=1, max_size=4).map(",".join)
NEAR_BUDGETS = st.text("0123456789.-+e=,:cudapms ", max_size=24)


@given(st.one_of(st.text(max_size=40), NEAR_BUDGETS, NUMBERS, PAIRS))
def test_a_budget_is_refused_with_the_choices_or_read_again_as_it_is_spelled(text: str) -> None:
    found = outcome(Budget.parse, text)
    if isinstance(found, ValueError):
        assert str(found).endswith(CHOICES)
    else:
        assert Budget.parse(str(found)) == found


DURATIONS = st.one_of(
    st.integers(), st.floats(), st.integers(YEAR - 9, 2 * YEAR), st.integers(0, 20_000).map("{}h".format)
)


@given(st.one_of(st.text(max_size=70), st.text("0123456789.-+hmsnuµ", max_size=12), DURATIONS))
def test_a_keep_alive_is_refused_or_stays_or_is_at_most_a_year(value: object) -> None:
    found = outcome(keep_alive.seconds, value)
    if isinstance(found, ValueError):
        assert str(found).startswith("must be ")
    else:
        assert found == keep_alive.STAY or 0 <= found <= YEAR


@given(st.integers(0, 8000), st.integers(0, 59), st.integers(0, 59))
def test_a_keep_alive_in_units_is_their_sum(hours: int, minutes: int, seconds: int) -> None:
    total = hours * 3600 + minutes * 60 + seconds
    assert keep_alive.seconds(f"{hours}h{minutes}m{seconds}s") == keep_alive.seconds(total) == total
    assert keep_alive.seconds(f"-{total + 1}s") == keep_alive.STAY


COMMENTS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20)
VALUES = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), COMMENTS, st.lists(COMMENTS, max_size=3))


@given(st.lists(COMMENTS, min_size=3, max_size=3), VALUES, VALUES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_an_edit_changes_one_value_and_keeps_comments_line_ends_and_mark(
    comments: list[str], before: Any, after: Any, end: str, marked: bool
) -> None:
    first, second, third = comments
    said = json.dumps(before, ensure_ascii=False).replace("\x7f", "\\u007f")
    lines = [f"#{first}", "[hardware]", f"a = {said} #{second}", "b = 1", f"#{third}", ""]
    text = ("\ufeff" if marked else "") + end.join(lines)
    changed = toml.with_changes(text, {("hardware", "a"): after})
    assert toml.loads(changed) == {"hardware": {"a": after, "b": 1}}
    assert all(f"#{comment}" in changed for comment in comments)
    assert changed.startswith("\ufeff") == marked
    assert changed.count("\r\n") == (len(lines) - 1 if end == "\r\n" else 0)


TENSORS = st.dictionaries(
    st.text(max_size=12).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(sorted(layout.ITEM_SIZES)), st.lists(st.integers(0, 5), max_size=3).map(tuple)),
    max_size=6,
)


@given(TENSORS)
def test_a_header_that_was_written_is_read_as_the_same_tensors_end_to_end(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    head = layout.header([(name, *of) for name, of in tensors.items()], {"format": "pt"})
    file = tmp_path_factory.getbasetemp() / "written.safetensors"
    file.write_bytes(head + bytes(sum(layout.size_of(*of) for of in tensors.values())))
    places = layout.read(file)
    assert {place.name: (place.dtype, place.shape) for place in places} == tensors
    end = len(head)
    assert end % 64 == 0
    for place in places:
        assert place.begin == end
        end += place.nbytes
    assert end == file.stat().st_size
    os.truncate(file, end - 1)
    assert isinstance(outcome(layout.read, file), LoadFailed)


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BOOL", "X9", 3]),
        "shape": st.lists(st.integers(-1, 4) | st.booleans(), max_size=3),
        "data_offsets": st.lists(st.integers(-1, 64), max_size=3),
    },
)
HEADERS = st.dictionaries(st.text(max_size=4), FIELDS | st.integers(), max_size=4).map(
    lambda described: (text := json.dumps(described).encode()) and len(text).to_bytes(8, "little") + text
)


@given(st.one_of(st.binary(max_size=80), HEADERS), st.integers(0, 64))
def test_any_file_is_read_within_its_size_or_refused_with_a_next_step(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, more: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.safetensors"
    file.write_bytes(head + bytes(more))
    found = outcome(layout.read, file)
    if isinstance(found, LoadFailed):
        assert found.next_step
    else:
        assert all(0 < place.begin <= place.begin + place.nbytes <= file.stat().st_size for place in found)
