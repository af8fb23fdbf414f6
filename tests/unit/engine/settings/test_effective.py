"""How far up an encoder goes unasked."""

from __future__ import annotations

import pytest

from engine.settings.config import EncoderConfig, Hardware
from engine.settings.effective import Eagerness, Effective


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
