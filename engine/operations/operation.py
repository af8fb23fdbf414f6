"""The base of every operation: one request to an encoder, as a value that no caller and no dialect owns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, final

from engine.operations.cut import Cut, cut_of
from engine.operations.finite import check_finite
from engine.operations.inputs import naming_field

T = TypeVar("T")


class Operation(ABC, Generic[T]):
    """One request to an encoder: a frozen value of plain data, checked when it is made.

    Called with the adapter, under a lease, it returns the result. Proxies, the endpoint and the command line make the
    same ones, so that bad input is the same error everywhere, before anything loads.
    """

    kinds: ClassVar[tuple[str, ...]]
    """Kinds of encoder that can do it; without a name the default one of the first kind serves."""
    part: ClassVar[str | None] = None
    """The part that does it, of an encoder that has parts."""
    field: str
    """The name of the items in the caller's own interface; errors name it."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of items; an operation about none loads nothing."""

    @abstractmethod
    def nothing(self) -> T:
        """Return the result for no items."""

    @final
    def __call__(self, adapter: Any) -> T:
        """Return the result for the items, all of it finite.

        Raises InvalidInput for what only the model can tell, and NotFinite; both name the item as the caller does.
        """
        with naming_field(self.field, self._name_of):
            result = self._run(adapter)
            check_finite(result, getattr(adapter, "revision", None))
        return result

    @abstractmethod
    def _run(self, adapter: Any) -> T:
        """Return the result for the items; errors about them may name them `ITEMS`, as an operation within does."""

    def _name_of(self, index: int) -> str:
        """Return the caller's name of an item."""
        return f"{self.field}[{index}]"


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A result, the encoder that it is of, and the `revision` of the weights that computed it (None = unknown)."""

    value: T
    encoder: str
    revision: str | None

    @property
    def cut(self) -> Cut:
        """The part of the inputs that the model did not read; nothing for results that do not say."""
        return cut_of(self.value)
