"""The inventory of a module's parameters and buffers, grouped by the memory they share."""

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
    """The modules' own dicts that hold the tensor, and its key in each."""

    def replace_with(self, other: torch.Tensor) -> None:
        """Replace this tensor by `other` wherever the module holds it."""
        for table, key in self.holders:
            table[key] = other

    def restore(self) -> None:
        """Put this tensor back wherever the module held it."""
        self.replace_with(self.tensor)

    @property
    def current(self) -> torch.Tensor | None:
        """The tensor that the module holds there now, which the module itself may have set."""
        table, key = self.holders[0]
        return table.get(key)


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor's view of its region: offset, shape and strides, in elements."""

    ref: TensorRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        return flat.as_strided(self.shape, self.strides, flat.storage_offset() + self.offset)

    def is_seen_in(self, flat: torch.Tensor) -> bool:
        """Whether the tensor is still a view of `flat`; a module may have assigned other data to it."""
        here: int = self.ref.tensor.data_ptr()
        there: int = flat.data_ptr() + self.offset * flat.element_size()
        return here == there


class Region:
    """A run of memory that one tensor views, or several that overlap: tied and aliased ones stay so.

    `flat` is all of it as one row of elements, (n,), in the order of memory.
    """

    def __init__(self, refs: list[TensorRef]) -> None:
        """Group tensors that share memory and element type, given in the order of their addresses."""
        first = refs[0].tensor
        start, size = first.data_ptr(), first.element_size()
        end = max(_end(ref.tensor) for ref in refs)
        self.name = refs[0].name
        self.flat = first.detach().as_strided(((end - start) // size,), (1,), first.storage_offset())
        self._views: list[_View] = []
        self._version_assigned = 0
        for ref in refs:
            tensor = ref.tensor
            offset = (tensor.data_ptr() - start) // size
            self._views.append(_View(ref, offset, tuple(tensor.shape), tensor.stride()))

    def assign(self, flat: torch.Tensor) -> None:
        """Make the tensors views of `flat`: the same elements, possibly in other memory or a wider type."""
        self.flat = flat
        for view in self._views:
            view.ref.tensor.data = view.of(flat)
        self._version_assigned = self._version()

    def rebound(self) -> bool:
        """Whether the module has assigned other data to one of the tensors."""
        return not all(view.is_seen_in(self.flat) for view in self._views)

    def written(self) -> bool:
        """Whether torch has counted a write in place since `assign`."""
        return self._version() != self._version_assigned

    def snapshot(self) -> torch.Tensor:
        """Return a copy of the elements that the tensors have now, (n,)."""
        copy = self.flat.clone()
        for view in self._views:
            if view.ref.tensor.shape == view.shape and not view.is_seen_in(self.flat):
                view.of(copy).copy_(view.ref.tensor)
        return copy

    def _version(self) -> int:
        return sum(view.ref.tensor._version for view in self._views)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Its tensors, in the order of their addresses."""
        return [view.ref.tensor for view in self._views]

    @property
    def holders(self) -> Iterator[tuple[dict[str, Any], str]]:
        """The dict and the key of every place in the module that holds one of its tensors."""
        for view in self._views:
            yield from view.ref.holders

    @property
    def current(self) -> list[torch.Tensor | None]:
        """The tensors that the module holds now in place of each of `tensors`."""
        return [view.ref.current for view in self._views]

    def point_to(self, flat: torch.Tensor) -> None:
        """Put views of `flat`, a copy on a device, into the module; the own tensors stay unchanged."""
        import torch

        for view in self._views:
            copy = view.of(flat)
            if isinstance(view.ref.tensor, torch.nn.Parameter):
                copy = torch.nn.Parameter(copy, requires_grad=False)
            view.ref.replace_with(copy)

    def replace_with(self, others: Sequence[torch.Tensor]) -> None:
        """Put `others`, one for each of `tensors`, into the module; the own tensors stay unchanged."""
        for view, other in zip(self._views, others, strict=True):
            view.ref.replace_with(other)

    def fetch(self, flat: torch.Tensor) -> torch.Tensor:
        """Return the elements that the module holds now, on the CPU, (n,); `flat` is the argument of `point_to`."""
        fetched = flat.to("cpu")
        for view, now in zip(self._views, self.current, strict=True):
            if now is not None and now.shape == view.shape and now.data_ptr() != view.of(flat).data_ptr():
                view.of(fetched).copy_(now.detach())
        return fetched

    def restore(self) -> None:
        """Put the own tensors back into the module."""
        for view in self._views:
            view.ref.restore()


@dataclass(frozen=True, slots=True)
class Inventory:
    """A module's weights as regions, the tensors that no file can hold, and the reason if those include weights."""

    regions: tuple[Region, ...]
    loose: tuple[TensorRef, ...]
    problem: str | None


def take_inventory(module: Any) -> Inventory:
    """List the parameters and buffers of a `torch.nn.Module`, and the tensors that are mere attributes of its parts.

    Changes nothing.
    """
    import torch

    weights: dict[int, TensorRef] = {}
    buffers: dict[int, TensorRef] = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        for table in (part._parameters, part._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    in_no_file = table is part._buffers and key in part._non_persistent_buffers_set
                    name = f"{prefix}.{key}" if prefix else key
                    ref = (buffers if in_no_file else weights).setdefault(id(tensor), TensorRef(name, tensor, []))
                    ref.holders.append((table, key))
        # A model's own code may compute with them, so they must follow the weights to a device.
        for key, value in vars(part).items():
            if type(value) is torch.Tensor:
                name = f"{prefix}.{key}" if prefix else key
                buffers.setdefault(id(value), TensorRef(name, value, [])).holders.append((vars(part), key))
    plain = [ref for ref in weights.values() if _is_plain(ref.tensor)]
    strange = [ref for ref in weights.values() if not _is_plain(ref.tensor)]
    for key in buffers.keys() & weights.keys():
        weights[key].holders.extend(buffers.pop(key).holders)
    loose = [*buffers.values(), *strange]
    loose += [ref for ref in plain if not ref.tensor.numel()]
    problem = f"{strange[0].name} is no ordinary tensor" if strange else None
    # In the order of the module, because the order of addresses differs from process to process.
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
    for ref in sorted((ref for ref in refs if ref.tensor.numel()), key=lambda ref: ref.tensor.data_ptr()):
        tensor = ref.tensor
        if group and (tensor.data_ptr() >= end or tensor.dtype is not group[0].tensor.dtype):
            yield Region(group)
            group = []
        group.append(ref)
        end = max(end, _end(tensor))
    if group:
        yield Region(group)


def _end(tensor: torch.Tensor) -> int:
    """Return the address after the last element that the tensor views."""
    reach = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    end: int = tensor.data_ptr() + (reach + 1) * tensor.element_size()
    return end
