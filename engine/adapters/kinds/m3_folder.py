"""The heads of a model like BGE-M3, read from files of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import LoadFailed


def read_head(folder: Path, name: str, body: Any, rows: int | None = None) -> Any:
    """Return a head as a `torch.nn.Linear` in the element type of `body`, from `weight` and perhaps `bias` in its file.

    `rows` is how many outputs it must have, None for any. Raises LoadFailed for weights of another shape.
    """
    import torch
    from safetensors.torch import load_file

    weights = load_file(folder / f"{name}.safetensors")
    width = int(body.config.hidden_size)
    shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    rows = rows or next(iter(shapes.get("weight", ())), 0)
    if shapes not in ({"weight": (rows, width)}, {"weight": (rows, width), "bias": (rows,)}):
        found = ", ".join(f"{key} {list(shape)}" for key, shape in sorted(shapes.items())) or "nothing"
        raise LoadFailed(
            f"{name} holds {found}; for this model it must hold weight {[rows, width]} and bias {[rows]}.",
            next_step="Fetch the file again: it belongs to another model or is damaged.",
        )
    # The body's element type, which is not narrower than that of the file.
    head = torch.nn.Linear(width, rows, bias="bias" in weights, dtype=body.dtype)
    head.load_state_dict(weights)
    return head
