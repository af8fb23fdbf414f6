"""Copies of a module's weights on a device, which stand in the module while its own tensors wait in their home."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.weights.survey import Stretch, Tenant

if TYPE_CHECKING:
    import torch


class Loan:
    """A copy of everything on one device; the module sees it from the start until `end`.

    What goes back needs no copy, because the own tensors are still there. Only what was written into on the device is
    fetched: torch counts writes in a tensor's version, those through `.data` excepted.
    """

    def __init__(self, stretches: Sequence[Stretch], loose: Sequence[Tenant], device: str) -> None:
        """Copy, and let the module see the copies once all of them are there; an error leaves it as it was."""
        self._stretches: list[tuple[Stretch, torch.Tensor, int]] = []
        self._loose: list[tuple[Tenant, torch.Tensor, int]] = []
        for stretch in stretches:
            self._stretches.append((stretch, *_copied(stretch.flat, device)))
        for tenant in loose:
            self._loose.append((tenant, *_copied(tenant.tensor.detach(), device)))
        for stretch, copy, _ in self._stretches:
            stretch.lend(copy)
        for tenant, copy, _ in self._loose:
            tenant.give_way(copy)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(copy.nbytes for _, copy, _ in (*self._stretches, *self._loose))

    def end(self) -> dict[str, torch.Tensor]:
        """Let the module see its own tensors again; return what it wrote into: stretch -> its elements, on the CPU."""
        written = {}
        for stretch, copy, version in self._stretches:
            if copy._version != version:
                written[stretch.name] = copy.to("cpu")
            stretch.come_back()
        for tenant, copy, version in self._loose:
            now = tenant.standing
            if now is not None and (now is not copy or copy._version != version):
                tenant.tensor = now.detach().to("cpu")
            tenant.come_back()
        self._stretches.clear()
        self._loose.clear()
        return written


def _copied(tensor: torch.Tensor, device: str) -> tuple[torch.Tensor, int]:
    copy = tensor.to(device)
    return copy, copy._version
