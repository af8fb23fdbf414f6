"""Rerankers through sentence-transformers: models that read query and document together and score the pair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.adapters.base.torch_module import TorchAdapter
from engine.adapters.kinds.labels import Labels, check_label_ids
from engine.adapters.text.lengths import in_order_of_length, reading_limit
from engine.adapters.text.texts import truncate_text
from engine.errors import Unavailable
from engine.operations.probability import sigmoid
from engine.operations.rerank import Scores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_RELEVANT: Final = frozenset(
    ("relevant", "positive", "pos", "entailment", "yes", "true", "match", "duplicate", "paraphrase", "equivalent", "1")
)


class RerankAdapter(TorchAdapter):
    """A `CrossEncoder` whose head has one logit, or two labels of which one means relevant."""

    packages = ("torch", "transformers", "sentence_transformers")
    _limit: int | None = None

    def _import_library(self) -> str:
        import sentence_transformers

        return f"sentence-transformers {sentence_transformers.__version__}, {super()._import_library()}"

    def _construct(self, folder: Path) -> Any:
        from sentence_transformers import CrossEncoder

        check_label_ids(folder, self._config.model)
        # "auto" keeps the files' element type, whatever the library's default.
        module = CrossEncoder(
            str(folder),
            device="cpu",
            local_files_only=True,
            trust_remote_code=self._config.trust_remote_code,
            model_kwargs={"dtype": "auto"},
        )
        model = module.transformers_model
        if module.num_labels > 2:
            raise Unavailable(
                f"{self._config.model} tells {module.num_labels} labels apart; a reranker has one or two.",
                next_step='Set kind = "classify" for it, or set `model` to a reranker.',
            )
        module.labels = self._labels(Labels.of(model.config, self._assume))
        self._limit = reading_limit(model, module.tokenizer)
        if self._limit is not None:
            module.max_seq_length = self._limit
        return module.eval()

    def _metadata(self) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens, **({"regression": True} if self._module.labels.regression else {})}

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of query and document together; the longer one is cut."""
        return self._limit

    def score(self, query: str, documents: Sequence[str], *, truncate: bool = True) -> Scores:
        """Return the relevance of each document to the query.

        The score is the sigmoid of a single logit, or the softmax of two labels, also if the model's configuration
        names another activation (the ms-marco models: Identity): a score is a probability, and `raw` holds the values
        that those models themselves give. Of a regression (`problem_type`) the score is the number itself.
        """
        import numpy as np
        import torch
        from sentence_transformers.util import batch_to_device

        module = self._module
        prompt = module.prompts.get(module.default_prompt_name)
        query = truncate_text(query, module.tokenizer, self._limit)
        pairs = [(query, truncate_text(document, module.tokenizer, self._limit)) for document in documents]
        lengths = [len(document) for _, document in pairs]

        def score(size: int) -> tuple[NDArray[np.float32], int]:
            raw, tokens = np.empty(len(pairs), dtype=np.float32), 0
            for batch in in_order_of_length(lengths, size):
                features = module.preprocess([pairs[index] for index in batch], prompt=prompt)
                tokens += int(features["attention_mask"].sum())
                with torch.inference_mode():
                    logits = module(batch_to_device(features, self._device))["scores"].float().cpu().numpy()
                raw[batch] = self._log_odds(logits)
            return raw, tokens

        raw, tokens = self._in_batches(score, len(pairs))
        return Scores(raw.copy() if module.labels.regression else sigmoid(raw), raw, tokens)

    def _log_odds(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        if logits.shape[1] == 1:
            return logits[:, 0]
        labels: Labels = self._module.labels
        yes = _relevant(labels.names)
        yes = 1 if yes is None else yes
        odds: NDArray[np.float32] = logits[:, yes] - (0 if labels.independent else logits[:, 1 - yes])
        return odds

    def _labels(self, labels: Labels) -> Labels:
        """The labels, with a note for the user on what they leave open."""
        if labels.regression and len(labels.names) > 1:
            raise Unavailable(
                f"{self._config.model} is a regression of {len(labels.names)} numbers; a reranker has one.",
                next_step='Set kind = "classify" for it, or set `model` to a reranker.',
            )
        if labels.regression:
            self._assume(
                "It is a regression by its problem_type: its scores are its own numbers and no probabilities, and a "
                "threshold is compared with these."
            )
        elif len(labels.names) == 2 and _relevant(labels.names) is None:
            self._assume(f"Its labels are {' and '.join(labels.names)}: the second is taken to mean relevant.")
        return labels


def _relevant(names: Sequence[str]) -> int | None:
    """The position of the one label whose name means relevant; None where there is no such one."""
    named = [index for index, name in enumerate(names) if name.lower() in _RELEVANT]
    return named[0] if len(named) == 1 else None
