"""Checks of the caller's input, the same for every kind; each raises InvalidInput, which names the field."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from engine.errors import InvalidInput, NotFinite

TASKS: Final = ("query", "passage")
"""The roles of a text, for models that treat the two differently."""


ITEMS: Final = "input"
"""The name of the items in the errors of adapters; the caller's interface may have another one."""
_ITEM: Final = re.compile(rf"\b{ITEMS}\[(\d+)\]")


@contextmanager
def naming_field(field: str, name: Callable[[int], str]) -> Iterator[None]:
    """Make errors about `ITEMS` that are raised within name `field`, and in their message `name(index)`."""
    try:
        yield
    except (InvalidInput, NotFinite) as error:
        if isinstance(error, NotFinite) or error.param == ITEMS:
            error.message = _ITEM.sub(lambda found: name(int(found[1])), error.message, count=1)
        if isinstance(error, InvalidInput) and error.param == ITEMS:
            error.param = field
        raise


def check_texts(values: object, field: str) -> None:
    """Accept a list of texts that can be written as UTF-8; an empty list and empty texts too."""
    if isinstance(values, str):
        raise InvalidInput(
            f"{field} must be a list of texts, not one text.", param=field, next_step="Write it as [text]."
        )
    if not isinstance(values, Sequence):
        raise InvalidInput(f"{field} must be a list of texts.", param=field)
    for index, value in enumerate(values):
        check_text(value, f"{field}[{index}]", param=field)


def check_texts_or_ids(values: object, field: str) -> None:
    """Accept a list of texts, or a list of lists of token ids; only the model can tell which ids exist."""
    is_list = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    if not is_list or not values or not isinstance(values[0], list | tuple):  # type: ignore[index]
        check_texts(values, field)
        return
    for index, ids in enumerate(values):  # type: ignore[arg-type, var-annotated]
        if not isinstance(ids, list | tuple) or not all(type(one) is int for one in ids):
            raise InvalidInput(f"{field}[{index}] is not a list of token ids, as {field}[0] is.", param=field)


def check_task(task: object) -> None:
    """Accept `query`, `passage` and None."""
    if task is not None and task not in TASKS:
        raise InvalidInput(f"task must be one of: {', '.join(TASKS)}.", param="task")


def check_flag(value: object, field: str) -> None:
    """Accept true and false alone, because any other value would count as one of them."""
    if not isinstance(value, bool):
        raise InvalidInput(f"{field} must be true or false.", param=field)


def check_count(value: object, field: str) -> None:
    """Accept a whole number, 1 or more."""
    if type(value) is not int or value < 1:
        raise InvalidInput(f"{field} must be a whole number, 1 or more.", param=field)


def check_text(value: object, what: str, *, param: str | None = None) -> None:
    """Accept a text that can be written as UTF-8, which one with a lone surrogate cannot; `what` names it."""
    if not isinstance(value, str):
        raise InvalidInput(f"{what} is not a text but of type {type(value).__name__}.", param=param or what)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{what} is not a text that can be written as UTF-8.",
            param=param or what,
            next_step="Send text without lone surrogates.",
        ) from error


def check_keep_alive(value: object) -> None:
    """Raise InvalidInput for what is neither None nor a finite number of seconds."""
    try:
        if value is None or (isinstance(value, int | float) and math.isfinite(value)):
            return
    except OverflowError:  # a whole number that is too long for a float
        pass
    shown = "too long a number" if isinstance(value, int) else repr(value)[:40]
    raise InvalidInput(
        f"keep_alive is {shown}, which is no number of seconds.",
        param="keep_alive",
        next_step="Give seconds, 0 to unload after the use, or a negative number to stay.",
    )
