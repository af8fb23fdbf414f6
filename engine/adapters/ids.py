"""Token ids that callers pass in place of texts, on their way into a model."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import InvalidInput


def checked_ids(ids: object, index: int, size: int) -> list[int]:
    """Return `ids`, of which there must be one or more from 0 to `size` - 1; `index` says which input they are.

    Raises InvalidInput.
    """
    if not isinstance(ids, Sequence) or not ids or not all(type(i) is int and 0 <= i < size for i in ids):
        raise InvalidInput(
            f"input[{index}] holds token ids outside 0 to {size - 1}, or none: these ids are of another tokenizer.",
            param="input",
            next_step="Send text. A client that tokenizes for OpenAI must be told not to "
            "(langchain: check_embedding_ctx_length=False).",
        )
    return list(ids)


def framed_ids(ids: list[int], begin: list[int], end: list[int], limit: int | None, *, at_the_left: bool) -> list[int]:
    """Return `ids` between a model's begin and end tokens, with which they may have come, cut to `limit` in all.

    `at_the_left` cuts the first ones and not the last.
    """
    if begin and ids[: len(begin)] == begin:
        ids = ids[len(begin) :]
    if end and ids[-len(end) :] == end:
        ids = ids[: -len(end)]
    room = len(ids) if limit is None else max(0, limit - len(begin) - len(end))
    return [*begin, *(ids[max(0, len(ids) - room) :] if at_the_left else ids[:room]), *end]
