"""Every key of the settings file and its check, which returns the value to keep or raises ValueError.

The message of a ValueError names the valid choices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from engine.kinds import KINDS
from engine.settings.budget import CHOICES, Budget
from engine.settings.config import OPENAI_IDS, OWN_IDS, TAKE_IDS, Axis

Check = Callable[[Any], Any]

_LONGEST: Final = 365 * 86400
_MOST_MIB: Final = 1024.0**2


def boolean(value: Any) -> bool:
    """Accept true and false."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004 - one kind of refusal for every check
    return value


def seconds(value: Any, zero: str = "never") -> float:
    """Accept seconds up to a year; `zero` says what 0 means."""
    if not _is_number(value) or not value >= 0:
        raise ValueError(f"must be a number of seconds, 0 or more (0 = {zero})")
    if value > _LONGEST:
        raise ValueError(f"must be at most a year, {_LONGEST} seconds; 0 means {zero}")
    return float(value)


def mebibytes(value: Any, zero: str = "off") -> float:
    """Accept MiB up to a TiB of them; `zero` says what 0 means."""
    if not _is_number(value) or not value >= 0:
        raise ValueError(f"must be a number of MiB, 0 or more (0 = {zero})")
    if value > _MOST_MIB:
        raise ValueError(f"must be at most {_MOST_MIB:.0f} MiB; 0 means {zero}")
    return float(value)


def budget(value: Any) -> str:
    """Accept what `Budget.parse` does, and a plain number; returns it spelled in one way."""
    if not isinstance(value, str) and not _is_number(value):
        raise ValueError(f"must be a number or a text. {CHOICES}")
    return str(Budget.parse(str(value)))


def text(value: Any) -> str:
    """Accept any text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not empty")
    return value


def port(value: Any) -> int:
    """Accept a TCP port."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise ValueError("must be a whole number from 0 to 65535 (0 = any free port)")
    return value


def device(value: Any) -> str:
    """Accept the name of a device, or `auto`."""
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", value):
        raise ValueError("must be one of: auto, cpu, cuda, cuda:N, mps")
    return value


def one_of(choices: Sequence[str], value: Any) -> str:
    """Accept one of `choices`."""
    if value not in choices:
        raise ValueError(f"must be one of: {', '.join(choices)}")
    return str(value)


def kind(value: Any) -> str:
    """Accept a kind of encoder."""
    return one_of(KINDS, value)


def tokens(value: Any) -> int:
    """Accept a number of tokens."""
    if type(value) is not int or value < 1:
        raise ValueError("must be a whole number of tokens, 1 or more")
    return value


def names(value: Any) -> tuple[str, ...]:
    """Accept a list of names."""
    if not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


def cosine(value: Any) -> float:
    """Accept a cosine."""
    if not _is_number(value) or not -1 <= value <= 1:
        raise ValueError("must be a number from -1 to 1")
    return float(value)


def table(value: Any) -> dict[str, Any]:
    """Accept a table with anything in it."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a table")  # noqa: TRY004 - one kind of refusal for every check
    return dict(value)


def axes(value: Any) -> tuple[Axis, ...]:
    """Accept tables of a `name` and an `anchor` each, no name twice."""
    rule = "must be tables with a name and an anchor each, written [[encoders.NAME.axes]]"
    if not isinstance(value, list) or not value:
        raise ValueError(rule)
    found = []
    for one in value:
        match one:
            case {"name": str(name), "anchor": str(anchor), **more} if name.strip() and anchor.strip() and not more:
                found.append(Axis(name, anchor))
            case _:
                raise ValueError(rule)
    if len({axis.name for axis in found}) < len(found):
        raise ValueError("must have names that differ")
    return tuple(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


HARDWARE: Final[dict[str, Check]] = {
    "lazy_encoders": boolean,
    "eager_load": boolean,
    "device": device,
    "max_vram": budget,
    "stream_layers": boolean,
    "on_no_room": partial(one_of, ("stream", "cpu", "error")),
    "keep_free_vram": mebibytes,
    "minimum_residency_seconds": partial(seconds, zero="none"),
    "idle_timeout_seconds": seconds,
    "unload_timeout_seconds": seconds,
    "max_keep_alive_seconds": partial(seconds, zero="no limit"),
}
SERVER: Final[dict[str, Check]] = {"host": text, "port": port}
HUB: Final[dict[str, Check]] = {"offline": boolean}
LADDER: Final[dict[str, Check]] = {
    "lazy_encoders": boolean,
    "eager_load": boolean,
    "device": device,
    "stream_layers": boolean,
    "home": partial(one_of, ("mapped", "pinned", "disk")),
    "dtype": partial(one_of, ("auto", "float32", "float16", "bfloat16")),
    "idle_timeout_seconds": seconds,
    "unload_timeout_seconds": seconds,
    "pin": boolean,
}
"""Keys of an encoder's table and of the tables of its parts that concern the ladder."""
OF_EVERY_KIND: Final[dict[str, Check]] = {
    "kind": kind,
    "model": text,
    "aliases": names,
    "default": boolean,
    "max_tokens": tokens,
    "trust_remote_code": boolean,
    **LADDER,
}
OF_ONE_KIND: Final[dict[str, dict[str, Check]]] = {
    **{kind: {"token_ids": partial(one_of, (OPENAI_IDS, OWN_IDS))} for kind in TAKE_IDS},
    "axes": {"base": text, "axes": axes},
    "image_text": {"score_floor": cosine},
    "plugin": {"options": table},
}
ENCODER: Final = OF_EVERY_KIND | {key: check for keys in OF_ONE_KIND.values() for key, check in keys.items()}

LADDER_KEYS: Final = tuple(LADDER)
"""Keys of an encoder, or of its part, that may be changed while it runs."""

PLACES: Final = {
    "[hardware]": HARDWARE,
    "[server]": SERVER,
    "[hub]": HUB,
    "[encoders.NAME]": OF_EVERY_KIND,
    **{f"[encoders.NAME] of kind {kind}": keys for kind, keys in OF_ONE_KIND.items()},
}
