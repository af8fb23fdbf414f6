"""What stands in a module on a device in place of weights that are not there now."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def placeholder(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor that looks like `tensor` on `device`, takes no memory there, and refuses to be computed with.

    Libraries look at the device of a module's parameters, and move all of it there when one is elsewhere.
    """
    return _type()(tensor, device)


@cache
def _type() -> Any:
    import torch

    class Placeholder(torch.Tensor):  # type: ignore[misc]
        # Without it the result of every function on it would be made one too.
        __torch_function__ = torch._C._disabled_torch_function_impl

        @staticmethod
        def __new__(cls, tensor: torch.Tensor, device: torch.device) -> Any:
            return torch.Tensor._make_wrapper_subclass(
                cls, tensor.shape, strides=tensor.stride(), dtype=tensor.dtype, device=device
            )

        @classmethod
        def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            # Under inference mode `to` arrives whole; where it changes nothing it is no computation.
            parts = op.decompose(*args, **(kwargs or {}))
            if parts is not NotImplemented:
                return parts
            raise RuntimeError(f"{op} on weights that are streamed: they are on the device only while their block runs")

        def __repr__(self) -> str:
            return f"Placeholder({tuple(self.shape)}, dtype={self.dtype}, device='{self.device}')"

    return Placeholder
