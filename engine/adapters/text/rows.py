"""The inputs of one request as token ids: read at once, cut to what the model reads, and put together to batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from engine.adapters.text.company import Company
from engine.adapters.text.texts import truncate_text
from engine.errors import InvalidInput
from engine.operations.cut import NOTHING_CUT, Cut
from engine.operations.inputs import ITEMS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Row = Mapping[str, NDArray[np.int64]]

IDS: Final = "input_ids"
MASK: Final = "attention_mask"
_CHARACTERS_AT_ONCE: Final = 1 << 20
"""Characters per call of a tokenizer, whose result takes a hundred bytes and more per token."""

_CHARACTERS_PER_TOKEN: Final = 3

Features = dict[str, Any]
Item = Any
"""A text, or a pair of texts."""
Read = Callable[[list[Item], int | None], Mapping[str, Any]]
"""Returns a tokenizer's columns for inputs, a list of numbers for each, cut to a number of tokens; None = whole."""


@dataclass(slots=True)
class Rows:
    """Inputs as rows of numbers without padding."""

    rows: Sequence[Row]
    """Per input its columns by the tokenizer's names, each as long as the input has tokens."""
    common: Mapping[str, Any] = field(default_factory=dict)
    """Features that are the same for all inputs."""
    masked: bool = True
    """Whether the model gets a mask of the tokens that are no padding."""
    cut: Cut = NOTHING_CUT
    paddable: bool = True
    """Whether the way in which inputs come together can be chosen."""

    unread: int = 0
    """Tokens of all rows that are padding, for a model that was trained to read it."""

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each input."""
        return [len(row[IDS]) for row in self.rows]

    @property
    def tokens(self) -> int:
        """The number of tokens of all inputs."""
        return sum(self.lengths) - self.unread

    def filled(self, length: int, company: Company) -> Rows:
        """Return the rows with as much padding as makes all of them that long."""
        import numpy as np

        missing = [length - count for count in self.lengths]
        sides = [(one, 0) if company.at_the_left else (0, one) for one in missing]
        rows = [
            {name: np.pad(column, side, constant_values=company.fill(name)) for name, column in row.items()}
            for row, side in zip(self.rows, sides, strict=True)
        ]
        return Rows(rows, self.common, self.masked, self.cut, self.paddable, unread=sum(missing))

    def features(self, batch: Sequence[int], company: Company) -> Features:
        """Return the inputs of a batch as tensors on the CPU, (n, longest) each, padded as `company` says."""
        import numpy as np
        import torch

        rows = [self.rows[index] for index in batch]
        longest = max(len(row[IDS]) for row in rows)
        places = [slice(longest - len(row[IDS]), longest) for row in rows]
        if not company.at_the_left:
            places = [slice(len(row[IDS])) for row in rows]
        found: Features = dict(self.common)
        for column in rows[0]:
            padded = np.full((len(rows), longest), company.fill(column), dtype=np.int64)
            for index, place in enumerate(places):
                padded[index, place] = rows[index][column]
            found[column] = torch.from_numpy(padded)
        if self.masked:
            mask = np.zeros((len(rows), longest), dtype=np.int64)
            for index, place in enumerate(places):
                mask[index, place] = 1
            found[MASK] = torch.from_numpy(mask)
        return found


@dataclass(slots=True)
class Texts(Rows):
    """Texts that only the model's own reader can read, batch by batch."""

    texts: Sequence[str] = ()
    prepare: Callable[[list[str]], Features] = lambda texts: {}
    paddable: bool = False
    _counts: dict[int, int] = field(default_factory=dict)

    @property
    def lengths(self) -> list[int]:
        """A guess of the number of tokens of each input, at least 1."""
        return [1 + len(text) // _CHARACTERS_PER_TOKEN for text in self.texts]

    @property
    def tokens(self) -> int:
        """The number of tokens of the inputs whose features were made."""
        return sum(self._counts.values())

    def features(self, batch: Sequence[int], company: Company) -> Features:
        """Return the reader's own features of a batch."""
        found = self.prepare([self.texts[index] for index in batch])
        count = found[MASK].sum() if MASK in found else found[IDS].numel() if IDS in found else 0
        self._counts[batch[0]] = int(count)
        return found


@dataclass(frozen=True, slots=True)
class Limit:
    """The part of one input that an encoder reads: `tokens` of it, None for all; the rest is cut, or refused."""

    name: str
    """Name of the encoder in errors."""
    tokens: int | None
    truncate: bool = True
    vocabulary: int | None = None
    """The number of token ids that the model has vectors for; None = unknown."""

    def short(self, text: str, tokenizer: Any) -> str:
        """Return a text, or of a very long one a part that gives the same answer."""
        return text if tokenizer is None else truncate_text(text, tokenizer, self.tokens)

    def cut_of(self, lengths: Sequence[int], *, at_least: Collection[int] = ()) -> Cut:
        """Return the cut of inputs of these lengths, special tokens included.

        The length of those in `at_least` is a lower bound. Raises InvalidInput instead where nothing may be cut.
        """
        over = [index for index, length in enumerate(lengths) if self.tokens is not None and length > self.tokens]
        if over and not self.truncate:
            index = over[0]
            count = f"{'at least ' if index in at_least else ''}{lengths[index]} tokens"
            raise InvalidInput(
                f"{ITEMS}[{index}] has {count}, but {self.name} reads {self.tokens}.",
                param=ITEMS,
                next_step="Send it in shorter parts, or allow it to be cut (truncate).",
            )
        return Cut(len(over), sum(lengths[index] - (self.tokens or 0) for index in over))

    def check(self, index: int, ids: NDArray[np.int64]) -> None:
        """Raise InvalidInput for ids that the model has no vectors for, although its tokenizer makes them."""
        if self.vocabulary is not None and len(ids) and int(ids.max()) >= self.vocabulary:
            raise InvalidInput(
                f"{ITEMS}[{index}] has a token with id {int(ids.max())}, but {self.name} has vectors for "
                f"{self.vocabulary} tokens: its tokenizer belongs to another model.",
                param=ITEMS,
                next_step="Put the model's own tokenizer into its folder, or leave that token out.",
            )


def read_rows(items: Sequence[Item], read: Read, tokenizer: Any, limit: Limit) -> Rows:
    """Return `items`, texts or pairs of them, as rows of at most `limit` tokens.

    What is cut is counted exactly, except of texts so long that only a part is tokenized. Raises InvalidInput.
    """
    short = cache(lambda text: limit.short(text, tokenizer))
    parts = [short(item) if isinstance(item, str) else tuple(map(short, item)) for item in items]
    rows, common, masked = _read(parts, read, None)
    lengths = [len(row[IDS]) for row in rows]
    cut = limit.cut_of(lengths, at_least=[i for i, item in enumerate(items) if parts[i] != item])
    if cut.inputs:
        over = [index for index, length in enumerate(lengths) if limit.tokens is not None and length > limit.tokens]
        # Cutting makes an object of each part that is left out, and for pairs of each two of them.
        shorter = cache(lambda text: truncate_text(text, tokenizer, limit.tokens, whole=0))
        some = [shorter(one) if isinstance(one, str) else tuple(map(shorter, one)) for one in (parts[i] for i in over)]
        for index, row in zip(over, _read(some, read, limit.tokens)[0], strict=True):
            rows[index] = row
    for index, row in enumerate(rows):
        limit.check(index, row[IDS])
    return Rows(rows, common, masked, cut)


def _read(items: list[Item], read: Read, limit: int | None) -> tuple[list[Row], Mapping[str, Any], bool]:
    import numpy as np

    rows: list[Row] = []
    common: dict[str, Any] = {}
    masked = False
    for part in _parts(items):
        found = read(part, limit)
        columns = [name for name, value in found.items() if isinstance(value, list) and name != MASK]
        masked = MASK in found
        common = {name: value for name, value in found.items() if name not in columns and name != MASK}
        for index in range(len(part)):
            row = {name: np.asarray(found[name][index], dtype=np.int64) for name in columns}
            # A tokenizer that cannot cut leaves it to us.
            rows.append({name: values[:limit] for name, values in row.items()})
    return rows, common, masked


def _parts(items: list[Item]) -> Iterator[list[Item]]:
    """The items in groups of bounded length, one item at least."""
    begin, characters = 0, 0
    for index, item in enumerate(items):
        characters += len(item) if isinstance(item, str) else sum(map(len, item))
        if characters > _CHARACTERS_AT_ONCE and index > begin:
            yield items[begin:index]
            begin, characters = index, 0
    if begin < len(items):
        yield items[begin:]
