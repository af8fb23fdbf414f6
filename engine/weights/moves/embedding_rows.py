"""Embeddings whose weight stays on the CPU: the rows that a call needs are copied to the device."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from engine.weights.moves.blocks import EmbeddingTable
from engine.weights.moves.placeholders import placeholder

if TYPE_CHECKING:
    import torch


class EmbeddingRows:
    """An embedding table on the CPU; while a module runs, its weight is only the rows of its ids.

    The output is bit-identical. An id outside the table raises IndexError, on every device.
    """

    def __init__(self, table: EmbeddingTable, device: torch.device) -> None:
        """Replace the weight by a placeholder in its modules; an error leaves them unchanged."""
        (self._weight,) = table.region.tensors
        self._device = device
        self._placeholder = placeholder(self._weight, device)
        self._region = table.region
        self._hooks: list[Any] = []
        try:
            for module in table.modules:
                padding = module.padding_idx
                self._hooks += [
                    module.register_forward_pre_hook(self._begin, with_kwargs=True),
                    module.register_forward_hook(partial(self._finish, padding), always_call=True),
                ]
            self._region.replace_with([self._placeholder])
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Give the modules their weight back."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._region.restore()

    def _begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import torch

        ids = args[0] if args else kwargs.get("input")
        if not isinstance(ids, torch.Tensor) or ids.is_floating_point():
            return None  # the module itself raises the right error
        with torch.inference_mode(False), torch.no_grad():
            unique, positions = torch.unique(ids.to("cpu"), return_inverse=True)
            rows = self._weight.detach().index_select(0, unique).to(self._device)
            positions = positions.to(self._device)
        module._parameters["weight"] = rows
        # The functional call checks it against the number of rows; it matters to gradients only.
        module.padding_idx = None
        return ((positions, *args[1:]), kwargs) if args else (args, kwargs | {"input": positions})

    def _finish(self, padding: int | None, module: Any, args: Any, output: Any) -> None:
        module._parameters["weight"] = self._placeholder
        module.padding_idx = padding
