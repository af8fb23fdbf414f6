"""The packages and files that an encoder lacks on this computer, found out before its first use."""

from __future__ import annotations

from engine.adapters.context import DETACHED
from engine.adapters.registry import adapter_class
from engine.devices.placement import CPU
from engine.errors import Unavailable
from engine.settings.config import EncoderConfig


def missing(encoder: EncoderConfig) -> Unavailable | None:
    """Return the first that is missing: a package, a folder, an installed plug-in; None where all is there.

    Imports no model library and asks no network, so a hub's model counts as there, and so does the base of axes.
    """
    for component in encoder.components:
        if component.kind == "axes":
            continue
        try:
            adapter_class(component.kind, component.part)(component, CPU, DETACHED).probe()
        except Unavailable as error:
            return error
    return None
