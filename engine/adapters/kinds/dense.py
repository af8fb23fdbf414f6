"""Dense encoders through sentence-transformers: one vector per text, pooled and normalised as configured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.adapters.base.dimensions import check_dimensions, truncated
from engine.adapters.kinds.in_one_type import read_in_one_type
from engine.adapters.kinds.sentence import SentenceAdapter
from engine.adapters.text.rows import Features
from engine.operations.dense import Encoding

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class DenseAdapter(SentenceAdapter):
    """A `SentenceTransformer`."""

    def _construct(self, folder: Path) -> Any:
        from sentence_transformers import SentenceTransformer

        trusted = self._config.trust_remote_code
        model = read_in_one_type(SentenceTransformer, folder, trust_remote_code=trusted)
        _bound_before_normalizing(model)
        return self._ready(model, folder)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self._module.get_embedding_dimension())

    def encode(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        *,
        task: str | None = None,
        dimensions: int | None = None,
        truncate: bool = True,
    ) -> Encoding:
        """Return one vector per text, or per list of this model's own token ids.

        `task` is `query` or `passage`: the text gets the model's own prompt for it; ids have it already, as `tokenize`
        returns them. `dimensions` keeps the leading ones and normalises again (Matryoshka). Raises
        InvalidInput.
        """
        import numpy as np

        check_dimensions(dimensions, self.dimension, self._config.name)
        kwargs = self._task(task)

        def forward(features: Features) -> torch.Tensor:
            pooled: torch.Tensor = self._module(features, **kwargs)["sentence_embedding"]
            return pooled[:, : self._module.truncate_dim]

        def finish(pooled: torch.Tensor) -> list[NDArray[np.float32]]:
            return list(pooled.float().cpu().numpy())

        nothing = np.zeros(self.dimension, dtype=np.float32)
        rows, tokens, cut = self._each(inputs, task, forward, finish, nothing=nothing, truncate=truncate)
        vectors = np.stack(rows) if rows else np.empty((0, self.dimension), dtype=np.float32)
        return Encoding(truncated(vectors, dimensions), tokens, cut)


def _bound_before_normalizing(model: Any) -> None:
    """Let the model bring vectors to length 1 whose length is no number of their element type.

    The library divides them by infinity, which gives zeros; in half precision 65,504 is the largest length.
    """
    from sentence_transformers.sentence_transformer.modules import Normalize

    def bound(part: Any, args: tuple[Features, ...]) -> None:
        import torch

        features, name = args[0], getattr(part, "module_input_name", "sentence_embedding")
        vectors: torch.Tensor | None = features.get(name)
        if vectors is not None:
            largest = vectors.abs().amax(dim=-1, keepdim=True)
            too_long = vectors.norm(dim=-1, keepdim=True).isinf()
            features[name] = torch.where(too_long, vectors / largest, vectors)

    for part in model.modules():
        if isinstance(part, Normalize):
            part.register_forward_pre_hook(bound)
