"""Whether inputs may share a batch: found out by comparing results, for no file says it reliably."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

_TOLERANCES: Final = {"torch.float16": 2e-2, "torch.bfloat16": 1e-1}
_TOLERANCE: Final = 1e-5
"""The largest difference between equal computations, as a part of the largest number; that of float32."""


class Way(Enum):
    """A way in which inputs come together in a batch."""

    AS_TOLD = "padded at the side that the tokenizer names"
    OTHER_SIDE = "padded at the other side"
    EQUAL = "in batches of equal length, without padding"
    ALONE = "one by one"


class Company:
    """The way in which the inputs of one loaded model come together in a batch.

    A way is kept as long as no comparison with an input alone shows a difference; then the next one is tried. Padding
    at the left moves GPT-2's positions, padding at the right hides the last token of others, and some models mix the
    padding into all tokens.
    """

    def __init__(self, *, at_the_left: bool = False, fills: Mapping[str, int] | None = None) -> None:
        """Begin with padding at that side, with the values `fills` in the columns of those names; 0 in others."""
        self.way = Way.AS_TOLD
        self._told_left = at_the_left
        self._fills = fills or {}
        self._seen: tuple[int, bool] = (0, False)
        """The most padding of an input that was compared in this way, and whether any was."""

    @property
    def at_the_left(self) -> bool:
        """Whether padding comes before the tokens."""
        return self._told_left is not (self.way is Way.OTHER_SIDE)

    def fill(self, column: str) -> int:
        """Return the value that pads a column."""
        return self._fills.get(column, 0)

    def due(self, lengths: Sequence[int]) -> int | None:
        """Return the input to compare of a batch with these lengths: the most padded one; None if enough were.

        A comparison holds for twice the padding that it was made with.
        """
        if len(lengths) < 2:
            return None
        most, compared = self._seen
        shortest = min(range(len(lengths)), key=lengths.__getitem__)
        padding = max(lengths) - lengths[shortest]
        return shortest if not compared or padding > 2 * most else None

    def compared(self, lengths: Sequence[int]) -> None:
        """Note that the most padded input of a batch with these lengths had the result that it has alone."""
        self._seen = max(lengths) - min(lengths), True

    def next_way(self, *, at_once: Way | None = None) -> None:
        """Take the next way, or `at_once` another one."""
        ways = list(Way)
        self.way = at_once or ways[min(ways.index(self.way) + 1, len(ways) - 1)]
        self._seen = (0, False)


def agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two results of one input are equal as far as their element type goes; NaN equals NaN."""
    import torch

    if one.shape != other.shape:
        return False
    tolerance = _TOLERANCES.get(str(one.dtype), _TOLERANCE)
    one, other = one.float(), other.float()
    scale = max(1.0, float(torch.nan_to_num(other, 0, 0, 0).abs().max())) if other.numel() else 1.0
    return bool(torch.allclose(one, other, rtol=0, atol=tolerance * scale, equal_nan=True))


def own_part(results: Any, row: int, length: int, longest: int, *, at_the_left: bool) -> Any:
    """Return the result of one input of a batch; of one per token, those of its own tokens without the padding."""
    result = results[row]
    if results.dim() < 3 or results.shape[1] != longest:
        return result
    return result[longest - length :] if at_the_left else result[:length]
