"""Encoders by name: their own, an alias, a part's, or none for the default of a kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.errors import UnknownEncoder
from engine.kinds import PARTS
from engine.settings.config import Config, EncoderConfig

_LONGEST_SHOWN: Final = 80
"""Characters of an unknown name that an error repeats; a longer one is not a name."""


def resolve(config: Config, name: str | None, kinds: Sequence[str], part: str | None) -> str:
    """Return the name of the component (an encoder, or its `part`) that can do what `kinds` can.

    None means the default one of the first of `kinds` that is configured. Raises UnknownEncoder.
    """
    if name is None:
        return _default(config, kinds, part).name
    found = [one for one in components_named(config, name) if one.part in (None, part)]
    if not found or found[0].kind not in kinds:
        other = (found or components_named(config, name))[0]
        what = f"the {other.part} part of an encoder" if other.part and not found else "an encoder"
        raise UnknownEncoder(f"{other.name} is {what} of kind {other.kind}, not {' or '.join(_wanted(kinds, part))}.")
    return found[0].name


def components_named(config: Config, name: str) -> tuple[EncoderConfig, ...]:
    """Return the component called `name`, or all components of an encoder of that name; raises UnknownEncoder."""
    if not isinstance(name, str):
        raise UnknownEncoder("The name of an encoder is a text.")
    for encoder in config.encoders:
        if name == encoder.name or name in encoder.aliases:
            return encoder.components
        for component in encoder.components:
            if name == component.name or name in component.aliases:
                return (component,)
    known = ", ".join(encoder.name for encoder in config.encoders) or "none"
    shown = repr(name) if len(name) <= _LONGEST_SHOWN else "of that name"
    raise UnknownEncoder(f"There is no encoder {shown}.", next_step=f"Configured are: {known}.")


def encoder_named(config: Config, name: str) -> EncoderConfig:
    """Return the encoder called `name`, or the one that has the part of that name; raises UnknownEncoder."""
    entry = entry_of(components_named(config, name)[0])
    return next(encoder for encoder in config.encoders if encoder.name == entry)


def settings_key(config: Config, name: str) -> tuple[str, ...]:
    """Return the key of the settings table of `name`: `encoders.NAME`, or `encoders.NAME.PART`.

    Raises UnknownEncoder.
    """
    found = components_named(config, name)
    entry, part = entry_of(found[0]), found[0].part
    return ("encoders", entry) if part is None or len(found) > 1 else ("encoders", entry, part)


def entry_of(component: EncoderConfig) -> str:
    """Return the name of a component's table in the settings."""
    return component.name.removesuffix(f".{component.part}") if component.part else component.name


def _default(config: Config, kinds: Sequence[str], part: str | None) -> EncoderConfig:
    for kind in kinds:
        fitting = [encoder for encoder in config.encoders if encoder.kind == kind]
        if fitting:
            default = next((encoder for encoder in fitting if encoder.default), fitting[0])
            return next(one for one in default.components if one.part in (None, part))
    raise UnknownEncoder(
        f"No {kinds[0]} encoder is configured.", next_step=f"Add one: pilotlight add NAME {kinds[0]} MODEL"
    )


def _wanted(kinds: Sequence[str], part: str | None) -> list[str]:
    return [f"{kind} ({part})" if part and kind in PARTS else kind for kind in kinds]
