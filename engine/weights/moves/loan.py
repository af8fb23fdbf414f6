"""Copies of a module's weights on a device, which stand in the module while its own tensors wait in their home."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from engine.weights.files.survey import Stretch, Tenant
from engine.weights.moves.staging import Courier, Piece, Source, laid_out
from engine.weights.moves.storage_watch import StorageWatch

if TYPE_CHECKING:
    import torch


class Loan:
    """A copy of everything on one device, nearly all of it in one run of memory; the module sees it until `end`.

    What goes back needs no copy, because the own tensors are still there. Only what was written into on the device is
    fetched: torch counts writes in a tensor's version, those through `.data` excepted.
    """

    note: str | None = None
    """What a person should know about how the weights stand there: nothing."""

    def __init__(
        self, stretches: Sequence[Stretch], loose: Sequence[Tenant], device: str, courier: Courier, source: Source
    ) -> None:
        """Copy, and let the module see the copies once all of them are there; an error leaves it as it was."""
        import torch

        # An inference tensor counts no writes.
        with torch.inference_mode(False):
            nbytes, offsets = _laid_out(stretches, loose)
            arena = torch.empty(nbytes, dtype=torch.uint8, device=device)
            cargo = [source(stretch, next(offsets)) for stretch in stretches]
            copies = []
            for tenant in loose:
                if _fits(tenant.tensor):
                    flat = tenant.tensor.detach().view(-1)
                    cargo.append(Piece(next(offsets), flat.view(torch.uint8)))
                    copies.append(_part(arena, cargo[-1], flat).view(tenant.tensor.shape))
                else:
                    copies.append(tenant.tensor.detach().to(device))
            courier.after_current()
            courier.wait(courier.send(arena, cargo))
            flats = [_part(arena, piece, stretch.flat) for piece, stretch in zip(cargo, stretches, strict=False)]
            self._stretches = [(*pair, pair[1]._version) for pair in zip(stretches, flats, strict=True)]
            self._loose = [(*pair, pair[1]._version) for pair in zip(loose, copies, strict=True)]
            self.held = StorageWatch([arena, *(copy for copy in copies if copy.layout is torch.strided)])
            """The device memory that it took."""
            for stretch, flat, _ in self._stretches:
                stretch.lend(flat)
            for tenant, copy, _ in self._loose:
                tenant.give_way(copy)

    @property
    def nbytes(self) -> int:
        """Bytes on the device; after `end` those that somebody else keeps there."""
        return self.held.nbytes

    def end(self) -> dict[str, torch.Tensor]:
        """Let the module see its own tensors again; return what it wrote into: stretch -> its elements, on the CPU."""
        written = {s.name: copy.to("cpu") for s, copy, version in self._stretches if copy._version != version}
        for tenant, copy, version in self._loose:
            now = tenant.standing
            if now is not None and (now is not copy or copy._version != version):
                tenant.tensor = now.detach().to("cpu")
        for stretch, _, _ in self._stretches:
            stretch.come_back()
        for tenant, _, _ in self._loose:
            tenant.come_back()
        self._stretches.clear()
        self._loose.clear()
        return written


def room_for(stretches: Sequence[Stretch], loose: Sequence[Tenant]) -> int:
    """Return the bytes that a loan takes on a device."""
    import torch

    apart = [t.tensor for t in loose if t.tensor.layout is torch.strided and not _fits(t.tensor)]
    return _laid_out(stretches, loose)[0] + sum(int(tensor.nbytes) for tensor in apart)


def _laid_out(stretches: Sequence[Stretch], loose: Sequence[Tenant]) -> tuple[int, Iterator[int]]:
    """The length of the arena, and where each stretch and then each loose tensor that fits begins in it."""
    nbytes, offsets = laid_out(
        [*(stretch.flat.nbytes for stretch in stretches), *(t.tensor.nbytes for t in loose if _fits(t.tensor))]
    )
    return nbytes, iter(offsets)


def _part(arena: torch.Tensor, piece: Piece, like: torch.Tensor) -> torch.Tensor:
    """The piece's elements in the arena, (n,), with a count of writes of their own."""
    return arena[piece.offset : piece.end].view(like.dtype).data


def _fits(tensor: torch.Tensor) -> bool:
    """Whether a copy of its bytes is a copy of it."""
    import torch

    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.numel() > 0
        and tensor.is_contiguous()
        and not (tensor.is_quantized or tensor.is_neg() or tensor.is_conj())
    )
