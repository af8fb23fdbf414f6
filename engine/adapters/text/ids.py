"""Token ids in place of texts: how a tokenizer makes them, and how they go into a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.adapters.text.rows import IDS, Limit, Rows
from engine.adapters.text.texts import truncate_text
from engine.errors import InvalidInput
from engine.operations.inputs import ITEMS


def text_ids(text: str, tokenizer: Any, limit: int | None) -> list[int]:
    """Return the ids of `text` without special tokens; `tokenizer` and `limit` as in `truncate_text`."""
    part = truncate_text(text, tokenizer, limit)
    ids: list[int] = tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def plain_ids(text: str, tokenizer: Any, limit: int | None) -> list[int]:
    """Return `text_ids`, or none of them where a special token begins or ends the text itself.

    Sent as an id, that token would be taken for one of those that frame every text.
    """
    ids = text_ids(text, tokenizer, limit)
    special = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    return [] if ids and special & {ids[0], ids[-1]} else ids


def frame_of(whole: Sequence[int], inner: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after a text's own ids, `inner`, among all that are read, `whole`."""
    for at in range(len(whole) - len(inner) + 1):
        if list(whole[at : at + len(inner)]) == list(inner):
            return list(whole[:at]), list(whole[at + len(inner) :])
    return [], []


def checked_ids(ids: object, index: int, size: int) -> list[int]:
    """Return `ids`, one or more from 0 to `size` - 1; raises InvalidInput for any other, which names input `index`."""
    if not isinstance(ids, Sequence) or not ids or not all(type(i) is int and 0 <= i < size for i in ids):
        raise InvalidInput(
            f"{ITEMS}[{index}] holds token ids outside 0 to {size - 1}, or none: these ids are of another tokenizer.",
            param=ITEMS,
            next_step="Send text. A client that tokenizes for OpenAI must be told not to "
            "(langchain: check_embedding_ctx_length=False).",
        )
    return list(ids)


def unframed(ids: list[int], begin: list[int], end: list[int]) -> list[int]:
    """Return `ids` without a model's begin and end tokens, with which they may have come."""
    if begin and ids[: len(begin)] == begin:
        ids = ids[len(begin) :]
    if end and ids[-len(end) :] == end:
        ids = ids[: -len(end)]
    return ids


def rows_of_ids(inputs: Sequence[Any], frame: Rows, letter: Sequence[int], tokenizer: Any, limit: Limit) -> Rows:
    """Return lists of token ids as rows between the special tokens that frame every text, cut to `limit` tokens.

    `frame` is the row of one text, and `letter` are its ids alone; both show those tokens. The ids may have come with
    them. Raises InvalidInput.
    """
    import numpy as np

    size = min(len(tokenizer), limit.vocabulary or len(tokenizer))
    whole = frame.rows[0]
    begin, end = frame_of(whole[IDS].tolist(), letter)
    own = [unframed(checked_ids(ids, index, size), begin, end) for index, ids in enumerate(inputs)]
    cut = limit.cut_of([len(begin) + len(ids) + len(end) for ids in own])
    rows = []
    for ids in own:
        room = len(ids) if limit.tokens is None else max(0, limit.tokens - len(begin) - len(end))
        kept = ids[max(0, len(ids) - room) :] if tokenizer.truncation_side == "left" else ids[:room]
        row = {
            name: np.concatenate(
                [column[: len(begin)], np.repeat(column[len(begin)], len(kept)), column[len(column) - len(end) :]]
            )
            for name, column in whole.items()
        }
        row[IDS][len(begin) : len(begin) + len(kept)] = kept
        rows.append(row)
    return Rows(rows, frame.common, frame.masked, cut)
