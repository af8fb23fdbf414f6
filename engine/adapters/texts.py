"""Texts on their way into a model, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_PREFIX_CHARACTERS: Final = 32
"""Characters a token, looked at first in a long text."""


def shortened(text: str, tokenizer: Any, limit: int | None) -> str:
    """Return a prefix of a very long text that holds more tokens than the model reads: its answer is the same.

    Tokenizing megabytes of which the model reads 256 tokens would hold everybody else up for a minute. `tokenizer` is
    one of transformers', `limit` the tokens that the model reads, None for no limit.
    """
    if limit is None:
        return text
    size = limit * _PREFIX_CHARACTERS
    while size < len(text):
        # Twice the limit, because the word at the cut may come out in other pieces.
        if len(tokenizer(text[:size], verbose=False)["input_ids"]) > 2 * limit:
            return text[:size]
        size *= 8
    return text


def count_tokens(texts: Sequence[str], tokenizer: Any, limit: int | None) -> int:
    """Return how many tokens the model reads of all texts together, special ones included."""
    if not texts:
        return 0
    encoded = tokenizer(list(texts), truncation=limit is not None, max_length=limit)
    return sum(map(len, encoded["input_ids"]))
