"""Classifiers through transformers: the probabilities of a model's own labels for a text or a pair of texts."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.adapters.base.text_adapter import TextAdapter
from engine.adapters.kinds.labels import Labels, check_label_ids
from engine.adapters.sources.element_type import element_type
from engine.adapters.text.reader import Reader, reader_of, tell_padding
from engine.adapters.text.rows import Features, Limit
from engine.operations.classify import Classification, Inputs
from engine.operations.probability import sigmoid, softmax

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class ClassifyAdapter(TextAdapter):
    """An `AutoModelForSequenceClassification` and its tokenizer."""

    _reads: frozenset[str] = frozenset()
    """Names of the tokenizer's features that the model takes."""

    def _construct(self, folder: Path) -> Any:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        check_label_ids(folder, self._config.model)
        trusted = {"local_files_only": True, "trust_remote_code": self._config.trust_remote_code}
        dtype = element_type(folder)
        model = AutoModelForSequenceClassification.from_pretrained(str(folder), dtype=dtype, **trusted)
        # In the module, so that `unload` drops it with everything else.
        model.tokenizer = AutoTokenizer.from_pretrained(str(folder), **trusted)
        model.labels = Labels.of(model.config, self._assume)
        if model.labels.regression:
            self._assume("It is a regression by its problem_type, so its answers are numbers and no probabilities.")
        tell_padding(model, model.tokenizer)
        model.reader = reader_of(model, model.tokenizer, asked=self._config.max_tokens)
        self._reads = frozenset(inspect.signature(model.forward).parameters)
        return model.eval()

    def _metadata(self) -> dict[str, Any]:
        more = {"regression": True} if self._module.labels.regression else {}
        return {"labels": list(self.labels), "max_tokens": self.max_tokens, **more}

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's own labels, in its order, no name twice."""
        labels: Labels = self._module.labels
        return labels.names

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of a text, or of a pair together, of which the longer one is cut."""
        reader: Reader = self._module.reader
        return reader.limit

    def classify(self, inputs: Inputs, *, truncate: bool = True) -> Classification:
        """Return the probability of each label: softmax, or sigmoid for one logit and for independent labels.

        A regression has none, and the logits are its answer.
        """
        import numpy as np

        reader: Reader = self._module.reader
        limit = Limit(self._config.name, reader.limit, truncate, reader.vocabulary)
        rows = reader.rows([item if isinstance(item, str) else tuple(item) for item in inputs], limit)

        def forward(features: Features) -> torch.Tensor:
            known = {key: value for key, value in features.items() if key in self._reads}
            logits: torch.Tensor = self._module(**known).logits
            return logits

        def finish(logits: torch.Tensor, *_: Any) -> list[NDArray[np.float32]]:
            return list(logits.float().cpu().numpy())

        found = self._compute(rows, reader.company, forward, finish)
        logits = np.stack(found) if found else np.empty((0, len(self.labels)), dtype=np.float32)
        return Classification(self.labels, self._probabilities(logits), logits, rows.tokens, rows.cut)

    def _probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32] | None:
        labels: Labels = self._module.labels
        if labels.regression:
            return None
        return sigmoid(logits) if labels.independent else softmax(logits)
