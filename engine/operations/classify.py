"""The operations of classifiers: the labels of texts or of pairs of texts, the model's own or any others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from engine.errors import InvalidInput
from engine.operations.cut import NOTHING_CUT, Cut
from engine.operations.inputs import ITEMS, check_text, check_texts
from engine.operations.operation import Operation
from engine.operations.probability import softmax

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_STEMS: Final = {"entailment": "entail", "contradiction": "contradict"}
_NLI: Final = "Any labels can be put only to a model for natural language inference (NLI)."

Inputs = Sequence[str] | Sequence[tuple[str, str]]
"""Texts, or pairs of them (premise and hypothesis); never both."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The probability of each label for each input, in the order of the inputs; the numbers of a regression."""

    labels: tuple[str, ...]
    """The columns: the model's own labels in its order, no name twice, or those that were asked for."""
    probabilities: NDArray[np.float32] | None
    """(n, labels), 0 to 1; each row adds up to 1 where the labels exclude each other. None for a regression."""
    logits: NDArray[np.float32]
    """(n, labels), the source of the probabilities; of a regression the numbers that are its answer."""
    tokens: int
    """Tokens that the model read."""
    cut: Cut = NOTHING_CUT


@dataclass(frozen=True, slots=True)
class Classify(Operation[Classification]):
    """The probabilities of the model's own labels, or the numbers of a regression, for texts or for pairs of texts."""

    inputs: Inputs
    truncate: bool = True
    """Whether an input that is longer than the model reads is cut; else it is an error."""
    field: str = "inputs"

    kinds: ClassVar[tuple[str, ...]] = ("classify",)

    def __post_init__(self) -> None:
        items: Any = self.inputs
        if isinstance(items, str) or not isinstance(items, Sequence) or all(isinstance(item, str) for item in items):
            check_texts(items, self.field)
            return
        if any(isinstance(item, str) for item in items):
            raise InvalidInput(
                f"{self.field} mixes texts and pairs of texts.", param=self.field, next_step="Send two requests."
            )
        for index, pair in enumerate(items):
            if not isinstance(pair, Sequence) or len(pair) != 2:
                raise InvalidInput(f"{self.field}[{index}] is not a pair of texts.", param=self.field)
            for side, text in enumerate(pair):
                check_text(text, f"{self.field}[{index}][{side}]", param=self.field)

    @property
    def size(self) -> int:
        """The number of texts or pairs."""
        return len(self.inputs)

    def nothing(self) -> Classification:
        """Return probabilities of shape (0, 0), without labels."""
        import numpy as np

        none = np.empty((0, 0), dtype=np.float32)
        return Classification((), none, none, 0)

    def _run(self, adapter: Any) -> Classification:
        found: Classification = adapter.classify(self.inputs, truncate=self.truncate)
        return found


@dataclass(frozen=True, slots=True)
class ZeroShot(Operation[Classification]):
    """The probabilities of any labels: each is put to an NLI model as a hypothesis, with the text as its premise.

    The maths are those of transformers' pipeline "zero-shot-classification" (Yin et al. 2019, arXiv:1909.00161).
    """

    texts: Sequence[str]
    labels: Sequence[str]
    template: str = "This example is {}."
    """The hypothesis; a label takes the place of the braces."""
    multi_label: bool = False
    """Each label is judged by itself, against its contradiction; else they share a probability of 1."""
    truncate: bool = True
    """As in `Classify`."""
    field: str = "texts x labels"
    labels_field: str = "labels"
    template_field: str = "template"

    kinds: ClassVar[tuple[str, ...]] = Classify.kinds

    def __post_init__(self) -> None:
        check_texts(self.texts, "texts")
        check_texts(self.labels, self.labels_field)
        if not self.labels or len(set(self.labels)) < len(self.labels):
            name = self.labels_field
            raise InvalidInput(f"{name} must be at least one text, each another one.", param=name)
        check_text(self.template, self.template_field)
        if "{}" not in self.template:
            raise InvalidInput(f"{self.template_field} has no {{}} for the label.", param=self.template_field)

    @property
    def size(self) -> int:
        """The number of pairs that the model reads: each text with each label."""
        return len(self.texts) * len(self.labels)

    def nothing(self) -> Classification:
        """Return probabilities of shape (0, labels)."""
        import numpy as np

        none = np.empty((0, len(self.labels)), dtype=np.float32)
        return Classification(tuple(self.labels), none, none, 0)

    def _run(self, adapter: Any) -> Classification:
        yes, no = entailment(adapter.labels)
        hypotheses = [self.template.replace("{}", label) for label in self.labels]
        pairs = [(text, hypothesis) for text in self.texts for hypothesis in hypotheses]
        found = Classify(pairs, self.truncate, ITEMS)(adapter)
        if found.probabilities is None:
            raise InvalidInput("This model is a regression: it gives numbers and no probabilities.", next_step=_NLI)
        logits = found.logits.reshape(len(self.texts), len(self.labels), -1)
        if self.multi_label or len(self.labels) == 1:
            probabilities = softmax(logits[..., [no, yes]])[..., 1]
        else:
            probabilities = softmax(logits[..., yes])
        return Classification(tuple(self.labels), probabilities, logits[..., yes], found.tokens, found.cut)

    def _name_of(self, index: int) -> str:
        text, label = divmod(index, len(self.labels))
        return f"texts[{text}] with {self.labels_field}[{label}]"


def entailment(labels: Sequence[str]) -> tuple[int, int]:
    """Return the indices of the labels of an NLI model for entailment and for contradiction.

    Where no name begins with "contradict", that is the last one if entailment is the first, else the first: so does
    transformers. Raises InvalidInput where no name begins with "entail", or several do for either.
    """
    names = [label.lower() for label in labels]
    yes, no = (_named(names, word, labels) for word in ("entailment", "contradiction"))
    if yes is None or len(names) < 2:
        raise InvalidInput(
            f"The labels of this model are {', '.join(labels)}: none of them is entailment.",
            next_step=_NLI,
        )
    otherwise = len(names) - 1 if yes == 0 else 0
    return yes, otherwise if no is None else no


def _named(names: list[str], word: str, labels: Sequence[str]) -> int | None:
    """The index of the one name that is `word` or else begins like it; None where there is none."""
    like = [index for index, name in enumerate(names) if name.startswith(_STEMS[word])]
    found = [index for index in like if names[index] == word] or like
    if len(found) > 1:
        raise InvalidInput(
            f"Several labels of this model mean {word}: {', '.join(labels[index] for index in found)}.",
            next_step=_NLI,
        )
    return found[0] if found else None
