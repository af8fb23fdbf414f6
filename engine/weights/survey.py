"""What a module holds: its parameters and buffers, grouped by the memory they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class _View:
    """How one tensor looks at its stretch: offset, shape and strides, in elements."""

    tensor: torch.Tensor
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Stretch:
    """A run of memory that one tensor looks at, or several that overlap: tied and aliased ones stay so.

    `flat` is where it lives: all of it as one row of elements, (n,), in the order of memory.
    """

    def __init__(self, name: str, tensors: list[torch.Tensor]) -> None:
        """Group `tensors`, which share memory and element type; the first lies lowest."""
        first = tensors[0]
        start, size = first.data_ptr(), first.element_size()
        end = max(_end(tensor) for tensor in tensors)
        self.name = name
        self.flat = first.detach().as_strided(((end - start) // size,), (1,), first.storage_offset())
        self._views = [
            _View(tensor, (tensor.data_ptr() - start) // size, tuple(tensor.shape), tensor.stride())
            for tensor in tensors
        ]

    def settle(self, flat: torch.Tensor) -> None:
        """Live in `flat` from now on: the same elements, perhaps elsewhere or in a wider type."""
        self.flat = flat
        self.look_at(flat)

    def look_at(self, flat: torch.Tensor) -> None:
        """Make every tensor a view of `flat`, a copy of what the stretch lives in."""
        for view in self._views:
            view.tensor.data = flat.as_strided(view.shape, view.strides, view.offset)


@dataclass(frozen=True, slots=True)
class Survey:
    """A module's weights as stretches, its tensors that no file can hold, and why some weights are among those."""

    stretches: tuple[Stretch, ...]
    loose: tuple[torch.Tensor, ...]
    problem: str | None


def survey(module: Any) -> Survey:
    """Look through a `torch.nn.Module`; changes nothing."""
    named: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in _weights(module):
        named.setdefault(id(tensor), (name, tensor))
    plain = [(name, tensor) for name, tensor in named.values() if _is_plain(tensor)]
    strange = [(name, tensor) for name, tensor in named.values() if not _is_plain(tensor)]
    loose = [tensor for tensor in module.buffers() if id(tensor) not in named] + [tensor for _, tensor in strange]
    loose += [tensor for _, tensor in plain if not tensor.numel()]
    problem = f"{strange[0][0]} is no ordinary tensor" if strange else None
    # In the order of the module: where the allocator put them is another thing in every process.
    order = {name: index for index, (name, _) in enumerate(plain)}
    stretches = sorted(_stretches(plain), key=lambda stretch: order[stretch.name])
    return Survey(tuple(stretches), tuple(loose), problem)


def _weights(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and persistent buffers by their full names; tied ones come once for every name."""
    for prefix, part in module.named_modules(remove_duplicate=False):
        persistent = {k: v for k, v in part._buffers.items() if k not in part._non_persistent_buffers_set}
        for key, tensor in {**part._parameters, **persistent}.items():
            if tensor is not None:
                yield (f"{prefix}.{key}" if prefix else key), tensor


def _is_plain(tensor: Any) -> bool:
    import torch

    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_inference() or tensor.is_neg() or tensor.is_conj())
    )


def _stretches(named: list[tuple[str, torch.Tensor]]) -> Iterator[Stretch]:
    group: list[tuple[str, torch.Tensor]] = []
    end = 0
    for name, tensor in sorted((pair for pair in named if pair[1].numel()), key=lambda pair: pair[1].data_ptr()):
        if group and (tensor.data_ptr() >= end or tensor.dtype is not group[0][1].dtype):
            yield Stretch(group[0][0], [member for _, member in group])
            group = []
        group.append((name, tensor))
        end = max(end, _end(tensor))
    if group:
        yield Stretch(group[0][0], [member for _, member in group])


def _end(tensor: torch.Tensor) -> int:
    """The address after the last element that the tensor looks at."""
    reach = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    end: int = tensor.data_ptr() + (reach + 1) * tensor.element_size()
    return end
