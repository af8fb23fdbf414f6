"""Lengths: the number of tokens that a model reads of one input, and batches of inputs of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

_ABSURD: Final = 10**9
"""Tokens from which on a limit stands for a missing one; transformers writes 1e30, others infinity."""


def known_limit(limit: float | None) -> int | None:
    """Return a library's limit, None if the value stands for a missing one."""
    return None if limit is None or limit >= _ABSURD else int(limit)


def reading_limit(model: Any, tokenizer: Any) -> int | None:
    """Return the tokens of one input, special ones included, that a model of transformers can read; None = any number.

    The limit is that of the tokenizer's file, else the number of positions in the configuration (512 for DeBERTa-v2,
    whose relative positions would not end there); at most the rows of a table of absolute positions.
    """
    limit = tokenizer.model_max_length
    if limit >= _ABSURD:
        limit = getattr(model.config, "max_position_embeddings", None) or -1  # XLNet says -1
    found = [limit, *_positions(model)]
    return min((int(limit) for limit in found if limit > 0), default=None)


def _positions(model: Any) -> Iterator[int]:
    for part in model.modules():
        table: Any = getattr(part, "position_embeddings", None)
        if hasattr(table, "num_embeddings"):
            # RoBERTa and its variants count from the row after that of the padding.
            yield table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def in_order_of_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield batches of at most `size` indices, the longest inputs first, so that little is padded.

    If any batch is too large for the device, it is the first one, so an out-of-memory error comes before any work is
    done.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for start in range(0, len(order), size):
        yield order[start : start + size]
