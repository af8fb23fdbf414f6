"""The labels of a head, by the position of their logits, and the meaning of its numbers, from its configuration."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.errors import Unavailable

_REGRESSION: Final = "regression"
_INDEPENDENT: Final = "multi_label_classification"
_EXCLUSIVE: Final = "single_label_classification"


@dataclass(frozen=True, slots=True)
class Labels:
    """The names of a head's logits, and the relation between these."""

    names: tuple[str, ...]
    """By position, no name twice."""
    regression: bool
    """Whether the logits are the answer itself, and no probabilities come of them."""
    independent: bool
    """Whether each label has a probability of its own; else they share 1."""

    @classmethod
    def of(cls, config: Any, assume: Callable[[str], None]) -> Labels:
        """Return the labels of a model of transformers; `assume` gets a sentence about each thing that it leaves open.

        Label ids that are not 0 to n - 1 are taken in their order.
        """
        ids = sorted(config.id2label)
        if ids != list(range(len(ids))):
            shown = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
            assume(f"Its label ids are {shown} and not 0 to {len(ids) - 1}: its logits are taken in their order.")
        names = tuple(str(config.id2label[index]) for index in ids)
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            assume(f"Several of its labels are called {twice[0]}: each name that repeats shows its position.")
        kind = (getattr(config, "problem_type", None) or "").lower()
        if kind not in ("", _REGRESSION, _INDEPENDENT, _EXCLUSIVE):
            assume(f"Its problem_type is {kind}, which is not known here: its labels are taken to exclude each other.")
        return cls(told_apart(names), kind == _REGRESSION, kind == _INDEPENDENT or len(names) == 1)

    @classmethod
    def unnamed(cls, count: int) -> Labels:
        """Return the labels of a head with `count` logits that no configuration names."""
        return cls(tuple(f"LABEL_{index}" for index in range(count)), False, count == 1)


def told_apart(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return `names`, with the position in brackets behind each that is there more than once."""
    count = Counter(names)
    found = tuple(f"{name} [{index}]" if count[name] > 1 else name for index, name in enumerate(names))
    return found if found == names else told_apart(found)


def check_label_ids(folder: Path, model: str) -> None:
    """Raise Unavailable where config.json does not number its labels, which no library reads."""
    try:
        labels = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label")
        if labels is not None:
            _ = [int(index) for index in labels]
    except (OSError, AttributeError):
        return  # the library says what is wrong with the file
    except (TypeError, ValueError):
        pass
    else:
        if labels is None or isinstance(labels, Mapping):
            return
    raise Unavailable(
        f"config.json of {model} does not number its labels, so nothing says which logit is which.",
        next_step='Write id2label as {"0": "first label", "1": "second label"}, in the order of the head\'s rows.',
    )
