"""What a module holds: its parameters and buffers, grouped by the memory they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(eq=False, slots=True)
class Tenant:
    """One parameter or buffer, and every place in the module that holds it: a tied one has several."""

    name: str
    tensor: torch.Tensor
    holders: list[tuple[dict[str, Any], str]]

    def give_way(self, other: torch.Tensor) -> None:
        """Let `other` stand in the module in its place."""
        for table, key in self.holders:
            table[key] = other

    def come_back(self) -> None:
        """Stand in the module again."""
        self.give_way(self.tensor)

    @property
    def standing(self) -> torch.Tensor | None:
        """What stands in its place now, which the module may have put there itself."""
        table, key = self.holders[0]
        return table.get(key)


@dataclass(frozen=True, slots=True)
class _View:
    """How one tensor looks at its stretch: offset, shape and strides, in elements."""

    tenant: Tenant
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        return flat.as_strided(self.shape, self.strides, flat.storage_offset() + self.offset)

    def is_seen_in(self, flat: torch.Tensor) -> bool:
        """Whether its tensor still looks at `flat`; a module may have put other data behind it."""
        here: int = self.tenant.tensor.data_ptr()
        there: int = flat.data_ptr() + self.offset * flat.element_size()
        return here == there


class Stretch:
    """A run of memory that one tensor looks at, or several that overlap: tied and aliased ones stay so.

    `flat` is where it lives: all of it as one row of elements, (n,), in the order of memory.
    """

    def __init__(self, tenants: list[Tenant]) -> None:
        """Group tensors that share memory and element type; the first lies lowest."""
        first = tenants[0].tensor
        start, size = first.data_ptr(), first.element_size()
        end = max(_end(tenant.tensor) for tenant in tenants)
        self.name = tenants[0].name
        self.flat = first.detach().as_strided(((end - start) // size,), (1,), first.storage_offset())
        self._views: list[_View] = []
        self._settled = 0
        for tenant in tenants:
            tensor = tenant.tensor
            offset = (tensor.data_ptr() - start) // size
            self._views.append(_View(tenant, offset, tuple(tensor.shape), tensor.stride()))

    def settle(self, flat: torch.Tensor) -> None:
        """Live in `flat` from now on: the same elements, perhaps elsewhere or in a wider type."""
        self.flat = flat
        for view in self._views:
            view.tenant.tensor.data = view.of(flat)
        self._settled = self._version()

    def rebound(self) -> bool:
        """Whether the module has put other data behind one of the tensors."""
        return not all(view.is_seen_in(self.flat) for view in self._views)

    def written(self) -> bool:
        """Whether torch knows of a write in place."""
        return self._version() != self._settled

    def as_it_is(self) -> torch.Tensor:
        """Return a copy of what the tensors hold now, (n,)."""
        copy = self.flat.clone()
        for view in self._views:
            if view.tenant.tensor.shape == view.shape and not view.is_seen_in(self.flat):
                view.of(copy).copy_(view.tenant.tensor)
        return copy

    def _version(self) -> int:
        return sum(view.tenant.tensor._version for view in self._views)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Its tensors; the first lies lowest."""
        return [view.tenant.tensor for view in self._views]

    @property
    def holders(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Every place in the module that holds one of its tensors: the table and the key in it."""
        for view in self._views:
            yield from view.tenant.holders

    @property
    def standing(self) -> list[torch.Tensor | None]:
        """What stands in the module now in place of each of `tensors`."""
        return [view.tenant.standing for view in self._views]

    def lend(self, flat: torch.Tensor) -> None:
        """Let views of `flat`, a copy on a device, stand in the module; the own tensors wait untouched."""
        import torch

        for view in self._views:
            copy = view.of(flat)
            if isinstance(view.tenant.tensor, torch.nn.Parameter):
                copy = torch.nn.Parameter(copy, requires_grad=False)
            view.tenant.give_way(copy)

    def give_way(self, others: Sequence[torch.Tensor]) -> None:
        """Let `others`, one for each of `tensors`, stand in the module; the own tensors wait untouched."""
        for view, other in zip(self._views, others, strict=True):
            view.tenant.give_way(other)

    def fetch(self, flat: torch.Tensor) -> torch.Tensor:
        """Return what stands in the module, on the CPU, (n,); `flat` is what was lent."""
        fetched = flat.to("cpu")
        for view, now in zip(self._views, self.standing, strict=True):
            if now is not None and now.shape == view.shape and now.data_ptr() != view.of(flat).data_ptr():
                view.of(fetched).copy_(now.detach())
        return fetched

    def come_back(self) -> None:
        """Let the own tensors stand in the module again."""
        for view in self._views:
            view.tenant.come_back()


@dataclass(frozen=True, slots=True)
class Survey:
    """A module's weights as stretches, its tensors that no file can hold, and why some weights are among those."""

    stretches: tuple[Stretch, ...]
    loose: tuple[Tenant, ...]
    problem: str | None


def survey(module: Any) -> Survey:
    """Look through a `torch.nn.Module`; changes nothing."""
    weights: dict[int, Tenant] = {}
    buffers: dict[int, Tenant] = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        for table in (part._parameters, part._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    lost = table is part._buffers and key in part._non_persistent_buffers_set
                    name = f"{prefix}.{key}" if prefix else key
                    found = (buffers if lost else weights).setdefault(id(tensor), Tenant(name, tensor, []))
                    found.holders.append((table, key))
    plain = [tenant for tenant in weights.values() if _is_plain(tenant.tensor)]
    strange = [tenant for tenant in weights.values() if not _is_plain(tenant.tensor)]
    for key in buffers.keys() & weights.keys():
        weights[key].holders.extend(buffers.pop(key).holders)
    loose = [*buffers.values(), *strange]
    loose += [tenant for tenant in plain if not tenant.tensor.numel()]
    problem = f"{strange[0].name} is no ordinary tensor" if strange else None
    # In the order of the module: where the allocator put them is another thing in every process.
    order = {tenant.name: index for index, tenant in enumerate(plain)}
    stretches = sorted(_stretches(plain), key=lambda stretch: order[stretch.name])
    return Survey(tuple(stretches), tuple(loose), problem)


def _is_plain(tensor: Any) -> bool:
    import torch

    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_inference() or tensor.is_neg() or tensor.is_conj())
    )


def _stretches(tenants: list[Tenant]) -> Iterator[Stretch]:
    group: list[Tenant] = []
    end = 0
    for tenant in sorted((t for t in tenants if t.tensor.numel()), key=lambda tenant: tenant.tensor.data_ptr()):
        tensor = tenant.tensor
        if group and (tensor.data_ptr() >= end or tensor.dtype is not group[0].tensor.dtype):
            yield Stretch(group)
            group = []
        group.append(tenant)
        end = max(end, _end(tensor))
    if group:
        yield Stretch(group)


def _end(tensor: torch.Tensor) -> int:
    """The address after the last element that the tensor looks at."""
    reach = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    end: int = tensor.data_ptr() + (reach + 1) * tensor.element_size()
    return end
