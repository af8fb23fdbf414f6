"""What a model reads at once: how many tokens of one input, and which inputs together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

_ABSURD: Final = 10**9
"""Tokens from which on a limit means that nobody wrote one down; transformers writes 1e30, others infinity."""


def known_limit(limit: float | None) -> int | None:
    """Return a library's limit, None where it stands for none."""
    return None if limit is None or limit >= _ABSURD else int(limit)


def reading_limit(model: Any, tokenizer: Any) -> int | None:
    """Return how many tokens of one input, special ones included, the model of transformers can read; None = any.

    That is what the tokenizer's file says, else the positions that the configuration names (512 for DeBERTa-v2, whose
    relative positions would not end there); never more than a table of absolute positions has rows.
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
            # RoBERTa and its kin count from the row after that of the padding.
            yield table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def in_order_of_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield batches of at most `size` indices, the longest inputs first, so that little is padded.

    A batch that is too large for the device is then the first one, before anything was computed in vain.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for start in range(0, len(order), size):
        yield order[start : start + size]
