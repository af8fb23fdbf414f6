"""One encoder's line and submenu: texts and enabled rows in every state."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tray_fakes import GIB, MIB, a_view

from engine import EncoderView, State
from engine.state import Download, ErrorView
from tray.menu.encoder_row import encoder_row
from tray.menu.item import SEPARATOR, Item, LoadEncoder, OffloadEncoder, PinEncoder, UnloadEncoder, shape

NOW = 1000.0
AWAKE = a_view(state=State.ON_DEVICE, device="cpu", bytes_on_device=61 * MIB, bytes_total=87 * MIB, last_used=NOW - 18)
RESTING = a_view(
    state=State.IN_RAM, device="cpu", bytes_in_ram=3 * MIB + MIB // 2, bytes_total=87 * MIB, stepped_down_at=NOW
)
BROKEN = ErrorView("Load failed", "The weights are cut short.", None, NOW + 5)
FAILED = a_view(state=State.FAILED, error=BROKEN)


def details(view: EncoderView) -> list[str]:
    """The rows of the submenu that cannot be clicked."""
    return [row.text for row in encoder_row(view, NOW).children if row.command is None and row is not SEPARATOR]


def action(view: EncoderView, text: str) -> Item:
    return next(row for row in encoder_row(view, NOW).children if row.text == text)


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (a_view(), "minilm · idle (not loaded)"),
        (AWAKE, "minilm · idle · 61 / 87 MiB · steps down in 12 s"),
        (replace(AWAKE, in_flight=1), "minilm · running · 61 / 87 MiB"),
        (replace(AWAKE, pinned=True), "minilm · idle · 61 / 87 MiB · pinned"),
        (replace(AWAKE, idle_timeout_seconds=0.0), "minilm · idle · 61 / 87 MiB"),
        (replace(AWAKE, last_used=NOW - 31), "minilm · idle · 61 / 87 MiB · steps down in 0 s"),
        (replace(AWAKE, keep_alive_seconds=-1.0), "minilm · idle · 61 / 87 MiB · held by an app"),
        (replace(AWAKE, keep_alive_seconds=618.0), "minilm · idle · 61 / 87 MiB · steps down in 10 min"),
        (replace(AWAKE, keep_alive_seconds=0.0), "minilm · idle · 61 / 87 MiB · unloads in 0 s"),
        (replace(AWAKE, bytes_total=None), "minilm · idle · 61 MiB · steps down in 12 s"),
        (a_view(state=State.LOADING), "minilm · loading"),
        (a_view(state=State.LOADING, bytes_in_ram=9 * MIB, bytes_total=87 * MIB), "minilm · loading · 9.0 / 87 MiB"),
        (replace(AWAKE, state=State.STEPPING_DOWN), "minilm · stepping down · 61 / 87 MiB"),
        (RESTING, "minilm · in RAM · 3.5 / 87 MiB · unloads in 15 min"),
        (replace(RESTING, bytes_in_ram=0), "minilm · in RAM · 0 / 87 MiB · unloads in 15 min"),
        (a_view(bytes_total=87 * MIB), "minilm · idle (not loaded)"),
        (a_view(bytes_in_ram=12 * MIB, bytes_total=87 * MIB), "minilm · idle (not loaded) · 12 MiB still in RAM"),
        (FAILED, "minilm · failed · The weights are cut short."),
        (a_view(state=State.UNAVAILABLE), "minilm · unavailable"),
        (replace(AWAKE, bytes_on_device=None), "minilm · idle · unknown · steps down in 12 s"),
        (replace(AWAKE, bytes_in_ram=None), "minilm · idle · unknown · steps down in 12 s"),
        (replace(RESTING, bytes_in_ram=None), "minilm · in RAM · unknown · unloads in 15 min"),
        (replace(AWAKE, state=State.STEPPING_DOWN, bytes_in_ram=None), "minilm · stepping down · unknown"),
        (a_view(state=State.LOADING, bytes_in_ram=None), "minilm · loading"),
        (a_view(bytes_on_device=None, bytes_in_ram=None), "minilm · idle (not loaded)"),
        (replace(FAILED, bytes_on_device=None, bytes_in_ram=None), "minilm · failed · The weights are cut short."),
    ],
)
def test_one_line_says_the_state_the_bytes_and_when_it_steps_down(view: EncoderView, words: str) -> None:
    assert encoder_row(view, NOW).text == words


@pytest.mark.parametrize("unknown", [{"bytes_on_device": None}, {"bytes_in_ram": None}])
@pytest.mark.parametrize("view", [AWAKE, RESTING])
def test_the_submenu_says_that_the_bytes_are_unknown_and_names_no_part_of_them(
    view: EncoderView, unknown: dict[str, None]
) -> None:
    assert details(replace(view, **unknown))[1] == "Resident: unknown on this system"


@pytest.mark.parametrize(
    ("download", "words"),
    [
        (Download(120 * MIB, 470 * MIB), "bge · downloading 120 of 470 MiB"),
        (Download(900 * MIB, 2 * GIB), "bge · downloading 900 MiB of 2.0 GiB"),
        (Download(7 * MIB, None), "bge · downloading 7.0 MiB"),
        (Download(0, 470 * MIB), "bge · downloading 0 of 470 MiB"),
    ],
)
def test_a_download_is_told_in_bytes(download: Download, words: str) -> None:
    view = a_view("bge", State.LOADING, download=download)
    assert encoder_row(view, NOW).text == words
    assert details(view)[6] == "Its model is being downloaded"
    assert shape((encoder_row(view, NOW),)) == shape((encoder_row(AWAKE, NOW),))


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (replace(AWAKE, shared_with=("other",)), "61 of 87 MiB resident, shared with other"),
        (replace(AWAKE, shared_with=("one", "two")), "61 of 87 MiB resident, shared with one, two"),
        (a_view(shared_with=("other",)), "Nothing resident, shared with other"),
    ],
)
def test_bytes_that_other_encoders_show_too_are_said_to_be_shared(view: EncoderView, words: str) -> None:
    assert details(view)[1] == words


@pytest.mark.parametrize("kind", ["sparse", "image_text", "tag", "plugin"])
def test_the_submenu_says_the_kind(kind: str) -> None:
    assert details(a_view(kind=kind, model="org/name"))[0] == f"{kind} · org/name · no device yet"


def test_a_device_that_the_settings_did_not_ask_for_is_in_the_submenu_with_its_reason() -> None:
    reason = "It computes on the CPU, because torch 2 finds no cuda here."
    rows = details(replace(AWAKE, note=reason))
    assert rows[0].endswith(" · cpu")
    assert rows[-1] == reason


def test_a_long_error_is_cut_to_one_short_line() -> None:
    view = replace(FAILED, error=replace(BROKEN, message="first\nsecond " + "x" * 200))
    for text, length in ((encoder_row(view, NOW).text, 100), (details(view)[-1], 140)):
        assert "first second xxx" in text
        assert text.endswith("…")
        assert len(text) <= length


def test_the_submenu_says_what_to_do_about_an_error() -> None:
    missing = ErrorView("Unavailable", "The package spaCy is not installed.", "Run: pip install spacy", None)
    view = a_view(state=State.UNAVAILABLE, error=missing)
    assert details(view)[-1] == "The package spaCy is not installed. Run: pip install spacy"
    assert encoder_row(view, NOW).text == "minilm · unavailable · The package spaCy is not installed."


def test_a_command_stays_whole_beside_a_long_reason() -> None:
    step = "Run: /home/somebody/" + "deep/" * 12 + "bin/python -m pip install open-clip-torch"
    missing = ErrorView("Unavailable", "The package open-clip-torch is not installed. " + "x" * 200, step, None)
    text = details(a_view(state=State.UNAVAILABLE, error=missing))[-1]
    assert text.startswith("The package open-clip-torch")
    assert text.endswith(f"… {step}")
    assert len(text) <= max(140, 41 + len(step))


def test_a_long_name_is_cut_in_the_row_and_whole_in_what_a_click_asks_for() -> None:
    view = replace(AWAKE, name="n" * 64)
    assert encoder_row(view, NOW).text == f"{'n' * 31}… · idle · 61 / 87 MiB · steps down in 12 s"
    assert len(encoder_row(view, NOW).text) <= encoder_row(view, NOW).room <= 100
    assert action(view, "Load now").command == LoadEncoder("n" * 64)


def test_the_submenu_tells_everything_that_was_measured() -> None:
    view = replace(AWAKE, import_seconds=5.8, load_seconds=0.31, reload_seconds=9.4e-5, offload_seconds=0.0008)
    view = replace(view, first_encode_seconds=0.016)
    assert details(view) == [
        "dense · builtin:all-MiniLM-L6-v2 · cpu",
        "61 of 87 MiB resident",
        "Loaded in 0.31 s, its library in 5.8 s",
        "Back in 0.09 ms",
        "First use after coming up in 16 ms",
        "Stepped down in 0.8 ms",
        "Steps down in 12 s",
        "No problems",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0008, "Stepped down in 0.8 ms: another program needs VRAM"),
        (None, "Stepped down: another program needs VRAM"),
    ],
)
def test_the_submenu_says_why_an_encoder_stepped_down(seconds: float | None, words: str) -> None:
    view = replace(RESTING, offload_seconds=seconds, stepped_down_because="another program needs VRAM")
    assert details(view)[5] == words


def test_what_is_not_known_yet_is_said_and_is_not_zero() -> None:
    assert details(a_view()) == [
        "dense · builtin:all-MiniLM-L6-v2 · no device yet",
        "Nothing resident",
        "Loaded: not yet",
        "Back: not yet",
        "First use after coming up: not yet",
        "Stepped down: not yet",
        "Loads at its next use",
        "No problems",
    ]


def test_a_library_that_was_imported_already_is_not_worth_a_word() -> None:
    assert details(replace(AWAKE, import_seconds=0.00002, load_seconds=0.1))[2] == "Loaded in 0.1 s"


def test_a_long_path_keeps_its_end() -> None:
    text = details(a_view(model="/home/somebody/" + "deep/" * 20 + "my-encoder"))[0]
    assert text.startswith("dense · …")
    assert text.endswith("/my-encoder · no device yet")
    assert len(text) < 78


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (AWAKE, "Steps down in 12 s"),
        (replace(AWAKE, pinned=True), "Stays: pinned"),
        (replace(AWAKE, idle_timeout_seconds=0.0), "Stays: the idle timeout is off"),
        (replace(AWAKE, in_flight=1), "In use"),
        (replace(AWAKE, in_flight=3), "In use, 3 times"),
        (replace(AWAKE, keep_alive_seconds=-1.0), "Stays: held by an app's keep_alive"),
        (replace(AWAKE, keep_alive_seconds=-1.0, pinned=True), "Stays: pinned"),
        (replace(AWAKE, keep_alive_seconds=618.0), "Steps down in 10 min, by an app's keep_alive"),
        (replace(AWAKE, keep_alive_seconds=0.0, in_flight=1), "In use; unloads when that ends"),
        (replace(AWAKE, keep_alive_seconds=0.0), "Unloads in 0 s"),
        (RESTING, "Unloads in 15 min"),
        (replace(RESTING, pinned=True), "Stays in RAM: pinned"),
        (replace(RESTING, unload_timeout_seconds=0.0), "Stays in RAM: the unload timeout is off"),
        (replace(RESTING, stepped_down_at=None), "Waits for its first use"),
        (a_view(state=State.LOADING), "On its way up"),
        (a_view(state=State.STEPPING_DOWN), "On its way down"),
        (FAILED, "May load again in 5 s"),
        (a_view(state=State.FAILED, error=replace(BROKEN, retry_at=NOW - 1)), "Loads at its next use"),
        (a_view(state=State.FAILED), "Loads at its next use"),
        (a_view(state=State.UNAVAILABLE), "Cannot be loaded"),
    ],
)
def test_the_submenu_counts_down_or_says_why_not(view: EncoderView, words: str) -> None:
    assert details(view)[6] == words


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (replace(RESTING, note="12 MiB were not given back."), "12 MiB were not given back."),
        (replace(FAILED, note="older"), "The weights are cut short."),
        (replace(AWAKE, error=BROKEN), "No problems"),
        (replace(AWAKE, ignored_options=("home: on the CPU", "max_vram: none")), "Without effect: home, max_vram"),
        (replace(AWAKE, truncated_inputs=1, truncated_tokens=9), "1 input was too long and cut"),
        (replace(AWAKE, note="Streamed.", truncated_inputs=1234), "Streamed. · 1,234 inputs were too long and cut"),
        (replace(AWAKE, note="Streamed.", ignored_options=("home: x",)), "Streamed. · Without effect: home"),
    ],
)
def test_the_last_line_tells_what_is_wrong(view: EncoderView, words: str) -> None:
    assert details(view)[-1] == words


@pytest.mark.parametrize(
    ("state", "load", "offload", "unload"),
    [
        (State.ON_DEVICE, False, True, True),
        (State.STEPPING_DOWN, False, False, False),
        (State.IN_RAM, True, False, True),
        (State.UNLOADED, True, False, False),
        (State.LOADING, False, False, False),
        (State.FAILED, True, False, False),
        (State.UNAVAILABLE, True, False, False),
    ],
)
def test_only_what_can_be_done_can_be_clicked(state: State, load: bool, offload: bool, unload: bool) -> None:
    row = encoder_row(a_view(state=state), NOW)
    enabled = {child.text: child.enabled for child in row.children if child.command is not None}
    assert row.enabled
    assert enabled == {"Load now": load, "Step down to RAM": offload, "Unload": unload, "Pinned": True}


def test_the_actions_name_their_encoder() -> None:
    view = a_view("other")
    assert action(view, "Load now").command == LoadEncoder("other")
    assert action(view, "Step down to RAM").command == OffloadEncoder("other")
    assert action(view, "Unload").command == UnloadEncoder("other")


def test_the_pin_is_a_check_and_a_click_asks_for_the_opposite() -> None:
    free, pinned = action(a_view(), "Pinned"), action(a_view(pinned=True), "Pinned")
    assert (free.checked, free.command) == (False, PinEncoder("minilm", True))
    assert (pinned.checked, pinned.command) == (True, PinEncoder("minilm", False))


def test_ordinary_lines_fit_the_room_that_is_kept_for_them() -> None:
    longest = replace(AWAKE, bytes_on_device=861 * MIB, bytes_total=999 * MIB, keep_alive_seconds=6000.0)
    assert len(encoder_row(longest, NOW).text) <= encoder_row(longest, NOW).room
    assert max(len(text) for text in details(longest)) <= max(row.room for row in encoder_row(longest, NOW).children)
