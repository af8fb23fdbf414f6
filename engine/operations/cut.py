"""The part of the inputs that a model did not read, because they are longer than it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cut:
    """The inputs of one request that were cut, and the tokens that were left out of them together.

    Of a very long text the tokens are a lower bound.
    """

    inputs: int = 0
    tokens: int = 0

    def __add__(self, other: Cut) -> Cut:
        return Cut(self.inputs + other.inputs, self.tokens + other.tokens)


NOTHING_CUT: Final = Cut()


def cut_of(result: object) -> Cut:
    """Return the `cut` of a result; nothing for results that do not say."""
    cut = getattr(result, "cut", None)
    return cut if isinstance(cut, Cut) else NOTHING_CUT
