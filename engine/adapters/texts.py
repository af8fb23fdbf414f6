"""Texts on their way into a model, whatever its kind."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from engine.errors import InvalidInput

_PREFIX_CHARACTERS: Final = 32
"""Characters a token, looked at first in a long text."""

_WITHOUT_EFFECT: Final = ("truncation", "padding", "post_processor")
"""What a tokenizer's serialisation holds that changes no id of a text's own."""


def shortened(text: str, tokenizer: Any, limit: int | None) -> str:
    """Return a part of a very long text that holds more tokens than the model reads: its answer is the same.

    Tokenizing megabytes of which the model reads 256 tokens would hold everybody else up for a minute. It is the
    beginning, or the end where the tokenizer cuts at the left. `tokenizer` is one of transformers', `limit` the tokens
    that the model reads, None for no limit.
    """
    if limit is None:
        return text
    at_the_left = getattr(tokenizer, "truncation_side", "right") == "left"
    size = limit * _PREFIX_CHARACTERS
    while size < len(text):
        part = text[-size:] if at_the_left else text[:size]
        # Twice the limit, because the word at the cut may come out in other pieces.
        if len(tokenizer(part, verbose=False)["input_ids"]) > 2 * limit:
            return part
        size *= 8
    return text


def own_ids(text: str, tokenizer: Any, limit: int | None) -> list[int]:
    """Return the ids of `text` without special tokens; `tokenizer` and `limit` as in `shortened`."""
    part = shortened(text, tokenizer, limit)
    ids: list[int] = tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def frame_of(whole: Sequence[int], inner: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the special tokens before and behind a text's own ids, `inner`, in what the model reads of it, `whole`."""
    for at in range(len(whole) - len(inner) + 1):
        if list(whole[at : at + len(inner)]) == list(inner):
            return list(whole[:at]), list(whole[at + len(inner) :])
    return [], []


def checked_ids(
    ids: object, index: int, tokenizer: Any, limit: int | None, frame: tuple[list[int], list[int]] | None = None
) -> list[int]:
    """Return token ids as the model reads them: between its special tokens, cut to `limit`.

    `frame` has those tokens, None asks the tokenizer. Ids that came with them get no second ones. Raises InvalidInput
    for ids that are not the tokenizer's; `index` says in the message which of the inputs they are.
    """
    size = len(tokenizer)
    if not isinstance(ids, Sequence) or not ids or not all(type(i) is int and 0 <= i < size for i in ids):
        raise InvalidInput(
            f"input[{index}] holds token ids outside 0 to {size - 1}, or none: these ids are of another tokenizer.",
            param="input",
            next_step="Send text. A client that tokenizes for OpenAI must be told not to "
            "(langchain: check_embedding_ctx_length=False).",
        )
    if frame is None:
        frame = frame_of(tokenizer("a")["input_ids"], own_ids("a", tokenizer, None))
    begin, end = frame
    inner = list(ids)
    if begin and inner[: len(begin)] == begin:
        inner = inner[len(begin) :]
    if end and inner[-len(end) :] == end:
        inner = inner[: -len(end)]
    room = None if limit is None else max(0, limit - len(begin) - len(end))
    if room is not None and len(inner) > room:
        inner = inner[len(inner) - room :] if tokenizer.truncation_side == "left" else inner[:room]
    return [*begin, *inner, *end]


def key_of(tokenizer: Any) -> str | None:
    """Return a digest such that two tokenizers of equal ones give equal `own_ids`; None for one that is not fast.

    It is taken of the tokenizer's serialisation, which for large vocabularies is tens of megabytes: ask once.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    import orjson

    # Read from a copy: switching truncation off in the tokenizer itself would meet one that is at work.
    serialised = orjson.loads(backend.to_str())
    told = {key: value for key, value in serialised.items() if key not in _WITHOUT_EFFECT}
    told["splits special tokens"] = bool(getattr(tokenizer, "split_special_tokens", False))
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()
