"""Texts before they are tokenized: cut where they are very long; and the digest of a tokenizer."""

from __future__ import annotations

import hashlib
from typing import Any, Final

_WHOLE: Final = 65_536
"""Characters up to which every text is tokenized whole."""
_PREFIX_CHARACTERS: Final = 32
"""Characters per token that the model reads, up to which so is a text, if that is more."""

_WITHOUT_EFFECT: Final = ("truncation", "padding", "post_processor")
"""Parts of a tokenizer's serialisation that change no id of a text's own."""


def truncate_text(text: str, tokenizer: Any, limit: int | None, *, whole: int = _WHOLE) -> str:
    """Return a part of a very long text that gives the same answer, with more tokens than the model reads.

    Tokenizing megabytes of which the model reads 256 tokens would hold up other callers for a minute. It is the
    beginning, or the end if the tokenizer cuts at the left. `tokenizer` is one of transformers', `limit` the tokens
    that the model reads, None for no limit; a text of at most `whole` characters is returned as it is.
    """
    if limit is None:
        return text
    at_the_left = getattr(tokenizer, "truncation_side", "right") == "left"
    size = max(whole, limit * _PREFIX_CHARACTERS)
    while size < len(text):
        part = text[-size:] if at_the_left else text[:size]
        # Twice the limit, because the word at the cut may be split into other tokens.
        if len(tokenizer(part, verbose=False)["input_ids"]) > 2 * limit:
            return part
        size *= 8
    return text


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Return a digest that is equal only for tokenizers with equal `text_ids`; None for one that is not fast.

    It is taken of the tokenizer's serialisation, which for large vocabularies is tens of megabytes: call once.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    import orjson

    # Truncation is left out here and not switched off in the tokenizer, which another thread may be using.
    serialised = orjson.loads(backend.to_str())
    relevant = {key: value for key, value in serialised.items() if key not in _WITHOUT_EFFECT}
    relevant["splits special tokens"] = bool(getattr(tokenizer, "split_special_tokens", False))
    return hashlib.sha256(orjson.dumps(relevant, option=orjson.OPT_SORT_KEYS)).hexdigest()
