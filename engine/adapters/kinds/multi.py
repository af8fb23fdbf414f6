"""Encoders with several forms of one text at once: the body through transformers, the heads from the paper.

Source: Chen et al., "M3-Embedding", 2024, arXiv 2402.03216, section 3.2, and BAAI's BGE-M3, whose files these are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.adapters.base.dimensions import check_dimensions, truncated
from engine.adapters.base.torch_module import TorchAdapter
from engine.adapters.kinds.m3_folder import read_head, require_heads, sentence_limit
from engine.adapters.kinds.m3_forms import heaviest, split, unit
from engine.adapters.text.ids import checked_ids, framed_ids, plain_ids
from engine.adapters.text.lengths import reading_limit
from engine.adapters.text.texts import tokenizer_digest, truncate_text
from engine.operations.dense import Encoding
from engine.operations.multi import MultiEncoding
from engine.operations.sparse import SparseEncoding

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

_BATCH_TOKENS: Final = 16384
"""Tokens per forward, padding included: two of the longest texts that BGE-M3 reads."""


class MultiAdapter(TorchAdapter):
    """A transformers encoder `body`, and the linear heads `sparse_linear` and `colbert_linear`."""

    def _construct(self, folder: Path) -> Any:
        import torch
        from transformers import AutoModel, AutoTokenizer

        require_heads(folder, self._config)
        trusted = {"local_files_only": True, "trust_remote_code": self._config.trust_remote_code}
        # "auto" keeps the files' element type, whatever the library's default.
        body = AutoModel.from_pretrained(str(folder), dtype="auto", **trusted)
        # No form uses its output, which is of the first token.
        body.pooler = None
        module = torch.nn.Module()
        module.body = body
        module.sparse_linear = read_head(folder, "sparse_linear", body, rows=1)
        module.colbert_linear = read_head(folder, "colbert_linear", body)
        module.tokenizer = tokenizer = AutoTokenizer.from_pretrained(str(folder), **trusted)
        tokenizer.model_max_length = sentence_limit(folder) or tokenizer.model_max_length
        module.max_tokens = reading_limit(body, tokenizer)
        module.tokenizer_key = None
        return module.eval()

    def _metadata(self) -> dict[str, Any]:
        colbert = int(self._module.colbert_linear.out_features)
        return {"dimension": self.dimension, "colbert_dimension": colbert, "max_tokens": self.max_tokens}

    @property
    def dimension(self) -> int:
        """Length of the dense vectors."""
        return int(self._module.body.config.hidden_size)

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of one text, special ones included; the rest is cut off."""
        limit: int | None = self._module.max_tokens
        return limit

    @property
    def tokenizer_key(self) -> str | None:
        """A digest; adapters with equal ones give equal ids in `tokenize`. None = unknown."""
        if self._module.tokenizer_key is None:
            self._module.tokenizer_key = (tokenizer_digest(self._module.tokenizer),)
        key: str | None = self._module.tokenizer_key[0]
        return key

    def tokenize(self, text: str, task: str | None = None) -> list[int]:
        """Return the ids of `text` without special tokens, uncut, for `encode`; `task` changes nothing.

        A very long text gives only somewhat more ids than the model reads; one that must be sent as text gives none, as
        in `plain_ids`.
        """
        return plain_ids(text, self._module.tokenizer, self.max_tokens)

    def encode_multi(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        *,
        want: Collection[str],
        top_k: int | None = None,
        truncate: bool = True,
    ) -> MultiEncoding:
        """Return those of `dense`, `sparse` and `colbert` that are wanted, from one pass through the body.

        The inputs are texts, or lists of this model's own token ids. Raises InvalidInput.
        """
        return self._encode(self._ids(inputs), want, top_k)

    def encode(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        *,
        task: str | None = None,
        dimensions: int | None = None,
        truncate: bool = True,
    ) -> Encoding:
        """Return one vector per text, or per list of this model's own token ids; no head runs.

        `task` changes nothing: these models have no prompts. `dimensions` keeps the leading ones and normalises again
        (Matryoshka). Raises InvalidInput.
        """
        check_dimensions(dimensions, self.dimension, self._config.name)
        found = self._encode(self._ids(inputs), ("dense",), None)
        assert found.dense is not None  # noqa: S101 - it was wanted
        return Encoding(truncated(found.dense, dimensions), found.tokens)

    def encode_sparse(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        *,
        task: str | None = None,
        top_k: int | None = 128,
        truncate: bool = True,
    ) -> SparseEncoding:
        """Return the `top_k` heaviest tokens (None = all) of each text or list of token ids; `task` changes nothing."""
        found = self._encode(self._ids(inputs), ("sparse",), top_k)
        assert found.sparse is not None  # noqa: S101 - it was wanted
        return SparseEncoding(found.sparse, found.tokens)

    def _ids(self, inputs: Sequence[str] | Sequence[Sequence[int]]) -> list[list[int]]:
        """The ids that the model reads of each input, its begin and end tokens included."""
        tokenizer, limit = self._module.tokenizer, self.max_tokens
        if not inputs:
            return []
        if not isinstance(inputs[0], str):
            checked = [checked_ids(item, index, len(tokenizer)) for index, item in enumerate(inputs)]
            begin, end = ([one] if one is not None else [] for one in (tokenizer.cls_token_id, tokenizer.sep_token_id))
            at_the_left = tokenizer.truncation_side == "left"
            return [framed_ids(one, begin, end, limit, at_the_left=at_the_left) for one in checked]
        texts = [truncate_text(str(text), tokenizer, limit) for text in inputs]
        encoded = tokenizer(texts, truncation=limit is not None, max_length=limit, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _encode(self, ids: list[list[int]], want: Collection[str], top_k: int | None) -> MultiEncoding:
        import numpy as np

        longest_first = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
        dense: list[Any] = [None] * len(ids)
        sparse: list[Any] = [None] * len(ids)
        colbert: list[Any] = [None] * len(ids)

        def encode(size: int) -> None:
            for batch in _batches(longest_first, ids, size):
                rows = [ids[index] for index in batch]
                hidden, real = self._hidden(rows)
                if "dense" in want:
                    for index, vector in zip(batch, self._dense(hidden), strict=True):
                        dense[index] = vector
                if "sparse" in want:
                    for index, row, weights in zip(batch, rows, self._token_weights(hidden, real), strict=True):
                        sparse[index] = heaviest(row, weights, self._module.tokenizer, top_k)
                if "colbert" in want:
                    for index, vectors in zip(batch, self._token_vectors(hidden, real), strict=True):
                        colbert[index] = vectors

        if ids:
            self._in_batches(encode, len(ids))
        return MultiEncoding(
            (np.stack(dense) if ids else np.empty((0, self.dimension), np.float32)) if "dense" in want else None,
            tuple(sparse) if "sparse" in want else None,
            tuple(colbert) if "colbert" in want else None,
            sum(map(len, ids)),
        )

    def _hidden(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """The body's last hidden states (n, longest, d), and a mask of those that are no padding (n, longest)."""
        import torch

        padding = self._module.tokenizer.pad_token_id or 0
        longest = max(map(len, rows))
        ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
        real = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        ids, real = ids.to(self._device), real.to(self._device)
        with torch.inference_mode():
            hidden = self._module.body(input_ids=ids, attention_mask=real.long()).last_hidden_state
        return hidden, real

    def _dense(self, hidden: torch.Tensor) -> NDArray[np.float32]:
        """The first token's state, of length 1: (n, d)."""
        return unit(hidden[:, 0])

    def _token_weights(self, hidden: torch.Tensor, real: torch.Tensor) -> list[NDArray[np.float32]]:
        """The weight of each token of each text, relu(W h + b): (tokens,) each."""
        import torch

        with torch.inference_mode():
            weights = torch.relu(self._module.sparse_linear(hidden[real]).squeeze(-1))
        return split(weights.float().cpu().numpy(), real.sum(1))

    def _token_vectors(self, hidden: torch.Tensor, real: torch.Tensor) -> list[NDArray[np.float32]]:
        """W h + b for every token but the first, of length 1: (tokens - 1, d) each."""
        import torch

        real = real[:, 1:]
        with torch.inference_mode():
            projected = self._module.colbert_linear(hidden[:, 1:][real])
        return split(unit(projected), real.sum(1))


def _batches(order: list[int], ids: list[list[int]], size: int) -> Iterator[list[int]]:
    """Parts of `order`, which is by falling length, of `size` inputs at most, fewer where they are long."""
    begin = 0
    while begin < len(order):
        fitting = max(1, _BATCH_TOKENS // len(ids[order[begin]]))
        yield order[begin : begin + min(size, fitting)]
        begin += min(size, fitting)
