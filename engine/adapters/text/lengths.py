"""Batches of inputs of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batches_by_length(
    lengths: Sequence[int], size: int, tokens: int, *, equal: bool = False, of: Sequence[int] | None = None
) -> Iterator[list[int]]:
    """Yield batches of at most `size` indices and of `tokens` tokens, padding included; of one input at least.

    The longest inputs come first, so that little is padded, and so that an out-of-memory error comes before any work is
    done. With `equal` no batch holds inputs of several lengths. `of` are the indices that count, None for all.
    """
    order = sorted(range(len(lengths)) if of is None else of, key=lambda index: -lengths[index])
    begin = 0
    while begin < len(order):
        longest = lengths[order[begin]]
        end = begin + max(1, min(size, tokens // max(1, longest)))
        batch = order[begin:end]
        if equal:
            batch = [index for index in batch if lengths[index] == longest]
        yield batch
        begin += len(batch)
