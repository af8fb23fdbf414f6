"""Dense encoders through sentence-transformers: one vector per text, pooled and normalised as the model says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.adapters.texts import count_tokens, shortened
from engine.adapters.torch_adapter import TorchAdapter
from engine.errors import InvalidInput
from engine.operations.dense import Encoding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DenseAdapter(TorchAdapter):
    """A `SentenceTransformer`."""

    packages = ("torch", "transformers", "sentence_transformers")

    def _import_library(self) -> str:
        import sentence_transformers
        import transformers
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        return f"sentence-transformers {sentence_transformers.__version__}, transformers {transformers.__version__}"

    def _construct(self, folder: Path) -> Any:
        from sentence_transformers import SentenceTransformer

        # "auto" keeps the files' element type, whatever the library's default.
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": "auto"})
        return model.eval()

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self._module.get_embedding_dimension())

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of one text; the rest is cut off."""
        limit = self._module.max_seq_length
        return None if limit is None else int(limit)

    def encode(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        *,
        task: str | None = None,
        dimensions: int | None = None,
    ) -> Encoding:
        """Return one vector per text, or per list of this model's own token ids.

        `task` is `query` or `passage`: the text gets the model's own prompt for it. `dimensions` keeps the leading ones
        and normalises again (Matryoshka). Raises InvalidInput.
        """
        if dimensions is not None and not 1 <= dimensions <= self.dimension:
            raise InvalidInput(
                f"dimensions is {dimensions}, but {self._config.name} has {self.dimension}.",
                param="dimensions",
                next_step=f"Ask for 1 to {self.dimension}, or leave it out.",
            )
        if inputs and not isinstance(inputs[0], str):
            ids = [self._checked_ids(item, index) for index, item in enumerate(inputs)]
            vectors, tokens = self._encode_ids(ids), sum(map(len, ids))
        else:
            tokenizer = self._module.tokenizer
            texts = [shortened(str(text), tokenizer, self.max_tokens) for text in inputs]
            vectors, tokens = self._encode_texts(texts, task), count_tokens(texts, tokenizer, self.max_tokens)
        if dimensions is not None:
            vectors = _truncated(vectors, dimensions)
        return Encoding(vectors, tokens)

    def _encode_texts(self, texts: list[str], task: str | None) -> NDArray[np.float32]:
        import numpy as np

        def encode(size: int) -> Any:
            return self._module.encode(texts, batch_size=size, show_progress_bar=False, convert_to_numpy=True)

        vectors: NDArray[np.float32] = np.asarray(self._in_batches(encode, len(texts)), dtype=np.float32)
        return vectors

    def _encode_ids(self, ids: list[list[int]]) -> NDArray[np.float32]:
        import numpy as np

        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
        vectors: list[Any] = [None] * len(ids)

        def encode(size: int) -> None:
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                for index, vector in zip(batch, self._forward([ids[index] for index in batch]), strict=True):
                    vectors[index] = vector

        self._in_batches(encode, len(ids))
        return np.stack(vectors)

    def _forward(self, ids: list[list[int]]) -> NDArray[np.float32]:
        import torch

        features = self._module.tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        with torch.inference_mode():
            output = self._module({key: value.to(self._device) for key, value in features.items()})
        vectors: NDArray[np.float32] = output["sentence_embedding"].float().cpu().numpy()
        return vectors

    def _checked_ids(self, ids: object, index: int) -> list[int]:
        """The ids with the model's begin and end tokens, cut to what it reads."""
        tokenizer = self._module.tokenizer
        size = len(tokenizer)
        if not isinstance(ids, Sequence) or not ids or not all(type(i) is int and 0 <= i < size for i in ids):
            raise InvalidInput(
                f"input[{index}] holds token ids outside 0 to {size - 1}, or none: these ids are of another tokenizer.",
                param="input",
                next_step="Send text. A client that tokenizes for OpenAI must be told not to "
                "(langchain: check_embedding_ctx_length=False).",
            )
        first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
        inner = list(ids[1:] if ids[0] == first else ids)
        if inner and inner[-1] == last:
            inner = inner[:-1]
        before, after = [t for t in (first,) if t is not None], [t for t in (last,) if t is not None]
        room = None if self.max_tokens is None else self.max_tokens - len(before) - len(after)
        return before + inner[:room] + after


def _truncated(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    import numpy as np

    kept = vectors[:, :dimensions]
    norms = np.linalg.norm(kept, axis=1, keepdims=True)
    result: NDArray[np.float32] = kept / np.maximum(norms, np.finfo(np.float32).tiny)
    return result
