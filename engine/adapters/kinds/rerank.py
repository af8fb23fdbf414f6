"""Rerankers through sentence-transformers: models that read query and document together and score the pair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.adapters.base.torch_module import TorchAdapter
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
        self._limit = reading_limit(model, module.tokenizer)
        if self._limit is not None:
            module.max_seq_length = self._limit
        return module.eval()

    def _metadata(self) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens}

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of query and document together; the longer one is cut."""
        return self._limit

    def score(self, query: str, documents: Sequence[str], *, truncate: bool = True) -> Scores:
        """Return the relevance of each document to the query.

        The score is the sigmoid of a single logit, or the softmax of two labels, also if the model's configuration
        names another activation (the ms-marco models: Identity): a score is a probability for every model, and `raw`
        holds the values that those models themselves give.
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
        return Scores(sigmoid(raw), raw, tokens)

    def _log_odds(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        if logits.shape[1] == 1:
            return logits[:, 0]
        yes = _relevant(self._module.config.id2label)
        odds: NDArray[np.float32] = logits[:, yes] - logits[:, 1 - yes]
        return odds


def _relevant(labels: dict[int, str]) -> int:
    """The index of the label that means relevant: the one with such a name, else the second."""
    named = [index for index, label in labels.items() if str(label).lower() in _RELEVANT]
    return named[0] if len(named) == 1 else 1
