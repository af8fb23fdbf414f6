"""The operation that asks an encoder for a fact about its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from engine.errors import InvalidInput
from engine.kinds import KINDS
from engine.operations.operation import Operation

FACTS: Final = ("dimension", "max_tokens", "labels", "names", "operations")
"""Facts of which each kind of encoder has some."""


@dataclass(frozen=True, slots=True)
class Describe(Operation[Any]):
    """One fact about the loaded model: an int, a tuple of texts, or None where the model has no such limit."""

    fact: str
    """One of `FACTS`."""
    field: str = "fact"

    kinds: ClassVar[tuple[str, ...]] = KINDS
    part: ClassVar[str | None] = "text"

    def __post_init__(self) -> None:
        if self.fact not in FACTS:
            raise InvalidInput(f"fact must be one of: {', '.join(FACTS)}.", param=self.field)

    @property
    def size(self) -> int:
        """One fact; asking for it loads the encoder."""
        return 1

    def nothing(self) -> None:
        """Return None; the operation is never about no items."""

    def _run(self, adapter: Any) -> Any:
        if not hasattr(adapter, self.fact):
            raise InvalidInput(f"This encoder has no {self.fact}.", param=self.field)
        value = getattr(adapter, self.fact)
        return tuple(value) if isinstance(value, list | tuple) else value
