"""Sparse encoders through sentence-transformers: the weight of each token of a vocabulary for a text (SPLADE)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.adapters.kinds.in_one_type import read_in_one_type
from engine.adapters.kinds.sentence import SentenceAdapter
from engine.adapters.text.rows import Features
from engine.adapters.text.written import written
from engine.operations.sparse import SparseEncoding, SparseVector

if TYPE_CHECKING:
    import torch

_LOGITS_BYTES: Final = 256 * 1024**2
"""Bytes of float32 logits at once; without a limit 32 texts of 512 tokens over 30,000 tokens take 2 GB."""


class SparseAdapter(SentenceAdapter):
    """A `SparseEncoder`."""

    def _construct(self, folder: Path) -> Any:
        from sentence_transformers import SparseEncoder

        trusted = self._config.trust_remote_code
        return self._ready(read_in_one_type(SparseEncoder, folder, trust_remote_code=trusted), folder)

    @property
    def _dimension(self) -> int | None:
        # Before its first use the library returns the width of the hidden layers.
        body = None if _has_latents(self._module) else self._module.transformers_model
        return super()._dimension if body is None else getattr(body.config, "vocab_size", None)

    def encode_sparse(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        *,
        task: str | None = None,
        top_k: int = 128,
        truncate: bool = True,
    ) -> SparseEncoding:
        """Return the `top_k` heaviest tokens of each text, or of each list of this model's own token ids.

        `task` is `query` or `passage`: the text gets the model's own prompt for it and the model's own route, which for
        queries may be a mere table of weights. Ids have the prompt already, as `tokenize` returns them. Raises
        InvalidInput.
        """
        most = self._module.max_active_dims
        kwargs = self._task(task) | ({} if most is None else {"max_active_dims": most})
        count = top_k if most is None else min(top_k, most)

        def forward(features: Features) -> torch.Tensor:
            weights: torch.Tensor = self._module(features, **kwargs)["sentence_embedding"]
            return weights

        # Logits of all tokens over the whole vocabulary may take hundreds of megabytes.
        vectors, tokens, cut = self._each(
            inputs,
            task,
            forward,
            lambda weights: self._vectors(weights, count),
            nothing=self._no_vector(),
            truncate=truncate,
            tokens=max(1, _LOGITS_BYTES // (4 * (self._dimension or 1))),
        )
        return SparseEncoding(tuple(vectors), tokens, cut)

    def _vectors(self, weights: torch.Tensor, count: int) -> list[SparseVector]:
        import numpy as np

        heaviest, ids = weights.float().topk(min(count, weights.shape[1]))
        found = []
        for row, indices in zip(heaviest.cpu().numpy(), ids.cpu().numpy().astype(np.int32), strict=True):
            # NaN counts as the heaviest, as for torch, so that it is kept and refused.
            rank = np.where(np.isnan(row), np.inf, row)
            order = np.lexsort((indices, -rank))[: np.count_nonzero(rank > 0)]
            kept = indices[order]
            found.append(SparseVector(kept, row[order], self._written(kept.tolist())))
        return found

    @staticmethod
    def _no_vector() -> SparseVector:
        import numpy as np

        return SparseVector(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32), ())

    def _written(self, ids: list[int]) -> tuple[str, ...]:
        """The tokens of `ids` as the vocabulary writes them; for latents, which have no text, their numbers."""
        if _has_latents(self._module):
            return tuple(map(str, ids))
        return written(ids, self._module.tokenizer)


def _has_latents(model: Any) -> bool:
    """Whether the weights are of latents that an autoencoder has learned (CSR), and not of tokens."""
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    return any(isinstance(module, SparseAutoEncoder) for module in model)
