"""Token ids as a vocabulary writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def written(ids: Sequence[int], tokenizer: Any) -> tuple[str, ...]:
    """Return the text of each of a model's `ids`, with the id in brackets where another one is written alike.

    Of ids that are written alike the one that the tokenizer itself reads has the bare text, in every answer. A model
    may have more rows than its tokenizer has tokens: these are `<ID>`.
    """
    texts = [text or f"<{index}>" for index, text in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True)]
    read = tokenizer.convert_tokens_to_ids(texts)
    # A text that is no token at all is read as the unknown one, or as none.
    foreign = {None, tokenizer.unk_token_id}
    return tuple(
        text if own == index or (own in foreign and text != tokenizer.unk_token) else f"{text} [{index}]"
        for index, text, own in zip(ids, texts, read, strict=True)
    )
