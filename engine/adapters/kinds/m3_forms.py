"""The forms of a text, from the outputs of BGE-M3's heads for each token.

Source: Chen et al., "M3-Embedding", 2024, arXiv 2402.03216, section 3.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.adapters.text.written import written
from engine.operations.sparse import SparseVector

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import ArrayLike, NDArray


def heaviest(ids: ArrayLike, weights: NDArray[np.float32], tokenizer: Any, top_k: int | None) -> SparseVector:
    """Return the largest weight of each of a text's `ids`, from `weights` of shape (tokens,).

    Special tokens and weights of 0 are left out; of equal weights the lower id comes first.
    """
    import numpy as np

    found, where = np.unique(np.asarray(ids, dtype=np.int32), return_inverse=True)
    most = np.zeros(len(found), dtype=np.float32)
    with np.errstate(invalid="ignore"):
        np.maximum.at(most, where, weights)
    special = (
        tokenizer.cls_token_id, tokenizer.bos_token_id, tokenizer.sep_token_id, tokenizer.eos_token_id,
        tokenizer.pad_token_id, tokenizer.unk_token_id,
    )  # fmt: skip
    most[np.isin(found, [one for one in special if one is not None])] = 0
    # NaN counts as the heaviest, so that it is kept and refused.
    rank = np.where(np.isnan(most), np.inf, most)
    order = np.argsort(-rank, kind="stable")[: np.count_nonzero(rank)][:top_k]
    return SparseVector(found[order], most[order], written(found[order].tolist(), tokenizer))


def split(flat: NDArray[np.float32], lengths: torch.Tensor) -> list[NDArray[np.float32]]:
    """Return the rows of a batch by text; `lengths`, (n,), has the number of rows of each.

    They are copies, so that no text keeps its whole batch in memory.
    """
    import numpy as np

    ends = np.cumsum(lengths.cpu().numpy())
    return [part.copy() for part in np.split(flat, ends[:-1])]
