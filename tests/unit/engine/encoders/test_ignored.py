"""Options without effect: which are told, in which combination, and that nothing else is."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from engine.encoders.ignored import ignored_options
from engine.settings.config import EncoderConfig, Hardware

PLAIN = EncoderConfig("a", "dense", "org/name")


def ignored(
    device: str | None = None, streamable: bool | None = None, *, own: dict[str, Any] | None = None, **hardware: Any
) -> tuple[str, ...]:
    return ignored_options(
        replace(PLAIN, **(own or {})), replace(Hardware(), **hardware), device=device, streamable=streamable
    )


def options(texts: tuple[str, ...]) -> list[str]:
    return [text.partition(": ")[0] for text in texts]


@pytest.mark.parametrize("device", [None, "cpu", "cuda:0", "mps", "fakegpu:0"])
@pytest.mark.parametrize("streamable", [None, True, False])
def test_the_defaults_have_no_option_without_effect(device: str | None, streamable: bool | None) -> None:
    assert ignored(device, streamable) == ()


def test_a_pinned_home_has_no_effect_on_the_cpu() -> None:
    own = {"home": "pinned"}
    assert ignored("cpu", own=own) == ("home: it computes on the CPU, where weights always wait in their file",)
    assert ignored("cuda:0", own=own) == ignored(None, own=own) == ()
    assert ignored("cpu", own={"home": "disk"}) == ()


def test_a_device_that_is_wished_for_is_certain_before_a_load_only_where_it_is_the_cpu() -> None:
    assert options(ignored(own={"home": "pinned", "device": "cpu"})) == ["home"]
    assert options(ignored(own={"home": "pinned"}, device="cpu")) == ["home"]
    assert options(ignored(own={"home": "pinned"}, device=None)) == []
    assert ignored(own={"home": "pinned", "device": "cuda"}) == ()
    encoder, hardware = replace(PLAIN, home="pinned"), Hardware(device="cpu")
    assert options(ignored_options(encoder, hardware, device=None, streamable=None)) == ["home"]
    over = replace(encoder, device="auto")
    assert ignored_options(over, hardware, device=None, streamable=None) == ()


@pytest.mark.parametrize("device", [None, "cpu", "cuda:0"])
@pytest.mark.parametrize("place", ["own", "hardware"])
def test_a_model_without_blocks_is_not_streamed(device: str | None, place: str) -> None:
    setting: dict[str, Any] = {"own": {"stream_layers": True}} if place == "own" else {"stream_layers": True}
    assert ignored(device, False, **setting) == ("stream_layers: this model cannot be run block by block",)
    assert ignored(device, True, **setting) == ignored(device, None, **setting) == ()


def test_what_is_off_is_not_told() -> None:
    assert ignored("cuda:0", False, own={"stream_layers": False}, stream_layers=True, on_no_room="cpu") == ()
    assert ignored(own={"eager_load": False, "lazy_encoders": False}, eager_load=True) == ()
    assert ignored("cpu", max_vram="0") == ()


@pytest.mark.parametrize("choice", ["cpu", "error"])
def test_streaming_has_no_effect_on_a_gpu_where_no_room_means_something_else(choice: str) -> None:
    texts = ignored("cuda:0", True, stream_layers=True, on_no_room=choice)
    assert texts == (f'stream_layers: on_no_room is "{choice}", so nothing is streamed on a GPU',)
    assert ignored("cuda:0", True, stream_layers=True, on_no_room="stream") == ()
    assert "stream_layers" not in options(ignored("cpu", True, stream_layers=True, on_no_room=choice))
    assert ignored(None, True, stream_layers=True, on_no_room=choice) == ()


@pytest.mark.parametrize("text", ["6", "-1", "cuda:0=6", "cpu=0"])
def test_a_budget_without_the_cpu_has_no_effect_on_it(text: str) -> None:
    expected = ('max_vram: it computes on the CPU, where only "cpu=N" limits anything',)
    assert ignored("cpu", max_vram=text) == expected
    assert ignored("cpu", True, max_vram=text, stream_layers=True) == expected
    assert ignored("cuda:0", max_vram=text) == ignored(None, max_vram=text) == ()


@pytest.mark.parametrize("text", ["cpu=2", "cuda=1,cpu=2"])
def test_a_budget_for_the_cpu_has_an_effect_on_streaming_only(text: str) -> None:
    expected = "max_vram: on the CPU it bounds streaming only, and this encoder is not streamed"
    assert ignored("cpu", True, max_vram=text) == (expected,)
    assert ignored("cpu", None, max_vram=text, own={"stream_layers": True}) == ()
    assert ignored("cpu", True, max_vram=text, stream_layers=True) == ()
    assert ignored("cpu", False, max_vram=text, stream_layers=True) == (
        expected,
        "stream_layers: this model cannot be run block by block",
    )
    assert ignored("cuda:0", True, max_vram=text) == ()


def test_reading_into_ram_is_part_of_going_up_at_start() -> None:
    expected = ("eager_load: lazy_encoders is false, which brings the weights all the way to the device at start",)
    assert ignored(eager_load=True, lazy_encoders=False) == expected
    assert ignored(own={"eager_load": True}, lazy_encoders=False) == expected
    assert ignored(own={"lazy_encoders": False}, eager_load=True) == expected
    assert ignored(own={"lazy_encoders": True}, eager_load=True, lazy_encoders=False) == ()
    assert ignored(eager_load=True) == ignored(lazy_encoders=False) == ()


def test_what_waits_on_the_disk_is_not_read_into_ram() -> None:
    expected = ("eager_load: its home is the disk, so nothing of it waits in RAM",)
    assert ignored(own={"home": "disk"}, eager_load=True) == expected
    assert ignored("cuda:0", own={"home": "disk", "eager_load": True}) == expected
    assert ignored(own={"home": "disk", "eager_load": False}, eager_load=True) == ()
    [text] = ignored(own={"home": "disk"}, eager_load=True, lazy_encoders=False)
    assert text.startswith("eager_load: lazy_encoders is false")


@pytest.mark.parametrize("device", [None, "cpu", "cuda:0"])
def test_what_never_leaves_has_no_home_to_go_to(device: str | None) -> None:
    assert ignored(device, own={"home": "disk", "pin": True}) == ("home: it is pinned and never steps down",)
    assert ignored(device, own={"pin": True}) == ()


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("on_no_room", "cpu", "a CPU is never without room"),
        ("on_no_room", "error", "a CPU is never without room"),
        ("keep_free_vram", 1024.0, "it computes on the CPU and holds no VRAM"),
        ("minimum_residency_seconds", 60.0, "it computes on the CPU, where nobody has to make room"),
    ],
)
def test_what_is_about_room_on_a_gpu_has_no_effect_on_the_cpu(option: str, value: Any, why: str) -> None:
    setting: dict[str, Any] = {option: value}
    assert ignored("cpu", **setting) == ignored(own={"device": "cpu"}, **setting) == (f"{option}: {why}",)
    assert ignored("cuda:0", **setting) == ignored(None, **setting) == ()


def test_what_asks_for_nothing_on_a_gpu_is_not_told_on_the_cpu() -> None:
    assert ignored("cpu", keep_free_vram=0.0, minimum_residency_seconds=0.0) == ()


def test_a_pin_outlasts_the_timeouts() -> None:
    texts = ignored(own={"pin": True, "idle_timeout_seconds": 30.0, "unload_timeout_seconds": 900.0})
    assert texts == (
        "idle_timeout_seconds: it is pinned and never steps down",
        "unload_timeout_seconds: it is pinned and never steps down",
    )
    assert options(ignored(own={"pin": True}, idle_timeout_seconds=60.0)) == ["idle_timeout_seconds"]
    assert options(ignored(own={"pin": True}, unload_timeout_seconds=60.0)) == ["unload_timeout_seconds"]
    assert ignored(own={"pin": True}) == ()
    assert ignored(own={"idle_timeout_seconds": 60.0, "unload_timeout_seconds": 60.0}) == ()


def test_a_timeout_of_0_asks_for_what_a_pin_does() -> None:
    assert ignored("cpu", own={"pin": True, "idle_timeout_seconds": 0.0, "unload_timeout_seconds": 0.0}) == ()


def test_what_leaves_nothing_in_ram_does_not_wait_there() -> None:
    expected = ('unload_timeout_seconds: home is "disk", so nothing of it waits in RAM',)
    assert ignored(own={"home": "disk", "unload_timeout_seconds": 60.0}) == expected
    assert ignored("cuda:0", own={"home": "disk"}, unload_timeout_seconds=60.0) == expected
    assert ignored(own={"home": "disk"}) == ()
    for home in ("mapped", "pinned"):
        assert ignored("cuda:0", own={"home": home, "unload_timeout_seconds": 60.0}) == ()


def test_on_the_cpu_nothing_is_unloaded_that_never_gets_idle() -> None:
    expected = (
        "unload_timeout_seconds: it counts from stepping down, which never comes with idle_timeout_seconds = 0",
    )
    assert ignored("cpu", idle_timeout_seconds=0.0, unload_timeout_seconds=60.0) == expected
    assert ignored("cpu", own={"idle_timeout_seconds": 0.0, "unload_timeout_seconds": 60.0}) == expected
    assert ignored("cpu", idle_timeout_seconds=0.0) == ()
    assert ignored("cpu", idle_timeout_seconds=1.0, unload_timeout_seconds=60.0) == ()
    # It may have to step down there to make room for another.
    assert ignored("cuda:0", idle_timeout_seconds=0.0, unload_timeout_seconds=60.0) == ()


def test_no_option_is_told_twice_and_the_order_is_always_the_same() -> None:
    order = ["eager_load", "max_vram", "stream_layers", "on_no_room", "keep_free_vram", "minimum_residency_seconds"]
    order += ["home", "idle_timeout_seconds", "unload_timeout_seconds"]
    seen: set[str] = set()
    combinations = itertools.product(
        [None, "cpu", "cuda:0"],
        [None, True, False],
        ["mapped", "pinned", "disk"],
        [True, False],
        ["stream", "cpu", "error"],
        ["0", "6", "cpu=2"],
        [0.0, 60.0],
    )
    for device, streamable, home, on, on_no_room, max_vram, idle in combinations:
        own = {"home": home, "pin": on, "unload_timeout_seconds": 60.0}
        texts = ignored(
            device,
            streamable,
            own=own,
            eager_load=True,
            lazy_encoders=not on,
            stream_layers=True,
            on_no_room=on_no_room,
            max_vram=max_vram,
            keep_free_vram=1024.0,
            minimum_residency_seconds=9.0,
            idle_timeout_seconds=idle,
        )
        told = options(texts)
        assert told == [option for option in order if option in told]
        assert all(text.partition(": ")[2] for text in texts)
        seen.update(told)
    assert seen == set(order)


def test_more_knowledge_takes_nothing_back() -> None:
    own = {"home": "pinned", "pin": True, "idle_timeout_seconds": 60.0}
    settings: dict[str, Any] = {"own": own, "eager_load": True, "lazy_encoders": False, "stream_layers": True}
    settings |= {"max_vram": "6", "on_no_room": "cpu"}
    early = set(options(ignored(None, None, **settings)))
    assert early == {"eager_load", "idle_timeout_seconds"}
    for device, streamable in itertools.product(["cpu", "cuda:0", "mps"], [True, False]):
        assert early <= set(options(ignored(device, streamable, **settings)))


@pytest.mark.parametrize("kind", ["tag", "axes", "plugin"])
def test_what_concerns_weights_has_no_effect_on_what_has_none(kind: str) -> None:
    plain = replace(PLAIN, kind=kind)
    asking = replace(plain, home="pinned", dtype="float16", unload_timeout_seconds=60.0, stream_layers=True)
    told = ignored_options(asking, Hardware(), device="cpu", streamable=None)
    assert options(told) == ["dtype", "home", "stream_layers", "unload_timeout_seconds"]
    for silent in (plain, replace(plain, device="cpu"), replace(plain, stream_layers=False)):
        assert ignored_options(silent, Hardware(), device=None, streamable=None) == ()


def test_of_those_who_share_weights_the_leader_says_how_they_wait() -> None:
    leader, other = replace(PLAIN, name="first", home="disk"), replace(PLAIN, stream_layers=None)
    told = ignored_options(other, Hardware(), device="cuda:0", streamable=None, leader=leader)
    assert told == ("home: it shares the weights of first, whose home counts",)
    assert ignored_options(leader, Hardware(), device="cuda:0", streamable=None, leader=leader) == ()
