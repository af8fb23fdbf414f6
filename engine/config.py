"""Settings as one frozen value: defaults with unit and meaning, and the way to it from plain data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, time
from functools import partial
from typing import Any, Final

from engine import checks
from engine.adapters.table import KINDS
from engine.checks import Check
from engine.errors import Problem, SettingsError

BUILTIN: Final = "builtin:all-MiniLM-L6-v2"
"""The encoder that ships with Pilotlight: all-MiniLM-L6-v2, 384 dimensions, English."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """`[hardware]`: where encoders compute and when they step down."""

    lazy_encoders: bool = True
    """Load each encoder on its first use; false brings every encoder to its device at start."""
    eager_load: bool = False
    """Read the weights into RAM at start and go up at the first use."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps."""
    max_vram: str = "0"
    """GiB that all encoders together may hold on each GPU, or a list by device; as `Budget.parse` takes it."""
    stream_layers: bool = False
    """Run encoders that are larger than their budget block by block; on a CPU give each block back after it ran."""
    on_no_room: str = "stream"
    """What follows when an encoder does not fit: stream (where that is on and possible, else cpu) | cpu | error."""
    keep_free_vram: float = 512.0
    """MiB of each GPU that stay free for other programs: idle encoders step down for them; 0 = off."""
    minimum_residency_seconds: float = 5.0
    """Seconds after coming up in which an encoder steps down neither for other programs nor for a budget."""
    idle_timeout_seconds: float = 30.0
    """Seconds without use after which an encoder leaves its device; 0 = never."""
    unload_timeout_seconds: float = 900.0
    """Seconds in RAM after which an encoder is dropped; 0 = never."""
    max_keep_alive_seconds: float = 0.0
    """The longest that a request's keep_alive may hold an encoder on its device; 0 = as long as it asks for."""


@dataclass(frozen=True, slots=True)
class Server:
    """`[server]`: where the HTTP endpoint listens."""

    host: str = "127.0.0.1"
    """Address to listen on; 127.0.0.1 serves this computer alone."""
    port: int = 7458
    """TCP port; 0 takes any free one, a busy one gives way to the next free of ten."""


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """`[encoders.NAME]`: one encoder; what is None here comes from the key of that name in `[hardware]`."""

    name: str
    kind: str
    model: str
    """`builtin:...`, a local folder, or a hub id."""
    aliases: tuple[str, ...] = ()
    """Other names that requests may use."""
    default: bool = False
    """Serve requests that name no model."""
    lazy_encoders: bool | None = None
    eager_load: bool | None = None
    device: str | None = None
    stream_layers: bool | None = None
    home: str = "mapped"
    """Where weights wait while they are off a GPU: mapped (their file) | pinned (a copy of ours) | disk (nowhere)."""
    dtype: str = "auto"
    """auto (the file's own on a GPU, float32 on a CPU) | float32 | float16 | bfloat16."""
    idle_timeout_seconds: float | None = None
    unload_timeout_seconds: float | None = None
    pin: bool = False
    """Never step down by itself; only before the computer sleeps, or when its files changed."""


DEFAULT_ENCODER: Final = EncoderConfig(
    name="minilm", kind="dense", model=BUILTIN, aliases=("all-minilm", "all-MiniLM-L6-v2")
)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings; build a new one and swap it, never change one."""

    hardware: Hardware = Hardware()
    server: Server = Server()
    encoders: tuple[EncoderConfig, ...] = (DEFAULT_ENCODER,)

    def as_mapping(self) -> dict[str, Any]:
        """Return plain data of the same shape as the settings file."""
        encoders = {}
        for encoder in self.encoders:
            values = _plain(encoder)
            del values["name"]
            encoders[encoder.name] = values
        return {"hardware": _plain(self.hardware), "server": _plain(self.server), "encoders": encoders}


def parse(mapping: Mapping[str, Any]) -> Config:
    """Return the settings that `mapping` (the shape of the settings file) describes.

    Raises SettingsError with every problem found, each with its key and the valid choices.
    """
    problems: list[Problem] = []
    _refuse_unknown(mapping, ("hardware", "server", "encoders"), (), problems, what="section")
    hardware = _section(mapping, ("hardware",), _HARDWARE, problems)
    server = _section(mapping, ("server",), _SERVER, problems)
    tables = _table(mapping.get("encoders", {}), ("encoders",), problems)
    found = [_encoder(name, table, problems) for name, table in tables.items()]
    encoders = tuple(encoder for encoder in found if encoder is not None)
    _refuse_shared_names(encoders, problems)
    _refuse_two_defaults(encoders, problems)
    if problems:
        raise SettingsError("\n".join(str(problem) for problem in problems), problems=tuple(problems))
    return Config(Hardware(**hardware), Server(**server), encoders if "encoders" in mapping else (DEFAULT_ENCODER,))


_HARDWARE: Final[dict[str, Check]] = {
    "lazy_encoders": checks.boolean,
    "eager_load": checks.boolean,
    "device": checks.device,
    "max_vram": checks.budget,
    "stream_layers": checks.boolean,
    "on_no_room": partial(checks.one_of, ("stream", "cpu", "error")),
    "keep_free_vram": checks.mebibytes,
    "minimum_residency_seconds": partial(checks.seconds, zero="none"),
    "idle_timeout_seconds": checks.seconds,
    "unload_timeout_seconds": checks.seconds,
    "max_keep_alive_seconds": partial(checks.seconds, zero="no limit"),
}
_SERVER: Final[dict[str, Check]] = {"host": checks.text, "port": checks.port}
_ENCODER: Final[dict[str, Check]] = {
    "kind": checks.kind,
    "model": checks.model,
    "aliases": checks.names,
    "default": checks.boolean,
    "lazy_encoders": checks.boolean,
    "eager_load": checks.boolean,
    "device": checks.device,
    "stream_layers": checks.boolean,
    "home": partial(checks.one_of, ("mapped", "pinned", "disk")),
    "dtype": partial(checks.one_of, ("auto", "float32", "float16", "bfloat16")),
    "idle_timeout_seconds": checks.seconds,
    "unload_timeout_seconds": checks.seconds,
    "pin": checks.boolean,
}

_PLACES: Final = {"[hardware]": _HARDWARE, "[server]": _SERVER, "[encoders.NAME]": _ENCODER}


def _section(
    mapping: Mapping[str, Any], path: tuple[str, ...], checks: dict[str, Check], problems: list[Problem]
) -> dict[str, Any]:
    table = _table(mapping.get(path[-1], {}), path, problems)
    _refuse_unknown(table, tuple(checks), path, problems, what="key")
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
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        problems.append(Problem(path, "an encoder's name is letters, digits, '.', '_' and '-'"))
    values = _section({name: table}, path, _ENCODER, problems)
    if len(problems) == before:
        for key in ("kind", "model"):
            if key not in values:
                choices = f" (one of: {', '.join(KINDS)})" if key == "kind" else ""
                problems.append(Problem(path, f"the key {key} is missing{choices}"))
    return EncoderConfig(name=name, **values) if len(problems) == before else None


def _refuse_unknown(
    table: Mapping[str, Any], known: tuple[str, ...], path: tuple[str, ...], problems: list[Problem], *, what: str
) -> None:
    for key in table:
        if key not in known:
            places = " or ".join(place for place, keys in _PLACES.items() if key in keys)
            text = f"belongs under {places}" if places else f"unknown {what}; valid are: {', '.join(known)}"
            problems.append(Problem((*path, key), text))


def _refuse_shared_names(encoders: tuple[EncoderConfig, ...], problems: list[Problem]) -> None:
    owner: dict[str, str] = {}
    for encoder in encoders:
        for name in (encoder.name, *encoder.aliases):
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


def _plain(value: Any) -> dict[str, Any]:
    """The fields of a frozen settings value, tuples as lists, without those that are None."""
    pairs = ((field.name, getattr(value, field.name)) for field in fields(value))
    return {key: list(v) if isinstance(v, tuple) else v for key, v in pairs if v is not None}
