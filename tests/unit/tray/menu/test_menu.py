"""The menu as a value, compared as text, without a desktop."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from tray_fakes import GIB, MIB, a_gpu, a_reading, a_view

from engine import Config, DeviceReading, Hardware, State
from engine.settings.config import DEFAULT_ENCODER
from engine.state import Download, ErrorView
from tray.menu.item import (
    SEPARATOR,
    CopyEndpoint,
    Item,
    OffloadAll,
    OpenSettings,
    Quit,
    SetEagerLoad,
    SetIdleTimeout,
    SetLazy,
    SetMaxVram,
    SetUnloadTimeout,
    UnloadAll,
    shape,
)
from tray.menu.menu import ON_A_CPU, ON_A_GPU, ON_A_SHARING_GPU, Snapshot, build, headline

NOW = 1000.0
URL = "http://127.0.0.1:7458"
AWAKE = a_view(state=State.ON_DEVICE, device="cpu", bytes_on_device=61 * MIB, bytes_total=87 * MIB, last_used=NOW - 6)


def a_snapshot(*views: Any, **changes: Any) -> Snapshot:
    return replace(Snapshot(Config(), views or (a_view(),), a_reading(), NOW, URL), **changes)


def texts(rows: tuple[Item, ...]) -> list[str]:
    return ["---" if row is SEPARATOR else row.text for row in rows]


def find(rows: tuple[Item, ...], text: str) -> Item:
    return next(row for row in rows if row.text.startswith(text))


def test_the_whole_menu_reads_from_the_headline_down_to_quit() -> None:
    assert texts(build(a_snapshot(AWAKE))) == [
        "Pilotlight · 1 of 1 awake",
        "RSS 412 MiB",
        ON_A_CPU,
        "---",
        "minilm · idle · 61 / 87 MiB · steps down in 24 s",
        "---",
        "Load on first use",
        "Read into RAM at start",
        "Idle timeout",
        "Unload timeout",
        "Offload all now",
        "Unload all now",
        "---",
        "Copy endpoint address",
        "Open settings file",
        "---",
        "Quit",
    ]


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ((State.UNLOADED,), "Pilotlight · 0 of 1 awake"),
        ((State.ON_DEVICE, State.IN_RAM), "Pilotlight · 1 of 2 awake"),
        ((State.LOADING, State.ON_DEVICE), "Pilotlight · loading one"),
        ((State.LOADING, State.LOADING), "Pilotlight · loading 2 encoders"),
        ((), "Pilotlight · 0 of 0 awake"),
    ],
)
def test_the_headline_counts_the_awake_and_says_while_something_loads(states: tuple[State, ...], words: str) -> None:
    names = ("one", "two")
    assert headline(tuple(a_view(name, state) for name, state in zip(names, states, strict=False))) == words


def test_the_headline_tells_a_download_before_all_else() -> None:
    fetching = a_view("bge", State.LOADING, download=Download(120 * MIB, 470 * MIB))
    assert headline((AWAKE, fetching)) == "Pilotlight · bge: downloading 120 of 470 MiB"


@pytest.mark.parametrize("download", [Download(120 * MIB, 470 * MIB), None])
def test_the_headline_cuts_a_long_name(download: Download | None) -> None:
    text = headline((a_view("n" * 64, State.LOADING, download=download),))
    assert "n" * 31 + "…" in text
    assert len(text) <= 80


def test_many_encoders_have_a_submenu_of_their_own() -> None:
    twelve = tuple(a_view(f"one-{number}") for number in range(12))
    assert len([row for row in build(a_snapshot(*twelve)) if row.text.startswith("one-")]) == 12
    rows = build(a_snapshot(*twelve, AWAKE))
    assert not [row for row in rows if row.text.startswith("one-")]
    assert [child.text for child in find(rows, "Encoders · 13").children][-1] == (
        "minilm · idle · 61 / 87 MiB · steps down in 24 s"
    )


def vram(rows: tuple[Item, ...], number: int = 0) -> Item:
    """The row of a GPU."""
    return [row for row in rows if "VRAM" in row.text][number]


def used_gpu(**changes: Any) -> DeviceReading:
    """A GPU of 8 GiB on which torch holds 1.2 GiB, with every figure known."""
    figures = {"vram_free": int(4.4 * GIB), "process_vram": int(1.5 * GIB), "allocated_vram": int(1.2 * GIB)}
    figures |= {"context_bytes": 310 * MIB, "others_vram": int(2.1 * GIB)}
    return replace(a_gpu(0, int(3.6 * GIB)), name="NVIDIA GeForce RTX 4060", **(figures | changes))


def test_a_gpu_has_a_row_in_gib() -> None:
    rows = build(a_snapshot(reading=a_reading(412 * MIB, a_gpu(0, int(1.2 * GIB)))))
    assert texts(rows)[1:3] == ["VRAM 1.2 / 8.0 GiB", "RSS 412 MiB"]


def test_a_gpus_submenu_says_what_is_ours_the_contexts_others_and_free() -> None:
    row = vram(build(a_snapshot(reading=a_reading(412 * MIB, used_gpu()))))
    assert row.text == "VRAM 3.6 / 8.0 GiB · ours 1.2 GiB"
    assert texts(row.children) == [
        "NVIDIA GeForce RTX 4060",
        "Ours: 1.2 GiB",
        "Context, until Pilotlight ends: 310 MiB",
        "Other programs and the driver: 2.1 GiB",
        "Free: 4.4 of 8.0 GiB",
        "As its driver says",
    ]
    assert not any(child.enabled or child.command for child in row.children)


def test_what_the_driver_does_not_say_of_us_is_unknown_beside_what_torch_knows() -> None:
    silent = used_gpu(process_vram=None, context_bytes=None, others_vram=None)
    row = vram(build(a_snapshot(reading=a_reading(412 * MIB, silent))))
    assert row.text == "VRAM 3.6 / 8.0 GiB · ours 1.2 GiB"
    assert texts(row.children)[1:] == [
        "Ours: 1.2 GiB",
        "Context, until Pilotlight ends: unknown",
        "Other programs and the driver: unknown",
        "Free: 4.4 of 8.0 GiB",
        "Its driver does not say who uses what",
    ]


def test_a_gpu_that_shares_the_systems_memory_says_so() -> None:
    nothing = dict.fromkeys(("vram_total", "vram_used", "vram_free", "process_vram", "context_bytes", "others_vram"))
    rows = build(a_snapshot(reading=a_reading(412 * MIB, used_gpu(shares_ram=True, **nothing))))
    assert vram(rows).text == "VRAM is the system's memory · ours 1.2 GiB"
    assert texts(vram(rows).children)[4:] == ["Free: unknown", "The GPU shares the system's memory"]
    assert ON_A_SHARING_GPU in texts(rows)


def test_two_gpus_are_told_apart() -> None:
    rows = build(a_snapshot(reading=a_reading(2 * GIB, a_gpu(0, GIB), a_gpu(1, None))))
    assert texts(rows)[1:4] == ["GPU 0 VRAM 1.0 / 8.0 GiB", "GPU 1 VRAM unknown", "RSS 2.0 GiB"]


def test_a_driver_that_does_not_say_is_unknown_and_not_zero() -> None:
    for gpu in (a_gpu(0, None), a_gpu(0, MIB, None)):
        row = vram(build(a_snapshot(reading=a_reading(MIB, gpu))))
        assert row.text == "VRAM unknown"
        assert sum("unknown" in text for text in texts(row.children)) == 4


def test_a_driver_that_does_not_say_what_is_free_is_not_quoted() -> None:
    for gpu in (used_gpu(vram_total=None, vram_free=None), used_gpu(vram_free=None)):
        row = vram(build(a_snapshot(reading=a_reading(MIB, gpu))))
        assert texts(row.children)[4:] == ["Free: unknown", "Its driver does not say what is free"]


def test_a_gpu_that_falls_silent_keeps_its_row_and_its_submenu() -> None:
    rows = build(a_snapshot(gpus=(0,)))
    assert texts(rows)[1:3] == ["VRAM unknown", "RSS 412 MiB"]
    assert texts(vram(rows).children)[-1] == "Its driver does not answer now"
    for gpu in (a_gpu(), used_gpu(), used_gpu(shares_ram=True), used_gpu(vram_total=None, allocated_vram=None)):
        assert shape(build(a_snapshot(reading=a_reading(MIB, gpu)))) == shape(rows)


def test_a_gpus_row_keeps_room_for_the_figures_to_come() -> None:
    asleep, busy = (vram(build(a_snapshot(reading=a_reading(MIB, gpu)))) for gpu in (a_gpu(), used_gpu()))
    assert asleep.room == busy.room >= len(busy.text)
    room = max(child.room for child in asleep.children)
    assert all(len(child.text) <= room for child in busy.children)


@pytest.mark.parametrize(
    ("views", "reading", "words"),
    [
        ((AWAKE,), a_reading(MIB, a_gpu()), ON_A_CPU),
        ((AWAKE, a_view("other")), a_reading(MIB, a_gpu()), ON_A_CPU),
        ((AWAKE, a_view("other", device="cuda:0")), a_reading(MIB, a_gpu()), ON_A_GPU),
        ((a_view(),), a_reading(), ON_A_CPU),
        ((AWAKE, a_view("other")), a_reading(), ON_A_CPU),
        ((replace(AWAKE, device="mps"), a_view("other")), a_reading(), ON_A_GPU),
        ((a_view(),), a_reading(MIB, a_gpu()), ON_A_GPU),
        ((a_view(device="cuda:0"),), a_reading(), ON_A_GPU),
        ((), a_reading(MIB, a_gpu()), ON_A_GPU),
    ],
)
def test_a_line_says_what_stepping_down_gives_back_here(views: Any, reading: Any, words: str) -> None:
    rows = texts(build(a_snapshot(*views, reading=reading)))
    assert rows[rows.index("---") - 1] == words


@pytest.mark.parametrize(("own", "words"), [("cpu", ON_A_CPU), ("cuda", ON_A_GPU)])
def test_before_a_first_load_the_settings_say_where_encoders_compute(own: str, words: str) -> None:
    reading = a_reading(MIB, a_gpu())
    assert (ON_A_CPU in texts(build(a_snapshot(config=Config(Hardware(device=own)), reading=reading)))) is (
        words == ON_A_CPU
    )
    encoder = replace(DEFAULT_ENCODER, device=own)
    config = Config(Hardware(device="cpu"), encoders=(DEFAULT_ENCODER, encoder))
    assert words in texts(build(a_snapshot(config=config, reading=reading)))


def test_rows_that_inform_cannot_be_clicked() -> None:
    for row in build(a_snapshot(AWAKE))[:3]:
        assert row.command is None
        assert not row.enabled


def test_load_on_first_use_is_checked_while_lazy_and_a_click_asks_for_the_opposite() -> None:
    lazy = find(build(a_snapshot()), "Load on first use")
    eager = find(build(a_snapshot(config=Config(Hardware(lazy_encoders=False)))), "Load on first use")
    assert (lazy.checked, lazy.command) == (True, SetLazy(False))
    assert (eager.checked, eager.command) == (False, SetLazy(True))


def test_the_idle_timeout_offers_six_choices_with_the_configured_one_chosen() -> None:
    choices = find(build(a_snapshot()), "Idle timeout").children
    assert texts(choices) == ["Never", "10 s", "30 s", "1 min", "5 min", "30 min"]
    assert [choice.text for choice in choices if choice.checked] == ["30 s"]
    assert all(choice.radio for choice in choices)
    assert choices[0].command == SetIdleTimeout(0.0)


def test_the_unload_timeout_offers_six_choices_with_the_configured_one_chosen() -> None:
    choices = find(build(a_snapshot()), "Unload timeout").children
    assert texts(choices) == ["Never", "1 min", "5 min", "15 min", "1 h", "4 h"]
    assert [choice.text for choice in choices if choice.checked] == ["15 min"]
    assert all(choice.radio for choice in choices)
    assert choices[4].command == SetUnloadTimeout(3600.0)
    odd = find(build(a_snapshot(config=Config(Hardware(unload_timeout_seconds=90.0)))), "Unload timeout").children
    assert [choice.text for choice in odd if choice.checked] == ["90 s"]


def test_a_gpu_brings_a_budget_with_six_choices_and_the_configured_one_chosen() -> None:
    gpu = a_reading(MIB, a_gpu())
    assert "VRAM budget" not in texts(build(a_snapshot()))
    choices = find(build(a_snapshot(reading=gpu)), "VRAM budget").children
    assert texts(choices) == [
        "None",
        "At most 2 GiB",
        "At most 4 GiB",
        "At most 8 GiB",
        "All but 1 GiB of what is free",
        "All but 2 GiB of what is free",
    ]
    assert [choice.text for choice in choices if choice.checked] == ["None"]
    assert all(choice.radio for choice in choices)
    assert [choice.command for choice in choices[::4]] == [SetMaxVram("0"), SetMaxVram("-1")]
    silent = find(build(a_snapshot(gpus=(0,))), "VRAM budget")
    assert silent.children == choices


@pytest.mark.parametrize(
    ("max_vram", "words"),
    [("1.5", "At most 1.5 GiB"), ("-0.5", "All but 0.5 GiB of what is free"), ("cuda:0=6,cpu=2", "cuda:0=6,cpu=2")],
)
def test_an_odd_configured_budget_stands_last_and_chosen(max_vram: str, words: str) -> None:
    config = Config(Hardware(max_vram=max_vram))
    choices = find(build(a_snapshot(config=config, gpus=(0,))), "VRAM budget").children
    assert [choice.text for choice in choices if choice.checked] == [words]
    assert (len(choices), choices[-1].text, choices[-1].command) == (7, words, SetMaxVram(max_vram))


def test_read_into_ram_at_start_is_checked_while_eager_and_a_click_asks_for_the_opposite() -> None:
    plain = find(build(a_snapshot()), "Read into RAM")
    eager = find(build(a_snapshot(config=Config(Hardware(eager_load=True)))), "Read into RAM")
    assert (plain.checked, plain.command) == (False, SetEagerLoad(True))
    assert (eager.checked, eager.command) == (True, SetEagerLoad(False))


@pytest.mark.parametrize(
    ("seconds", "place", "words"), [(45.0, 3, "45 s"), (2.5, 1, "2.5 s"), (120.0, 4, "2 min"), (7200.0, 6, "2 h")]
)
def test_an_odd_configured_timeout_stands_in_its_sorted_place(seconds: float, place: int, words: str) -> None:
    rows = build(a_snapshot(config=Config(Hardware(idle_timeout_seconds=seconds))))
    choices = find(rows, "Idle timeout").children
    assert len(choices) == 7
    assert (choices[place].text, choices[place].checked) == (words, True)


def test_the_other_rows_carry_their_commands() -> None:
    rows = build(a_snapshot(AWAKE))
    assert find(rows, "Offload").command == OffloadAll()
    assert find(rows, "Unload all").command == UnloadAll()
    assert find(rows, "Copy").command == CopyEndpoint(URL)
    assert find(rows, "Open").command == OpenSettings()
    assert find(rows, "Quit").command == Quit()


@pytest.mark.parametrize(
    ("state", "offload", "unload"),
    [
        (State.ON_DEVICE, True, True),
        (State.IN_RAM, False, True),
        (State.UNLOADED, False, False),
        (State.LOADING, False, False),
    ],
)
def test_what_can_do_nothing_is_greyed(state: State, offload: bool, unload: bool) -> None:
    rows = build(a_snapshot(a_view(state=state), a_view("other")))
    assert (find(rows, "Offload all").enabled, find(rows, "Unload all").enabled) == (offload, unload)


def test_a_settings_file_with_an_error_says_so_where_it_is_opened() -> None:
    assert find(build(a_snapshot(settings_problem=True)), "Open").text == "Open settings file (it has an error)"


def test_no_encoders_leave_no_doubled_line() -> None:
    rows = texts(build(replace(a_snapshot(), views=())))
    assert "--- ---" not in " ".join(rows)


def test_the_shape_stays_while_texts_checks_and_states_change() -> None:
    one = a_snapshot(a_view())
    other = a_snapshot(
        AWAKE, config=Config(Hardware(False, True, idle_timeout_seconds=10.0)), settings_problem=True, gpus=()
    )
    assert build(one) != build(other)
    assert shape(build(one)) == shape(build(other))


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("device", [None, "cpu", "cuda:0", "mps"])
def test_the_shape_is_the_same_wherever_an_encoder_stands(state: State, device: str | None) -> None:
    plain = shape(build(a_snapshot()))
    for pinned, in_flight, held, keep_alive, timeout, note, error in product(
        (False, True),
        (0, 2),
        (0, 87 * MIB),
        (None, -1.0, 0.0, 60.0),
        (0.0, 30.0),
        (None, "It writes into its weights."),
        (None, ErrorView("Load failed", "Cut short.", None, NOW + 5)),
    ):
        view = a_view(
            state=state,
            device=device,
            pinned=pinned,
            in_flight=in_flight,
            bytes_on_device=held,
            bytes_total=held or None,
            keep_alive_seconds=keep_alive,
            idle_timeout_seconds=timeout,
            unload_timeout_seconds=timeout,
            stepped_down_at=NOW - 1 if in_flight else None,
            reload_seconds=0.016 if held else None,
            note=note,
            error=error,
        )
        assert shape(build(a_snapshot(view))) == plain
        assert all(row.text for row in find(build(a_snapshot(view)), "minilm").children if row is not SEPARATOR)


def test_the_shape_changes_with_the_number_of_encoders_and_with_an_odd_timeout() -> None:
    plain = shape(build(a_snapshot()))
    assert shape(build(a_snapshot(a_view("one"), a_view("two")))) != plain
    assert shape(build(a_snapshot(config=Config(Hardware(idle_timeout_seconds=45.0))))) != plain
    assert shape(build(a_snapshot(config=Config(Hardware(unload_timeout_seconds=45.0))))) != plain
