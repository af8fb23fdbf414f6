"""Encoders with several forms of one text at once: the body through transformers, the heads from the paper.

Source: Chen et al., "M3-Embedding", 2024, arXiv 2402.03216, section 3.2, and BAAI's BGE-M3, whose files these are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.adapters.base.dimensions import check_dimensions, truncated
from engine.adapters.base.text_adapter import TextAdapter
from engine.adapters.kinds.m3_folder import read_head
from engine.adapters.kinds.m3_forms import heaviest, split
from engine.adapters.sources.element_type import element_type
from engine.adapters.text.ids import plain_ids, rows_of_ids, text_ids
from engine.adapters.text.limits import limit_in
from engine.adapters.text.reader import Reader, reader_of
from engine.adapters.text.rows import IDS, MASK, Features, Limit, Rows
from engine.adapters.text.texts import tokenizer_digest
from engine.operations.dense import Encoding
from engine.operations.multi import MultiEncoding
from engine.operations.sparse import SparseEncoding, SparseVector
from engine.operations.unit import unit

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class MultiAdapter(TextAdapter):
    """A transformers encoder `body`, and the linear heads `sparse_linear` and `colbert_linear`."""

    def _construct(self, folder: Path) -> Any:
        import torch
        from transformers import AutoModel, AutoTokenizer

        trusted = {"local_files_only": True, "trust_remote_code": self._config.trust_remote_code}
        # Of the body and the heads together, because they compute in one type: BGE-M3's own differ.
        dtype = element_type(folder, heads=True)
        body = AutoModel.from_pretrained(str(folder), dtype=dtype, **trusted)
        # No form uses its output, which is of the first token.
        body.pooler = None
        module = torch.nn.Module()
        module.body = body
        module.sparse_linear = read_head(folder, "sparse_linear", body, rows=1)
        module.colbert_linear = read_head(folder, "colbert_linear", body)
        module.tokenizer = tokenizer = AutoTokenizer.from_pretrained(str(folder), **trusted)
        said = limit_in(folder / "sentence_bert_config.json")
        module.reader = reader_of(body, tokenizer, asked=self._config.max_tokens, said=said)
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
        limit: int = self._module.reader.limit
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
        return self._encode(inputs, want, top_k, truncate=truncate)

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
        found = self._encode(inputs, ("dense",), None, truncate=truncate)
        assert found.dense is not None  # noqa: S101 - it was wanted
        return Encoding(truncated(found.dense, dimensions), found.tokens, found.cut)

    def encode_sparse(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        *,
        task: str | None = None,
        top_k: int | None = 128,
        truncate: bool = True,
    ) -> SparseEncoding:
        """Return the `top_k` heaviest tokens (None = all) of each text or list of token ids; `task` changes nothing."""
        found = self._encode(inputs, ("sparse",), top_k, truncate=truncate)
        assert found.sparse is not None  # noqa: S101 - it was wanted
        return SparseEncoding(found.sparse, found.tokens, found.cut)

    def _rows(self, inputs: Sequence[str] | Sequence[Sequence[int]], *, truncate: bool) -> Rows:
        """The ids that the model reads of each input, its begin and end tokens included."""
        reader: Reader = self._module.reader
        limit = Limit(self._config.name, reader.limit, truncate, reader.vocabulary)
        if not inputs or isinstance(inputs[0], str):
            return reader.rows([str(text) for text in inputs], limit)
        frame, letter = reader.rows(["a"], Limit("", None)), text_ids("a", reader.tokenizer, None)
        return rows_of_ids(inputs, frame, letter, reader.tokenizer, limit)

    def _encode(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        want: Collection[str],
        top_k: int | None,
        *,
        truncate: bool,
    ) -> MultiEncoding:
        import numpy as np

        rows = self._rows(inputs, truncate=truncate)
        # Also where the tokenizer gives none: the body was trained with a mask.
        rows.masked = True

        def forward(features: Features) -> torch.Tensor:
            hidden: torch.Tensor = self._module.body(
                input_ids=features[IDS], attention_mask=features[MASK]
            ).last_hidden_state
            return hidden

        def finish(hidden: torch.Tensor, batch: list[int], features: Features) -> list[tuple[Any, Any, Any]]:
            real = features[MASK].bool()
            nothing: list[Any] = [None] * len(batch)
            return list(
                zip(
                    self._dense(hidden, real) if "dense" in want else nothing,
                    self._sparse(hidden, real, [rows.rows[i][IDS] for i in batch], top_k)
                    if "sparse" in want
                    else nothing,
                    self._token_vectors(hidden, real) if "colbert" in want else nothing,
                    strict=True,
                )
            )

        found = self._compute(rows, self._module.reader.company, forward, finish)
        dense, sparse, colbert = zip(*found, strict=True) if found else ((), (), ())
        return MultiEncoding(
            (np.stack(dense) if dense else np.empty((0, self.dimension), np.float32)) if "dense" in want else None,
            sparse if "sparse" in want else None,
            colbert if "colbert" in want else None,
            rows.tokens,
            rows.cut,
        )

    def _dense(self, hidden: torch.Tensor, real: torch.Tensor) -> NDArray[np.float32]:
        """The first token's state, of length 1: (n, d)."""
        import torch

        return unit(hidden[torch.arange(len(hidden), device=hidden.device), real.long().argmax(1)].float().cpu())

    def _sparse(
        self, hidden: torch.Tensor, real: torch.Tensor, ids: list[NDArray[np.int64]], top_k: int | None
    ) -> list[SparseVector]:
        """The heaviest tokens of each text, by relu(W h + b)."""
        import torch

        weights = torch.relu(self._module.sparse_linear(hidden[real]).squeeze(-1))
        each = split(weights.float().cpu().numpy(), real.sum(1))
        return [heaviest(row, own, self._module.tokenizer, top_k) for row, own in zip(ids, each, strict=True)]

    def _token_vectors(self, hidden: torch.Tensor, real: torch.Tensor) -> list[NDArray[np.float32]]:
        """W h + b for every token but the first, of length 1: (tokens - 1, d) each."""
        rest = real & (real.long().cumsum(1) > 1)
        return split(unit(self._module.colbert_linear(hidden[rest]).float().cpu()), rest.sum(1))
