"""How far up an encoder goes without being used."""

from __future__ import annotations

from enum import Enum, auto

from engine.settings.config import EncoderConfig, Hardware


class Eagerness(Enum):
    """What the settings ask of an encoder at start."""

    LAZY = auto()
    """Nothing: it loads on its first use."""
    TO_RAM = auto()
    """Read into RAM; it goes up to its device at the first use."""
    TO_DEVICE = auto()
    """All the way up."""

    @classmethod
    def of(cls, encoder: EncoderConfig, hardware: Hardware) -> Eagerness:
        """Return what holds for `encoder`; what its own table leaves out comes from `hardware`.

        Whose home is the disk is not read into RAM, where nothing of it may wait; nor are axes, whose reading would
        bring their base all the way up.
        """
        if not (hardware.lazy_encoders if encoder.lazy_encoders is None else encoder.lazy_encoders):
            return cls.TO_DEVICE
        eager = hardware.eager_load if encoder.eager_load is None else encoder.eager_load
        return cls.TO_RAM if eager and encoder.home != "disk" and encoder.kind != "axes" else cls.LAZY
