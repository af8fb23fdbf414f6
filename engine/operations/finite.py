"""The check that a result is finite: NaN and infinity are errors of the model, and never leave as an answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

from engine.errors import UNNAMED, NotFinite
from engine.operations.inputs import ITEMS

_HALF: Final = re.compile(r"(?<![a-z])b?float16")
_HALF_STEP: Final = 'Half precision is the likely cause: set dtype = "float32" for it in the settings.'
_OTHER_STEP: Final = "Leave this input out; if others fail too, its weights are damaged: put the original files there."


def check_finite(result: Any, revision: str | None) -> None:
    """Raise NotFinite, which names the first bad item `ITEMS`, if the arrays of a result hold NaN or infinity.

    Each array, and each tuple of arrays, is in the order of the items. `revision` is that of the weights that computed
    it, whose element type decides the next step.
    """
    bad = [found for value in _values(result) if (found := _first_bad(value)) is not None]
    if bad:
        index, word = min(bad)
        raise NotFinite(f"{UNNAMED} gives {word} for {ITEMS}[{index}].", next_step=_next_step(revision))


def check_plain(value: Any, what: str) -> None:
    """Raise NotFinite, which names `what`, if plain data holds NaN or infinity at any depth."""
    # With the values themselves: the number of one that is gone may be that of another.
    seen: dict[int, Any] = {}
    pending = [value]
    while pending:
        one = pending.pop()
        if (word := _word(one)) is not None:
            raise NotFinite(f"{UNNAMED} gives {word} in {what}.", next_step="Its author must return finite numbers.")
        if not isinstance(one, str | bytes | int | float | None) and id(one) not in seen:
            seen[id(one)] = one
            pending += _within(one)


def _within(value: Any) -> Iterable[Any]:
    """The values in a container of plain data; of any other value none."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, Enum):
        return [value.value]
    if type(value).__module__ == "numpy" and hasattr(value, "tolist") and value.dtype.hasobject:
        return [value.tolist()]
    return _values(value)


def _values(result: Any) -> Iterator[Any]:
    """The values of a dataclass's fields; of any other value none."""
    if is_dataclass(result) and not isinstance(result, type):
        for field in fields(result):
            yield getattr(result, field.name)


def _first_bad(value: Any) -> tuple[int, str] | None:
    """The index of the first item that is not finite in an array or a tuple, and a word for what is there."""
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            arrays = _values(item) if is_dataclass(item) else (item,)
            if (word := next(filter(None, map(_word, arrays)), None)) is not None:
                return index, word
    elif _word(value) is not None:
        return next((index, word) for index, item in enumerate(value) if (word := _word(item)) is not None)
    return None


def _word(value: Any) -> str | None:
    """`NaN` or `infinity` if a float or an array of floats holds it; None for finite ones, and for other values."""
    if isinstance(value, float):
        return None if math.isfinite(value) else "NaN" if math.isnan(value) else "infinity"
    if getattr(getattr(value, "dtype", None), "kind", "") not in "fc" or type(value).__module__ != "numpy":
        return None
    import numpy as np

    return None if np.isfinite(value).all() else "NaN" if np.isnan(value).any() else "infinity"


def _next_step(revision: str | None) -> str:
    return _HALF_STEP if _HALF.search((revision or "").partition("+")[2]) else _OTHER_STEP
