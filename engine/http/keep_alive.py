"""The fields that say how long an encoder stays: Ollama's `keep_alive` and LM Studio's `ttl`, in every dialect.

Sources: Ollama's API reference, "keep_alive" (a number of seconds, or a text in the form of Go's
`time.ParseDuration`; negative = for ever, 0 = unload when the request ends); LM Studio's documentation, "Idle TTL and
Auto-Evict" (`ttl`, a number of seconds).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Final

from pydantic import BaseModel, PlainValidator
from pydantic_core import PydanticCustomError

STAY: Final = -1.0
"""The value for every negative one: the idle timer stops."""

_LONGEST: Final = 365 * 86400.0
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER: Final = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PART: Final = re.compile(rf"({_NUMBER})({'|'.join(_UNITS)})")
_TEXT: Final = re.compile(rf"([+-]?)({_NUMBER}|(?:{_PART.pattern})+)")
_LONGEST_TEXT: Final = 64

_NUMBER_RULE: Final = "must be a number of seconds (negative = stay, 0 = unload when the request ends)"
_RULE: Final = (
    'must be a number of seconds, or a text such as "30s", "10m", "1h30m", "500ms" or "-1" '
    "(negative = stay, 0 = unload when the request ends)"
)
_TOO_LONG: Final = "must be at most 365 days; a negative value means that the encoder stays"


def seconds(value: object) -> float | None:
    """Return the seconds that a `keep_alive` means, `STAY` for anything negative, None for a null.

    Raises ValueError, which names the valid forms, for anything but a number or a text of that kind, and for more than
    a year.
    """
    return _of_text(value) if isinstance(value, str) else _of_number(value, _RULE)


def ttl_seconds(value: object) -> float | None:
    """Return the seconds that a `ttl` means; like `seconds`, for numbers alone."""
    return _of_number(value, _NUMBER_RULE)


def _of_number(value: object, rule: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
        raise ValueError(rule)
    return _bounded(value)


def _of_text(text: str) -> float:
    found = _TEXT.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if found is None:
        raise ValueError(_RULE)
    sign, amount = found[1], found[2]
    parts = _PART.findall(amount) or [(amount, "s")]
    total = math.fsum(float(number) * _UNITS[unit] for number, unit in parts)
    return _bounded(-total if sign == "-" else total)


def _bounded(value: float) -> float:
    if value < 0:
        return STAY
    if value > _LONGEST:
        raise ValueError(_TOO_LONG)
    return abs(float(value))  # no negative zero


def _field(parse: Callable[[object], float | None]) -> Callable[[object], float | None]:
    """Return `parse` as a validator whose message reaches the client word for word."""

    def check(value: object) -> float | None:
        try:
            return parse(value)
        except ValueError as error:
            raise PydanticCustomError("keep_alive", "{rule}", {"rule": str(error)}) from error

    return check


class KeepAlive(BaseModel):
    """The two fields of a body that say how long its encoder stays; `keep_alive` wins over `ttl`."""

    keep_alive: Annotated[float | None, PlainValidator(_field(seconds), json_schema_input_type=float | str | None)] = (
        None
    )
    ttl: Annotated[float | None, PlainValidator(_field(ttl_seconds), json_schema_input_type=float | None)] = None

    @property
    def keep_alive_seconds(self) -> float | None:
        """Seconds that the encoder stays afterwards; negative = the idle timer stops, None = neither was sent."""
        return self.ttl if self.keep_alive is None else self.keep_alive
