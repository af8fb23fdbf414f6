"""Classifiers through transformers: the probabilities of a model's own labels for a text or a pair of texts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.adapters.base.torch_module import TorchAdapter
from engine.adapters.kinds.labels import Labels, check_label_ids
from engine.adapters.text.lengths import in_order_of_length, reading_limit
from engine.adapters.text.texts import truncate_text
from engine.operations.classify import Classification, Inputs
from engine.operations.probability import sigmoid, softmax

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ClassifyAdapter(TorchAdapter):
    """An `AutoModelForSequenceClassification` and its tokenizer."""

    _limit: int | None = None
    _reads: frozenset[str] = frozenset()
    """Names of the tokenizer's features that the model takes."""

    def _construct(self, folder: Path) -> Any:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        check_label_ids(folder, self._config.model)
        trusted = {"local_files_only": True, "trust_remote_code": self._config.trust_remote_code}
        # "auto" keeps the files' element type, whatever the library's default.
        model = AutoModelForSequenceClassification.from_pretrained(str(folder), dtype="auto", **trusted)
        # In the module, so that `unload` drops it with everything else.
        model.tokenizer = AutoTokenizer.from_pretrained(str(folder), **trusted)
        model.labels = Labels.of(model.config, self._assume)
        if model.labels.regression:
            self._assume("It is a regression by its problem_type, so its answers are numbers and no probabilities.")
        self._limit = reading_limit(model, model.tokenizer)
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
        return self._limit

    def classify(self, inputs: Inputs, *, truncate: bool = True) -> Classification:
        """Return the probability of each label: softmax, or sigmoid for one logit and for independent labels.

        A regression has none, and the logits are its answer.
        """
        import numpy as np
        import torch

        short = cache(lambda text: truncate_text(text, self._module.tokenizer, self._limit))
        rows = [(short(item),) if isinstance(item, str) else tuple(map(short, item)) for item in inputs]
        lengths = [sum(map(len, row)) for row in rows]

        def classify(size: int) -> tuple[NDArray[np.float32], int]:
            logits, tokens = np.empty((len(rows), self._module.config.num_labels), dtype=np.float32), 0
            for batch in in_order_of_length(lengths, size):
                features = self._features([rows[index] for index in batch])
                tokens += int(features["attention_mask"].sum())
                known = {key: value.to(self._device) for key, value in features.items() if key in self._reads}
                with torch.inference_mode():
                    logits[batch] = self._module(**known).logits.float().cpu().numpy()
            return logits, tokens

        logits, tokens = self._in_batches(classify, len(rows))
        return Classification(self.labels, self._probabilities(logits), logits, tokens)

    def _features(self, rows: Sequence[tuple[str, ...]]) -> Any:
        columns = [list(column) for column in zip(*rows, strict=True)]
        cut = {"truncation": self._limit is not None, "max_length": self._limit}
        return self._module.tokenizer(*columns, padding=True, return_tensors="pt", **cut)

    def _probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32] | None:
        labels: Labels = self._module.labels
        if labels.regression:
            return None
        return sigmoid(logits) if labels.independent else softmax(logits)
