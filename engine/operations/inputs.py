"""Checks of what callers pass, the same for every kind; each raises InvalidInput, which names the field."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import InvalidInput


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


def check_text(value: object, what: str, *, param: str | None = None) -> None:
    """Accept a text that can be written as UTF-8, which one with a lone surrogate cannot; `what` names it."""
    try:
        if isinstance(value, str):
            value.encode()
            return
    except UnicodeEncodeError:
        pass
    raise InvalidInput(
        f"{what} is not a text that can be written as UTF-8.",
        param=param or what,
        next_step="Send text without lone surrogates.",
    )
