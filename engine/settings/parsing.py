"""Parsing: from plain data, as the settings file holds it, to one frozen value, or to every problem found."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, time
from typing import Any, Final

from engine.errors import Problem, SettingsError
from engine.kinds import BASE_KINDS, KINDS, PARTS
from engine.settings import references, schema
from engine.settings.config import DEFAULT_ENCODER, Config, EncoderConfig, Hardware, Hub, Server
from engine.settings.schema import Check


def parse(mapping: Mapping[str, Any]) -> Config:
    """Return the settings that `mapping` (the shape of the settings file) describes.

    Raises SettingsError with every problem found, each with its key and the valid choices.
    """
    problems: list[Problem] = []
    _refuse_unknown(mapping, ("hardware", "server", "hub", "encoders"), (), problems, what="section")
    hardware = _section(mapping, ("hardware",), schema.HARDWARE, problems)
    server = _section(mapping, ("server",), schema.SERVER, problems)
    hub = _section(mapping, ("hub",), schema.HUB, problems)
    tables = _table(mapping.get("encoders", {}), ("encoders",), problems)
    found = [_encoder(name, table, problems) for name, table in tables.items()]
    encoders = tuple(encoder for encoder in found if encoder is not None)
    _refuse_shared_names(encoders, problems)
    _refuse_two_defaults(encoders, problems)
    _refuse_missing_bases(encoders, problems)
    if problems:
        raise SettingsError("\n".join(str(problem) for problem in problems), problems=tuple(problems))
    if "encoders" not in mapping:
        encoders = (DEFAULT_ENCODER,)
    return Config(Hardware(**hardware), Server(**server), Hub(**hub), encoders)


_LONGEST_NAME: Final = 64
"""Characters of an encoder's name; a row of the menu has no room for more."""


def _section(
    mapping: Mapping[str, Any],
    path: tuple[str, ...],
    checks: dict[str, Check],
    problems: list[Problem],
    also: tuple[str, ...] = (),
) -> dict[str, Any]:
    table = _table(mapping.get(path[-1], {}), path, problems)
    _refuse_unknown(table, (*checks, *also), path, problems, what="key")
    values = {}
    for key in (key for key in table if key in checks):
        try:
            values[key] = checks[key](table[key])
        except ValueError as error:
            shown, why = _shown(table[key]), str(error)
            problems.append(Problem((*path, key), why if why.startswith(shown) else f"{shown}: {why}"))
    return values


def _table(value: Any, path: tuple[str, ...], problems: list[Problem]) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    problems.append(Problem(path, f"must be a table, written [{'.'.join(path)}]"))
    return {}


def _encoder(name: str, table: Any, problems: list[Problem]) -> EncoderConfig | None:
    path = ("encoders", name)
    before = len(problems)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or len(name) > _LONGEST_NAME:
        problems.append(
            Problem(path, f"an encoder's name is letters, digits, '.', '_' and '-', {_LONGEST_NAME} of them at most")
        )
    table = _table(table, path, problems)
    kind = table.get("kind")
    parts = PARTS.get(kind, ()) if isinstance(kind, str) else ()
    own = {key: value for key, value in table.items() if key not in parts}
    # A kind that is wrong itself is told; that its keys are unknown for it would only add to that.
    keys = schema.OF_EVERY_KIND | schema.OF_ONE_KIND.get(kind, {}) if kind in KINDS else schema.ENCODER
    values = _section({name: own}, path, keys, problems, also=parts)
    tables = {part: _section(table, (*path, part), schema.LADDER, problems) for part in parts if part in table}
    if len(problems) == before:
        _complete(values, path, problems)
    return EncoderConfig(name=name, **values, parts=tables) if len(problems) == before else None


def _complete(values: dict[str, Any], path: tuple[str, ...], problems: list[Problem]) -> None:
    """Check what a table has to say for its kind."""
    if "kind" not in values:
        problems.append(Problem(path, f"the key kind is missing (one of: {', '.join(KINDS)})"))
        return
    if values["kind"] == "axes":
        if "base" not in values:
            problems.append(Problem(path, "the key base is missing (the name of a dense encoder)"))
        elif "model" in values:
            problems.append(Problem((*path, "model"), "axes have no model of their own; base names an encoder"))
        else:
            values["model"] = f"axes:{values['base']}"
    elif "model" not in values:
        problems.append(Problem(path, "the key model is missing"))
    else:
        try:
            references.check(values["model"], values["kind"])
        except ValueError as error:
            problems.append(Problem((*path, "model"), f"{_shown(values['model'])}: {error}"))


def _refuse_unknown(
    table: Mapping[str, Any], known: tuple[str, ...], path: tuple[str, ...], problems: list[Problem], *, what: str
) -> None:
    for key in table:
        if key not in known:
            places = " or ".join(place for place, keys in schema.PLACES.items() if key in keys)
            text = f"belongs under {places}" if places else f"unknown {what}; valid are: {', '.join(known)}"
            problems.append(Problem((*path, key), text))


def _refuse_shared_names(encoders: tuple[EncoderConfig, ...], problems: list[Problem]) -> None:
    owner: dict[str, str] = {}
    for encoder in encoders:
        of_parts = (name for part in encoder.components for name in (part.name, *part.aliases))
        for name in dict.fromkeys((encoder.name, *encoder.aliases, *of_parts)):
            first = owner.setdefault(name, encoder.name)
            if first != encoder.name:
                text = f"the name {_shown(name)} already belongs to {first}"
                problems.append(Problem(("encoders", encoder.name), text))


def _refuse_two_defaults(encoders: tuple[EncoderConfig, ...], problems: list[Problem]) -> None:
    first: dict[str, str] = {}
    for encoder in encoders:
        if encoder.default and first.setdefault(encoder.kind, encoder.name) != encoder.name:
            text = f"{first[encoder.kind]} is the default {encoder.kind} encoder already"
            problems.append(Problem(("encoders", encoder.name, "default"), text))


def _refuse_missing_bases(encoders: tuple[EncoderConfig, ...], problems: list[Problem]) -> None:
    dense = {name for encoder in encoders if encoder.kind in BASE_KINDS for name in (encoder.name, *encoder.aliases)}
    for encoder in encoders:
        if encoder.base is not None and encoder.base not in dense:
            choices = ", ".join(e.name for e in encoders if e.kind in BASE_KINDS) or "none is configured"
            text = f"{_shown(encoder.base)}: must be an encoder of kind {' or '.join(BASE_KINDS)} ({choices})"
            problems.append(Problem(("encoders", encoder.name, "base"), text))


def _shown(value: Any) -> str:
    text = _spelled(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _spelled(value: Any) -> str:
    """A value as the settings file spells it."""
    match value:
        case bool() | str() | None:
            # A text from elsewhere may hold lone surrogates, which no log and no answer takes.
            return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace").decode()
        case int() if value.bit_length() > 256:
            return hex(value)  # Python refuses to spell out thousands of digits.
        case date() | time():
            return value.isoformat()
        case list():
            return f"[{', '.join(map(_spelled, value))}]"
        case Mapping():
            pairs = ", ".join(f"{key} = {_spelled(item)}" for key, item in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case _:
            return repr(value)
