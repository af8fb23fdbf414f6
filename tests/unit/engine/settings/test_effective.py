"""The values in force for one encoder, and how far up it goes unasked."""

from __future__ import annotations

import pytest

from engine.settings.config import EncoderConfig, Hardware
from engine.settings.effective import Eagerness, Effective, Timeouts


@pytest.mark.parametrize(
    ("lazy", "eager", "home", "expected"),
    [
        (True, False, "mapped", Eagerness.LAZY),
        (True, True, "mapped", Eagerness.TO_RAM),
        (True, True, "pinned", Eagerness.TO_RAM),
        (True, True, "disk", Eagerness.LAZY),
        (False, True, "disk", Eagerness.TO_DEVICE),
        (False, False, "mapped", Eagerness.TO_DEVICE),
    ],
)
def test_what_waits_on_the_disk_is_never_read_into_ram_ahead(
    lazy: bool, eager: bool, home: str, expected: Eagerness
) -> None:
    silent = EncoderConfig("a", "dense", "org/name", home=home)
    assert Effective.of(silent, Hardware(lazy_encoders=lazy, eager_load=eager)).eagerness is expected
    own = EncoderConfig("a", "dense", "org/name", home=home, lazy_encoders=lazy, eager_load=eager)
    assert Effective.of(own, Hardware(lazy_encoders=not lazy, eager_load=not eager)).eagerness is expected


def test_axes_are_not_read_into_ram_because_that_would_bring_their_base_all_the_way_up() -> None:
    axes = EncoderConfig("a", "axes", "axes:b", base="b")
    assert Effective.of(axes, Hardware(eager_load=True)).eagerness is Eagerness.LAZY
    assert Effective.of(axes, Hardware(lazy_encoders=False)).eagerness is Eagerness.TO_DEVICE


def test_the_own_table_comes_before_hardware_and_false_and_0_are_values_of_it() -> None:
    hardware = Hardware(device="cuda", stream_layers=True, idle_timeout_seconds=30.0, max_keep_alive_seconds=60.0)
    silent = Effective.of(EncoderConfig("a", "dense", "org/name"), hardware)
    assert (silent.device, silent.stream_layers) == ("cuda", True)
    assert silent.timeouts == Timeouts(30.0, 900.0, 60.0)
    own = EncoderConfig("a", "dense", "org/name", device="cpu", stream_layers=False, idle_timeout_seconds=0.0)
    effective = Effective.of(own, hardware)
    assert (effective.device, effective.stream_layers) == ("cpu", False)
    assert effective.timeouts == Timeouts(0.0, 900.0, 60.0)
