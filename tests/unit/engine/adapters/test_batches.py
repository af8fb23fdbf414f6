"""The batch size that a device's memory allows: halved where it must be, and grown back where it can."""

from __future__ import annotations

import pytest

from engine.adapters.base import batches
from engine.adapters.base.batches import FIRST_WAIT, LARGEST, LONGEST_WAIT, Batches
from engine.errors import OutOfMemory

COUNT = 64
"""More inputs than a batch holds."""


class Encoder:
    """Computes on a device that has memory for `room` inputs at once, and notes the sizes that it was asked for."""

    def __init__(self, room: int = LARGEST) -> None:
        self.room = room
        self.batches = Batches()
        self.tried: list[int] = []

    def use(self, count: int = COUNT) -> list[int]:
        """Run one call; returns the sizes that it tried."""
        self.tried = []
        assert self.batches.run("cpu", self._compute, count) == self.tried[-1]
        return self.tried

    def _compute(self, size: int) -> int:
        self.tried.append(size)
        if size > self.room:
            raise OutOfMemory("full")
        return size


def calls(encoder: Encoder, number: int) -> list[list[int]]:
    return [encoder.use() for _ in range(number)]


def tries(encoder: Encoder, number: int, above: int) -> list[int]:
    """Which of that many calls tried a size above the one that fits."""
    return [index for index, sizes in enumerate(calls(encoder, number)) if max(sizes) > above]


def test_where_all_fits_each_call_is_computed_once() -> None:
    assert calls(Encoder(), 3) == [[LARGEST]] * 3


@pytest.mark.parametrize(("count", "size"), [(0, 1), (1, 1), (5, 5), (LARGEST, LARGEST), (1000, LARGEST)])
def test_no_batch_is_larger_than_the_call(count: int, size: int) -> None:
    assert Encoder().use(count) == [size]


def test_a_size_that_does_not_fit_is_halved_until_it_does_and_that_is_remembered() -> None:
    encoder = Encoder(room=5)
    assert calls(encoder, 2) == [[32, 16, 8, 4], [4]]
    assert encoder.batches.size == 4


def test_one_input_that_does_not_fit_is_the_callers_error() -> None:
    encoder = Encoder(room=0)
    with pytest.raises(OutOfMemory, match="full"):
        encoder.use()
    assert encoder.tried == [32, 16, 8, 4, 2, 1]


def test_once_there_is_memory_again_the_size_grows_back_with_each_call_computed_once() -> None:
    encoder = Encoder(room=2)
    encoder.use()
    encoder.room = LARGEST
    assert calls(encoder, FIRST_WAIT + 6) == [*[[2]] * FIRST_WAIT, [4], [8], [16], [32], [32], [32]]


def test_it_grows_back_to_the_size_that_fits_and_no_call_fails_or_is_computed_more_than_twice() -> None:
    encoder = Encoder(room=2)
    encoder.use()
    encoder.room = 11
    assert calls(encoder, FIRST_WAIT + 4) == [*[[2]] * FIRST_WAIT, [4], [8], [16, 8], [8]]
    assert max(map(len, calls(encoder, 500))) == 2


def test_a_try_that_fails_is_followed_by_a_wait_twice_as_long_up_to_a_limit() -> None:
    encoder = Encoder(room=8)
    encoder.use()
    tried = tries(encoder, 1000, above=8)
    waits = [later - earlier - 1 for earlier, later in zip([-1, *tried], tried, strict=False)]
    assert waits[:6] == [FIRST_WAIT * 2**nth for nth in range(6)]
    assert max(waits) == LONGEST_WAIT
    assert len(tried) < 14


def test_long_and_short_inputs_in_turn_do_not_make_it_thrash() -> None:
    """Long ones fit in twos, short ones in any number: each call of long ones may find a size that grew back."""
    encoder, repeated = Encoder(), 0
    for nth in range(2000):
        encoder.room = 2 if nth % 10 == 0 else LARGEST
        repeated += len(encoder.use()) - 1
    assert repeated < 100


def test_a_call_that_fits_into_one_batch_is_no_reason_to_try_more() -> None:
    encoder = Encoder(room=4)
    encoder.use()
    for _ in range(3 * FIRST_WAIT):
        assert encoder.use(4) == [4]
    assert calls(encoder, FIRST_WAIT) == [[4]] * FIRST_WAIT
    assert encoder.use(5) == [5, 4], "no larger than what was asked for"


def test_after_a_try_that_failed_the_known_size_is_used_and_halved_on_from_there() -> None:
    encoder = Encoder(room=4)
    assert calls(encoder, FIRST_WAIT + 2)[-1] == [8, 4]
    assert encoder.use() == [4]
    encoder.room = 1
    assert encoder.use() == [4, 2, 1]


def test_a_try_in_a_moment_with_less_memory_than_ever_is_served_too() -> None:
    encoder = Encoder(room=4)
    calls(encoder, FIRST_WAIT + 1)
    encoder.room = 1
    assert encoder.use() == [8, 4, 2, 1]
    assert encoder.use() == [1]


def test_after_an_error_on_one_input_the_next_call_does_not_try_at_once() -> None:
    encoder = Encoder(room=0)
    with pytest.raises(OutOfMemory):
        encoder.use()
    encoder.room = 1
    assert calls(encoder, FIRST_WAIT) == [[1]] * FIRST_WAIT


def test_a_reset_forgets_what_did_not_fit() -> None:
    encoder = Encoder(room=2)
    encoder.use()
    encoder.room = LARGEST
    encoder.batches.reset()
    assert calls(encoder, 2) == [[LARGEST]] * 2


def test_any_other_error_goes_to_the_caller_and_changes_nothing() -> None:
    def broken(size: int) -> int:
        raise ValueError("bad input")

    batches = Batches()
    with pytest.raises(ValueError, match="bad input"):
        batches.run("cpu", broken, COUNT)
    assert Encoder().use() == [LARGEST]
    assert batches.run("cpu", lambda size: size, COUNT) == LARGEST


def test_the_heap_is_trimmed_once_in_so_many_computations_on_a_cpu_and_never_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trims: list[None] = []
    monkeypatch.setattr(batches, "trim_heap", lambda: trims.append(None))
    for device, expected in (("cuda:0", 0), ("cpu", 2)):
        runner = Batches()
        for _ in range(2 * batches.BATCHES_PER_TRIM):
            runner.run(device, lambda size: size, 1)
        assert len(trims) == expected
