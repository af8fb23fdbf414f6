"""Placeholders in a module for weights that are not on the device at the moment."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def placeholder(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor with the shape and type of `tensor` on `device`, without memory; computing with it raises.

    Libraries check the device of a module's parameters and move the whole module if one is on another.
    """
    return _type()(tensor, device)


@cache
def _type() -> Any:
    import torch

    class Placeholder(torch.Tensor):  # type: ignore[misc]
        # Otherwise torch would make the result of every function on it a placeholder too.
        __torch_function__ = torch._C._disabled_torch_function_impl

        @staticmethod
        def __new__(cls, tensor: torch.Tensor, device: torch.device) -> Any:
            return torch.Tensor._make_wrapper_subclass(
                cls, tensor.shape, strides=tensor.stride(), dtype=tensor.dtype, device=device
            )

        @classmethod
        def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            # Under inference mode `to` arrives undecomposed; one that changes nothing must not raise.
            parts = op.decompose(*args, **(kwargs or {}))
            if parts is not NotImplemented:
                return parts
            raise RuntimeError(f"{op} on weights that are streamed: they are on the device only while their block runs")

        def __repr__(self) -> str:
            return f"Placeholder({tuple(self.shape)}, dtype={self.dtype}, device='{self.device}')"

    return Placeholder
