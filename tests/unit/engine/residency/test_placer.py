"""The bytes of a device that an encoder may take: budgets, other programs, pins, residency, and no room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from engine_fakes import FakeClock
from test_state import view as a_view

from engine.devices.memory import DeviceMemory
from engine.devices.placement import CPU, Needs, Placement
from engine.errors import NoRoom
from engine.residency.placer import Placer
from engine.residency.policy import Decision
from engine.settings.config import Hardware
from engine.state import SlotView, State

GIB = 1 << 30
MIB = 1 << 20
GPU = "cuda:0"


class Card:
    """One GPU with encoders on it: its slots and its gauge in one."""

    def __init__(self, total: float = 8.0) -> None:
        self.total = int(total * GIB)
        self.others = 0
        self.own_context = 0
        """Bytes of our own context, which the driver counts beside what we hold."""
        self.tells_context = True
        self.asked_for_context = 0
        self.readings = 0
        self.cached = 0
        self.shown: dict[str, SlotView] = {}
        self.applied: list[Decision] = []
        self.limits: list[int | None] = []
        self.emptied = 0
        self.blind = False
        self.lost = False
        """Whether the driver takes no orders."""
        self.refusing = False
        """Whether a decision comes too late."""

    def stand(self, name: str, gib: float, **fields: Any) -> None:
        fields = {"last_used": 900.0, "came_up_at": 800.0, **fields}
        self.shown[name] = a_view(State.ON_DEVICE, name=name, device=GPU, bytes_on_device=int(gib * GIB), **fields)

    @property
    def held(self) -> int:
        return sum(view.bytes_on_device or 0 for view in self.shown.values() if view.awake and view.device == GPU)

    def slots(self) -> list[SlotView]:
        return list(self.shown.values())

    def apply_decision(self, decision: Decision) -> None:
        self.applied.append(decision)
        if not self.refusing:
            self.shown[decision.name] = replace(self.shown[decision.name], state=State.IN_RAM, bytes_on_device=0)

    def memory(self, device: str) -> DeviceMemory | None:
        if device == CPU:
            return None
        self.readings += 1
        ours = self.held + self.cached
        free = self.total - ours - self.others - self.own_context
        return DeviceMemory(device, None if self.blind else free, self.total, ours)

    def context(self, device: str) -> int | None:
        self.asked_for_context += 1
        return self.own_context if self.tells_context else None

    def limit(self, device: str, nbytes: int | None) -> bool:
        self.limits.append(nbytes)
        return not self.lost

    def empty_cache(self, device: str) -> None:
        self.cached = 0
        self.emptied += 1

    @property
    def left(self) -> list[str]:
        """Who stepped down, in that order."""
        return [decision.name for decision in self.applied]


@pytest.fixture
def card() -> Card:
    return Card()


def placer(card: Card, **hardware: Any) -> Placer:
    return Placer(card, Hardware(**hardware), FakeClock(), gauge=card)


def needs(gib: float, *, least: float | None = None) -> Needs:
    return Needs(GPU, int(gib * GIB), None if least is None else int(least * GIB))


def offers(placer: Placer, wanted: Needs, name: str = "new") -> list[Placement]:
    """Every placement that is offered when memory runs out again and again."""
    found: list[Placement] = []
    try:
        for placement in placer.make_room(name, wanted):
            found.append(placement)
            assert len(found) < 10
    except NoRoom:
        pass
    return found


def first(placer: Placer, wanted: Needs, name: str = "new") -> Placement:
    return next(iter(placer.make_room(name, wanted)))


# Whole


def test_what_fits_goes_up_whole_and_nobody_moves(card: Card) -> None:
    card.stand("old", 4)
    assert first(placer(card), needs(3)) == Placement(GPU)
    assert card.applied == []


def test_where_nobody_says_what_is_free_it_is_tried(card: Card) -> None:
    card.blind = True
    assert first(placer(card), needs(100)) == Placement(GPU)


def test_an_encoder_for_the_cpu_asks_for_nothing(card: Card) -> None:
    assert offers(placer(card, max_vram="1"), Needs(CPU, 10 * GIB)) == [Placement(CPU)]


def test_room_on_a_full_device_is_made_by_the_longest_idle_first_and_by_no_more_than_it_takes(card: Card) -> None:
    card.stand("recent", 3, last_used=990.0)
    card.stand("oldest", 2, last_used=100.0)
    card.stand("old", 2, last_used=500.0)
    assert first(placer(card), needs(3)) == Placement(GPU)
    assert card.left == ["oldest"]
    assert card.applied[0].reason == "making room for new"
    assert card.applied[0].if_unused_since == 100.0


def test_what_torch_only_keeps_for_later_is_given_back_before_anybody_moves(card: Card) -> None:
    card.stand("old", 4)
    card.cached = 2 * GIB
    assert first(placer(card), needs(3)) == Placement(GPU)
    assert (card.emptied, card.applied) == (1, [])


# Budgets


@pytest.mark.parametrize("max_vram", ["6", "cuda:0=6", "cuda=6", "cuda:1=1,cuda:0=6", "-2"])
def test_a_budget_makes_others_step_down_although_the_device_has_memory_left(card: Card, max_vram: str) -> None:
    card.stand("old", 4)
    assert first(placer(card, max_vram=max_vram), needs(3)) == Placement(GPU)
    assert card.left == ["old"]


@pytest.mark.parametrize("max_vram", ["0", "8", "cuda:1=1", "-0.5"])
def test_no_budget_or_one_with_room_moves_nobody(card: Card, max_vram: str) -> None:
    card.stand("old", 4)
    assert first(placer(card, max_vram=max_vram), needs(3)) == Placement(GPU)
    assert card.applied == []


def test_what_is_free_less_n_follows_other_programs_from_use_to_use(card: Card) -> None:
    shared = placer(card, max_vram="-1", on_no_room="error")
    assert first(shared, needs(6)) == Placement(GPU)
    card.others = 2 * GIB
    with pytest.raises(NoRoom, match=r"no room for the 6\.00 GiB of new"):
        first(shared, needs(6))
    card.others = 0
    assert first(shared, needs(6)) == Placement(GPU)


def test_a_budget_waits_for_those_that_just_came_up(card: Card) -> None:
    card.stand("young", 4, came_up_at=996.0)
    with pytest.raises(NoRoom):
        first(placer(card, max_vram="6", on_no_room="error"), needs(3))
    assert card.applied == []
    assert first(placer(card, max_vram="6", on_no_room="error", minimum_residency_seconds=4.0), needs(3)).device == GPU
    assert card.left == ["young"]


def test_a_full_device_waits_for_nobody(card: Card) -> None:
    card.stand("young", 6, came_up_at=999.0)
    assert first(placer(card), needs(3)) == Placement(GPU)
    assert card.left == ["young"]


@pytest.mark.parametrize("fields", [{"pinned": True}, {"in_flight": 1}, {"queued": 1}], ids=str)
def test_pinned_and_busy_encoders_never_move(card: Card, fields: dict[str, Any]) -> None:
    card.stand("old", 7, **fields)
    busy = placer(card, max_vram="7.5", on_no_room="error")
    with pytest.raises(NoRoom):
        first(busy, needs(3))
    busy.free_device(GPU, except_for="new")
    assert card.applied == []


def test_torch_itself_is_held_to_the_budget(card: Card) -> None:
    capped = placer(card, max_vram="6")
    first(capped, needs(3))
    assert card.limits[-1] == 6 * GIB
    capped.configure(Hardware())
    first(capped, needs(3))
    assert card.limits[-1] is None
    capped.configure(Hardware(max_vram="6"))
    first(capped, needs(3))
    capped.close()
    assert card.limits[-2:] == [6 * GIB, None], "another engine of this process may have no budget"
    first(capped, needs(3))
    assert card.limits[-1] is None, "not even a request that ends after the end may leave one"


def test_what_may_not_leave_although_it_is_over_the_budget_can_still_compute(card: Card) -> None:
    card.stand("pinned", 6, pinned=True)
    shared = placer(card, max_vram="4")
    assert shared.reclaim("pinned", GPU) is None
    assert card.limits[-1] is not None
    assert card.limits[-1] > 6 * GIB


def test_a_limit_that_could_not_be_lifted_is_lifted_later(card: Card) -> None:
    capped = placer(card, max_vram="6")
    first(capped, needs(3))
    card.lost = True
    capped.close()
    card.lost = False
    card.limits.clear()
    capped.close()
    assert card.limits == [None]


# No room


def test_streaming_comes_first_where_it_is_on_and_possible(card: Card) -> None:
    placement = first(placer(card, max_vram="4"), needs(6, least=1))
    assert placement.device == GPU
    assert placement.streamed_in is not None
    assert 3 * GIB < placement.streamed_in < 4 * GIB, "some of it stays free for batches"


def test_streaming_takes_the_least_where_only_that_fits(card: Card) -> None:
    assert first(placer(card, max_vram="1"), needs(6, least=1)) == Placement(GPU, GIB)


@pytest.mark.parametrize("least", [None, 1.5])
def test_without_streaming_or_with_too_little_for_it_the_cpu_computes_and_the_reason_is_told(
    card: Card, least: float | None
) -> None:
    placement = first(placer(card, max_vram="1"), needs(6, least=least))
    assert placement.device == CPU
    assert placement.reason == "It computes on the CPU, because cuda:0 has no room for its 6.00 GiB."


def test_on_no_room_can_choose_the_cpu_at_once(card: Card) -> None:
    assert first(placer(card, max_vram="4", on_no_room="cpu"), needs(6, least=1)).device == CPU


def test_on_no_room_can_ask_for_a_clear_error(card: Card) -> None:
    with pytest.raises(NoRoom) as caught:
        first(placer(card, max_vram="4", on_no_room="error"), needs(6, least=1))
    assert "max_vram" in str(caught.value)
    assert caught.value.retry_in_seconds == 1.0


def test_on_the_cpu_an_encoder_is_streamed_within_its_own_entry_of_the_budget(card: Card) -> None:
    wanted = Needs(CPU, 6 * GIB, 0)
    assert first(placer(card), wanted) == Placement(CPU, 0)
    assert first(placer(card, max_vram="4"), wanted) == Placement(CPU, 0), "a plain number is for GPUs"
    assert first(placer(card, max_vram="cpu=4"), wanted) == Placement(CPU, 4 * GIB)
    assert first(placer(card, max_vram="cpu=6"), wanted) == Placement(CPU)


def test_encoders_that_are_streamed_on_the_cpu_share_its_entry_of_the_budget(card: Card) -> None:
    shared = placer(card, max_vram="cpu=4")
    assert first(shared, Needs(CPU, 3 * GIB, 0), "one") == Placement(CPU)
    card.shown["one"] = a_view(State.ON_DEVICE, name="one", device=CPU)
    assert first(shared, Needs(CPU, 3 * GIB, 0), "two") == Placement(CPU, GIB)
    card.shown["one"] = a_view(State.IN_RAM, name="one", device=CPU)
    assert first(shared, Needs(CPU, 3 * GIB, 0), "two") == Placement(CPU)


def test_one_that_is_still_on_its_way_up_has_its_share_of_the_cpu_already(card: Card) -> None:
    shared = placer(card, max_vram="cpu=4")
    assert first(shared, Needs(CPU, 3 * GIB, 0), "one") == Placement(CPU)
    card.shown["one"] = a_view(State.LOADING, name="one")
    assert first(shared, Needs(CPU, 3 * GIB, 0), "two") == Placement(CPU, GIB)


def test_an_encoder_that_takes_anothers_name_inherits_nothing(card: Card) -> None:
    shared = placer(card)
    first(shared, needs(6, least=1))
    assert shared.use_less("new")
    shared.forget("new")
    assert first(shared, needs(6, least=1)) == Placement(GPU)


def test_a_new_budget_for_the_cpu_is_in_force_at_the_next_use(card: Card) -> None:
    shared = placer(card, max_vram="cpu=4")
    first(shared, Needs(CPU, 3 * GIB, 0), "one")
    assert shared.reclaim("one", CPU) is None
    shared.configure(Hardware(max_vram="cpu=2"))
    assert shared.reclaim("one", CPU) == "max_vram for the CPU was changed"
    assert first(shared, Needs(CPU, 3 * GIB, 0), "one") == Placement(CPU, 2 * GIB)
    assert shared.reclaim("one", CPU) is None


# Memory runs out although it should not


def test_after_memory_ran_out_others_step_down_and_it_is_tried_once_more(card: Card) -> None:
    card.stand("old", 2, came_up_at=999.0)
    offered: Iterator[Placement] = iter(placer(card).make_room("new", needs(3)))
    assert next(offered) == Placement(GPU)
    assert card.applied == []
    assert next(offered) == Placement(GPU)
    assert card.left == ["old"]


def test_then_it_is_streamed_then_with_the_least_then_on_the_cpu(card: Card) -> None:
    found = offers(placer(card), needs(6, least=1))
    assert [placement.device for placement in found] == [GPU, GPU, GPU, GPU, CPU]
    shares = [placement.streamed_in for placement in found]
    assert shares[:2] == [None, None]
    assert shares[2] is not None
    assert GIB < shares[2] < 8 * GIB
    assert shares[3] == GIB


def test_with_on_no_room_error_it_ends_after_the_second_try(card: Card) -> None:
    assert offers(placer(card, on_no_room="error"), needs(3)) == [Placement(GPU), Placement(GPU)]


def test_batches_that_do_not_fit_bring_the_encoder_up_one_way_further_down_each_time(card: Card) -> None:
    tight = placer(card)
    wanted = needs(6, least=1)
    seen = [first(tight, wanted)]
    while tight.use_less("new"):
        seen.append(first(tight, wanted))
    assert [(placement.device, placement.streamed_in) for placement in seen] == [
        (GPU, None),
        (GPU, 3 * GIB),
        (GPU, GIB),
        (CPU, None if seen[-1].streamed_in is None else 0),
    ]
    assert first(tight, wanted) == Placement(GPU), "the climb after that begins at the top again"


# While it stands


def test_one_that_outgrew_the_budget_comes_up_anew_when_nobody_else_can_leave(card: Card) -> None:
    card.stand("mine", 6, in_flight=1)
    shared = placer(card, max_vram="-1")
    assert shared.reclaim("mine", GPU) is None
    card.others = 2 * GIB
    assert shared.reclaim("mine", GPU) == "over the VRAM budget"
    card.stand("idle", 1)
    card.others = GIB
    assert shared.reclaim("mine", GPU) is None
    assert card.left == ["idle"]


@pytest.mark.parametrize("fields", [{"pinned": True}, {"came_up_at": 998.0}], ids=str)
def test_a_pinned_one_and_one_that_just_came_up_stay_over_the_budget(card: Card, fields: dict[str, Any]) -> None:
    card.stand("mine", 6, in_flight=1, **fields)
    card.others = 2 * GIB
    assert placer(card, max_vram="-1").reclaim("mine", GPU) is None


def test_one_high_reading_moves_nobody(card: Card) -> None:
    card.stand("mine", 4, in_flight=1)
    card.cached = 3 * GIB
    assert placer(card, max_vram="6").reclaim("mine", GPU) is None
    assert card.emptied == 1


def test_a_use_within_the_budget_costs_one_reading_of_the_device(card: Card) -> None:
    card.stand("one", 1)
    at = placer(card, max_vram="3")
    assert at.reclaim("one", GPU) is None
    assert card.readings == 1
    card.readings = 0
    assert at.shortages() == []
    assert card.readings == 2, "one for the budget, one for other programs"


def test_one_that_had_to_go_elsewhere_comes_back_when_there_is_room_for_it_and_its_batches(card: Card) -> None:
    card.others = 7 * GIB
    shared = placer(card)
    assert first(shared, needs(4)).device == CPU
    card.shown["new"] = a_view(State.ON_DEVICE, name="new", device=CPU, bytes_on_device=4 * GIB, came_up_at=900.0)
    assert shared.reclaim("new", CPU) is None
    card.others = 4 * GIB
    assert shared.reclaim("new", CPU) is None, "room for the weights alone would send it back and forth"
    card.others = 3 * GIB
    assert shared.reclaim("new", CPU) == "cuda:0 has room for it again"
    card.shown["new"] = replace(card.shown["new"], came_up_at=999.0)
    assert shared.reclaim("new", CPU) is None, "it just came up"
    assert first(shared, needs(4)) == Placement(GPU)
    card.shown["new"] = replace(card.shown["new"], device=GPU, came_up_at=900.0)
    assert shared.reclaim("new", GPU) is None


def test_one_that_had_to_be_streamed_stands_whole_again_when_there_is_room(card: Card) -> None:
    shared = placer(card, max_vram="4")
    assert first(shared, needs(6, least=1)).streamed_in is not None
    card.stand("new", 3.5)
    assert shared.reclaim("new", GPU) is None
    shared.configure(Hardware(max_vram="7"))
    assert shared.reclaim("new", GPU) == "cuda:0 has room for it again"


def test_nobody_moves_for_one_that_would_not_fit_even_then(card: Card) -> None:
    card.stand("old", 4)
    assert first(placer(card, max_vram="6"), needs(7)).device == CPU
    assert card.applied == []
    assert first(placer(card, max_vram="6"), needs(7, least=1)).streamed_in is not None
    assert card.left == ["old"], "a streamed one runs faster with every block that stays"


def test_on_the_cpu_no_encoder_has_to_leave(card: Card) -> None:
    assert placer(card, max_vram="1").reclaim("mine", CPU) is None


# Other programs


def test_when_other_programs_leave_too_little_idle_encoders_step_down_longest_idle_first(card: Card) -> None:
    card.stand("recent", 1, last_used=990.0)
    card.stand("old", 1, last_used=500.0)
    yielding = placer(card)
    assert yielding.shortages() == []
    card.others = int(5.8 * GIB)
    (shortage,) = yielding.shortages()
    assert (shortage.device, shortage.reason) == (GPU, "another program needs VRAM")
    yielding.relieve(shortage)
    assert card.left == ["old"]
    assert yielding.shortages() == []


def test_what_must_stay_free_can_be_set_and_switched_off(card: Card) -> None:
    card.stand("old", 1)
    card.others = 6 * GIB
    assert placer(card, keep_free_vram=0).shortages() == []
    assert placer(card, keep_free_vram=1000).shortages() == []
    (shortage,) = placer(card, keep_free_vram=1536).shortages()
    assert shortage.nbytes == 512 * MIB


def test_a_device_that_we_alone_fill_is_nobody_elses_need(card: Card) -> None:
    card.stand("old", 8)
    assert placer(card).shortages() == []


def test_our_own_context_is_no_other_program(card: Card) -> None:
    card.own_context = 400 * MIB
    card.stand("old", (card.total - 500 * MIB) / GIB)
    assert placer(card).shortages() == []
    assert card.asked_for_context


def test_where_nobody_says_what_our_context_takes_all_of_it_may_be_others(card: Card) -> None:
    card.own_context, card.tells_context = 400 * MIB, False
    card.stand("old", (card.total - 500 * MIB) / GIB)
    (shortage,) = placer(card).shortages()
    assert shortage.nbytes == 400 * MIB
    card.others = 50 * MIB
    (shortage,) = placer(card).shortages()
    assert shortage.nbytes == 450 * MIB


@pytest.mark.parametrize(("others", "short"), [(100, 100), (412, 412), (3000, 412)])
def test_what_is_short_for_others_is_at_most_what_they_use_beside_our_context(
    card: Card, others: int, short: int
) -> None:
    card.own_context, card.others = 400 * MIB, others * MIB
    card.stand("old", (card.total - card.own_context - card.others - 100 * MIB) / GIB)
    (shortage,) = placer(card).shortages()
    assert (shortage.nbytes, shortage.reason) == (short * MIB, "another program needs VRAM")


def test_what_our_context_takes_is_asked_only_while_others_may_lack_memory(card: Card) -> None:
    card.others = card.own_context = GIB
    card.stand("old", 1)
    assert placer(card).shortages() == []
    assert card.asked_for_context == 0


def test_yielding_leaves_those_that_just_came_up_the_pinned_and_the_busy(card: Card) -> None:
    card.stand("young", 1, came_up_at=996.0)
    card.stand("pinned", 1, pinned=True)
    card.stand("busy", 1, in_flight=1)
    card.others = 5 * GIB
    yielding = placer(card)
    for shortage in yielding.shortages():
        yielding.relieve(shortage)
    assert card.applied == []


def test_an_idle_encoder_over_the_budget_steps_down(card: Card) -> None:
    card.stand("old", 5)
    capped = placer(card)
    assert capped.shortages() == []
    capped.configure(Hardware(max_vram="4"))
    (shortage,) = capped.shortages()
    assert (shortage.nbytes, shortage.reason) == (GIB, "over the VRAM budget")


def test_a_device_is_watched_while_an_encoder_stands_there_and_something_can_become_short(card: Card) -> None:
    assert not placer(card).watching
    card.stand("old", 1)
    assert placer(card).watching
    assert not placer(card, keep_free_vram=0).watching
    assert placer(card, keep_free_vram=0, max_vram="-1").watching
    card.blind = True
    assert not placer(card).watching, "nobody can say what is free"


def test_only_one_encoder_goes_up_to_a_device_at_a_time(card: Card) -> None:
    shared = placer(card)
    with shared.exclusive(GPU):
        assert shared._exclusive[GPU].locked()
        with shared.exclusive("cuda:1"), shared.exclusive(CPU):
            pass  # other devices wait for nobody
    assert not shared._exclusive[GPU].locked()
