"""What a module holds: its parameters and buffers, grouped by the memory they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(eq=False, slots=True)
class TensorRef:
    """One parameter or buffer, and every place in the module that holds it: a tied one has several."""

    name: str
    tensor: torch.Tensor
    holders: list[tuple[dict[str, Any], str]]

    def replace_with(self, other: torch.Tensor) -> None:
        """Let `other` stand in the module in its place."""
        for table, key in self.holders:
            table[key] = other

    def restore(self) -> None:
        """Stand in the module again."""
        self.replace_with(self.tensor)

    @property
    def current(self) -> torch.Tensor | None:
        """What stands in its place now, which the module may have put there itself."""
        table, key = self.holders[0]
        return table.get(key)


@dataclass(frozen=True, slots=True)
class _View:
    """How one tensor looks at its region: offset, shape and strides, in elements."""

    ref: TensorRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        return flat.as_strided(self.shape, self.strides, flat.storage_offset() + self.offset)

    def is_seen_in(self, flat: torch.Tensor) -> bool:
        """Whether its tensor still looks at `flat`; a module may have put other data behind it."""
        here: int = self.ref.tensor.data_ptr()
        there: int = flat.data_ptr() + self.offset * flat.element_size()
        return here == there


class Region:
    """A run of memory that one tensor looks at, or several that overlap: tied and aliased ones stay so.

    `flat` is where it lives: all of it as one row of elements, (n,), in the order of memory.
    """

    def __init__(self, refs: list[TensorRef]) -> None:
        """Group tensors that share memory and element type; the first lies lowest."""
        first = refs[0].tensor
        start, size = first.data_ptr(), first.element_size()
        end = max(_end(ref.tensor) for ref in refs)
        self.name = refs[0].name
        self.flat = first.detach().as_strided(((end - start) // size,), (1,), first.storage_offset())
        self._views: list[_View] = []
        self._assigned = 0
        for ref in refs:
            tensor = ref.tensor
            offset = (tensor.data_ptr() - start) // size
            self._views.append(_View(ref, offset, tuple(tensor.shape), tensor.stride()))

    def assign(self, flat: torch.Tensor) -> None:
        """Live in `flat` from now on: the same elements, perhaps elsewhere or in a wider type."""
        self.flat = flat
        for view in self._views:
            view.ref.tensor.data = view.of(flat)
        self._assigned = self._version()

    def rebound(self) -> bool:
        """Whether the module has put other data behind one of the tensors."""
        return not all(view.is_seen_in(self.flat) for view in self._views)

    def written(self) -> bool:
        """Whether torch knows of a write in place."""
        return self._version() != self._assigned

    def as_it_is(self) -> torch.Tensor:
        """Return a copy of what the tensors hold now, (n,)."""
        copy = self.flat.clone()
        for view in self._views:
            if view.ref.tensor.shape == view.shape and not view.is_seen_in(self.flat):
                view.of(copy).copy_(view.ref.tensor)
        return copy

    def _version(self) -> int:
        return sum(view.ref.tensor._version for view in self._views)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Its tensors; the first lies lowest."""
        return [view.ref.tensor for view in self._views]

    @property
    def holders(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Every place in the module that holds one of its tensors: the table and the key in it."""
        for view in self._views:
            yield from view.ref.holders

    @property
    def current(self) -> list[torch.Tensor | None]:
        """What stands in the module now in place of each of `tensors`."""
        return [view.ref.current for view in self._views]

    def point_to(self, flat: torch.Tensor) -> None:
        """Let views of `flat`, a copy on a device, stand in the module; the own tensors wait untouched."""
        import torch

        for view in self._views:
            copy = view.of(flat)
            if isinstance(view.ref.tensor, torch.nn.Parameter):
                copy = torch.nn.Parameter(copy, requires_grad=False)
            view.ref.replace_with(copy)

    def replace_with(self, others: Sequence[torch.Tensor]) -> None:
        """Let `others`, one for each of `tensors`, stand in the module; the own tensors wait untouched."""
        for view, other in zip(self._views, others, strict=True):
            view.ref.replace_with(other)

    def fetch(self, flat: torch.Tensor) -> torch.Tensor:
        """Return what stands in the module, on the CPU, (n,); `flat` is what was lent."""
        fetched = flat.to("cpu")
        for view, now in zip(self._views, self.current, strict=True):
            if now is not None and now.shape == view.shape and now.data_ptr() != view.of(flat).data_ptr():
                view.of(fetched).copy_(now.detach())
        return fetched

    def restore(self) -> None:
        """Let the own tensors stand in the module again."""
        for view in self._views:
            view.ref.restore()


@dataclass(frozen=True, slots=True)
class Inventory:
    """A module's weights as regions, its tensors that no file can hold, and why some weights are among those."""

    regions: tuple[Region, ...]
    loose: tuple[TensorRef, ...]
    problem: str | None


def take_inventory(module: Any) -> Inventory:
    """Look through a `torch.nn.Module`; changes nothing."""
    weights: dict[int, TensorRef] = {}
    buffers: dict[int, TensorRef] = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        for table in (part._parameters, part._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    lost = table is part._buffers and key in part._non_persistent_buffers_set
                    name = f"{prefix}.{key}" if prefix else key
                    found = (buffers if lost else weights).setdefault(id(tensor), TensorRef(name, tensor, []))
                    found.holders.append((table, key))
    plain = [ref for ref in weights.values() if _is_plain(ref.tensor)]
    strange = [ref for ref in weights.values() if not _is_plain(ref.tensor)]
    for key in buffers.keys() & weights.keys():
        weights[key].holders.extend(buffers.pop(key).holders)
    loose = [*buffers.values(), *strange]
    loose += [ref for ref in plain if not ref.tensor.numel()]
    problem = f"{strange[0].name} is no ordinary tensor" if strange else None
    # In the order of the module: where the allocator put them is another thing in every process.
    order = {ref.name: index for index, ref in enumerate(plain)}
    regions = sorted(_regions(plain), key=lambda region: order[region.name])
    return Inventory(tuple(regions), tuple(loose), problem)


def _is_plain(tensor: Any) -> bool:
    import torch

    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_inference() or tensor.is_neg() or tensor.is_conj())
    )


def _regions(refs: list[TensorRef]) -> Iterator[Region]:
    group: list[TensorRef] = []
    end = 0
    for ref in sorted((t for t in refs if t.tensor.numel()), key=lambda ref: ref.tensor.data_ptr()):
        tensor = ref.tensor
        if group and (tensor.data_ptr() >= end or tensor.dtype is not group[0].tensor.dtype):
            yield Region(group)
            group = []
        group.append(ref)
        end = max(end, _end(tensor))
    if group:
        yield Region(group)


def _end(tensor: torch.Tensor) -> int:
    """The address after the last element that the tensor looks at."""
    reach = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    end: int = tensor.data_ptr() + (reach + 1) * tensor.element_size()
    return end
