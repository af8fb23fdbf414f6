"""Texts on their way into a model, whatever its kind."""

from __future__ import annotations

import hashlib
from typing import Any, Final

_PREFIX_CHARACTERS: Final = 32
"""Characters a token, looked at first in a long text."""

_WITHOUT_EFFECT: Final = ("truncation", "padding", "post_processor")
"""What a tokenizer's serialisation holds that changes no id of a text's own."""


def truncate_text(text: str, tokenizer: Any, limit: int | None) -> str:
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


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Return a digest such that two tokenizers of equal ones give equal `text_ids`; None for one that is not fast.

    It is taken of the tokenizer's serialisation, which for large vocabularies is tens of megabytes: ask once.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    import orjson

    # Read from a copy: switching truncation off in the tokenizer itself would meet one that is at work.
    serialised = orjson.loads(backend.to_str())
    relevant = {key: value for key, value in serialised.items() if key not in _WITHOUT_EFFECT}
    relevant["splits special tokens"] = bool(getattr(tokenizer, "split_special_tokens", False))
    return hashlib.sha256(orjson.dumps(relevant, option=orjson.OPT_SORT_KEYS)).hexdigest()
