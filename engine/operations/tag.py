"""The operation of taggers: the words of a text, their parts of speech, and the names in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from engine.operations.inputs import check_texts
from engine.operations.operation import Operation


@dataclass(frozen=True, slots=True)
class Token:
    """A word or a mark: `text[start:end]`, counted in characters (code points); "" where the pipeline does not say."""

    text: str
    start: int
    end: int
    pos: str
    """Universal part of speech: NOUN, VERB, ..."""
    tag: str
    """The pipeline's own, finer one."""
    lemma: str | None
    """Its dictionary form; None where the pipeline finds none."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A name and what it names: `text[start:end]`, counted in characters; the labels are the pipeline's own."""

    text: str
    label: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tagged:
    """One text, taken apart."""

    tokens: tuple[Token, ...]
    entities: tuple[Entity, ...]


@dataclass(frozen=True, slots=True)
class Tag(Operation[tuple[Tagged, ...]]):
    """The tokens and entities of each text."""

    texts: Sequence[str]
    field: str = "texts"

    kinds: ClassVar[tuple[str, ...]] = ("tag",)

    def __post_init__(self) -> None:
        check_texts(self.texts, self.field)

    @property
    def size(self) -> int:
        """The number of texts."""
        return len(self.texts)

    def nothing(self) -> tuple[Tagged, ...]:
        """Return no documents."""
        return ()

    def _run(self, adapter: Any) -> tuple[Tagged, ...]:
        documents: tuple[Tagged, ...] = adapter.tag(self.texts)
        return documents
