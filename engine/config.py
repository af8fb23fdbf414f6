"""Settings as one frozen value: defaults with unit and meaning, and the one place that checks them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final

from engine.adapters import references
from engine.adapters.table import KINDS
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
    idle_timeout_seconds: float | None = None
    unload_timeout_seconds: float | None = None
    pin: bool = False
    """Never step down by a timeout."""


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


# One check per key: returns the value to keep, or raises ValueError with what would have been right.
Check = Callable[[Any], Any]


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004 - one kind of refusal for every check
    return value


def _seconds(value: Any, zero: str = "never") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"must be a number of seconds, 0 or more (0 = {zero})")
    if value > _LONGEST:
        raise ValueError(f"must be at most {_LONGEST:g} seconds; 0 means {zero}")
    return float(value)


_LONGEST: Final = 365 * 86400.0


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not empty")
    return value


def _port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise ValueError("must be a whole number from 0 to 65535 (0 = any free port)")
    return value


def _device(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", value):
        raise ValueError("must be one of: auto, cpu, cuda, cuda:N, mps")
    return value


def _kind(value: Any) -> str:
    if value not in KINDS:
        raise ValueError(f"must be one of: {', '.join(KINDS)}")
    return str(value)


def _model(value: Any) -> str:
    return references.check(_text(value))


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


_HARDWARE: Final[dict[str, Check]] = {
    "lazy_encoders": _boolean,
    "eager_load": _boolean,
    "device": _device,
    "idle_timeout_seconds": _seconds,
    "unload_timeout_seconds": _seconds,
    "max_keep_alive_seconds": partial(_seconds, zero="no limit"),
}
_SERVER: Final[dict[str, Check]] = {"host": _text, "port": _port}
_ENCODER: Final[dict[str, Check]] = {
    "kind": _kind,
    "model": _model,
    "aliases": _names,
    "default": _boolean,
    "lazy_encoders": _boolean,
    "eager_load": _boolean,
    "device": _device,
    "idle_timeout_seconds": _seconds,
    "unload_timeout_seconds": _seconds,
    "pin": _boolean,
}


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
            problems.append(Problem((*path, key), f"{_shown(table[key])}: {error}"))
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
            problems.append(Problem((*path, key), f"unknown {what}; valid are: {', '.join(known)}"))


def _refuse_shared_names(encoders: tuple[EncoderConfig, ...], problems: list[Problem]) -> None:
    owner: dict[str, str] = {}
    for encoder in encoders:
        for name in (encoder.name, *encoder.aliases):
            first = owner.setdefault(name, encoder.name)
            if first != encoder.name:
                problems.append(Problem(("encoders", encoder.name), f"the name {name!r} already belongs to {first}"))


def _refuse_two_defaults(encoders: tuple[EncoderConfig, ...], problems: list[Problem]) -> None:
    first: dict[str, str] = {}
    for encoder in encoders:
        if encoder.default and first.setdefault(encoder.kind, encoder.name) != encoder.name:
            text = f"{first[encoder.kind]} is the default {encoder.kind} encoder already"
            problems.append(Problem(("encoders", encoder.name, "default"), text))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(value: Any) -> dict[str, Any]:
    """The fields of a frozen settings value, tuples as lists, without those that are None."""
    pairs = ((field.name, getattr(value, field.name)) for field in fields(value))
    return {key: list(v) if isinstance(v, tuple) else v for key, v in pairs if v is not None}
