"""What every operation is: one thing asked of an encoder, as a value that no caller and no dialect owns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

T = TypeVar("T")


class Operation(ABC, Generic[T]):
    """One thing asked of an encoder: a frozen value of plain data, checked when it is made.

    Called with the adapter, under a lease, it returns the result. Proxies, the endpoint and the command line make the
    same ones, so that bad input is the same error everywhere, before anything loads.
    """

    kinds: ClassVar[tuple[str, ...]]
    """Kinds of encoder that can do it; that of the first serves where no encoder is named."""
    part: ClassVar[str | None] = None
    """Which part does it, of an encoder that has parts."""
    field: str
    """What the caller's own interface calls the items; errors name it."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many items it is about; none of them load nothing."""

    @abstractmethod
    def nothing(self) -> T:
        """Return the result for no items."""

    @abstractmethod
    def __call__(self, adapter: Any) -> T:
        """Return the result for the items; raises InvalidInput for what only the model can tell."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A result, the encoder that it is of, and the `revision` of the weights that computed it (None = unknown)."""

    value: T
    encoder: str
    revision: str | None
