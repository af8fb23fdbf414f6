"""What an encoder lacks on this computer, asked before anybody uses it."""

from __future__ import annotations

from engine.adapters import adapter_class
from engine.config import EncoderConfig
from engine.errors import Unavailable
from engine.placement import CPU
from engine.surroundings import ALONE


def lack(encoder: EncoderConfig) -> Unavailable | None:
    """Return the first that is missing: a package, a folder, an installed plug-in; None where all is there.

    Imports no model library and asks no network, so a hub's model counts as there, and so does the base of axes.
    """
    for component in encoder.components:
        if component.kind == "axes":
            continue
        try:
            adapter_class(component.kind, component.part)(component, CPU, ALONE).probe()
        except Unavailable as error:
            return error
    return None
