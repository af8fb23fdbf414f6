"""Small models of kind multi, laid out as BGE-M3's own repository: an XLM-RoBERTa and two linear heads beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from small_models import DIMENSION, Dtype, xlm_roberta

TOKEN_DIMENSION = 48
"""What the ColBERT head makes of 64; BGE-M3 itself keeps the dimension."""


def m3(
    folder: Path,
    *,
    dtype: Dtype = "float32",
    heads: Dtype | None = None,
    layout: Literal["safetensors", "pickled"] = "safetensors",
    seed: int = 0,
) -> Path:
    """Write a model with two layers into `folder` and return it; its heads are in `heads`, else in `dtype` too.

    `pickled` is what BGE-M3's repository holds: pytorch_model.bin, sparse_linear.pt and colbert_linear.pt.
    """
    import torch

    xlm_roberta(folder, dtype=dtype, layout="bin" if layout == "pickled" else "safetensors", seed=seed)
    kind: Any = getattr(torch, heads or dtype)
    write_head(folder, "sparse_linear", torch.nn.Linear(DIMENSION, 1, dtype=kind), layout)
    write_head(folder, "colbert_linear", torch.nn.Linear(DIMENSION, TOKEN_DIMENSION, dtype=kind), layout)
    return folder


def write_head(folder: Path, name: str, head: Any, layout: str = "safetensors") -> None:
    """Write the weights of a `torch.nn.Linear` beside the body."""
    import torch
    from safetensors.torch import save_file

    if layout == "pickled":
        torch.save(head.state_dict(), folder / f"{name}.pt")
    else:
        save_file(head.state_dict(), folder / f"{name}.safetensors")
