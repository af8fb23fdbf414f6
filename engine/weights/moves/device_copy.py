"""A copy of a module's weights on a device, used by the module in place of its own tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from engine.weights.files.inventory import Region, TensorRef
from engine.weights.moves.live_bytes import LiveBytes
from engine.weights.moves.staging import Piece, Source, Uploader, lay_out

if TYPE_CHECKING:
    import torch


class DeviceCopy:
    """A copy of all weights on one device, nearly all in one run of memory, in the module until `end`.

    Nothing is copied back, because the module's own tensors are kept, except regions that were written to on the
    device: torch counts writes in a tensor's version, but not those through `.data`.
    """

    note: str | None = None
    """A full copy needs no note for the user."""

    def __init__(
        self, regions: Sequence[Region], loose: Sequence[TensorRef], device: str, uploader: Uploader, source: Source
    ) -> None:
        """Copy everything, then point the module to the copies; an error leaves the module unchanged."""
        import torch

        # An inference tensor counts no writes.
        with torch.inference_mode(False):
            nbytes, offsets = _lay_out(regions, loose)
            arena = torch.empty(nbytes, dtype=torch.uint8, device=device)
            pieces = [source(region, next(offsets)) for region in regions]
            copies = []
            for ref in loose:
                if _fits(ref.tensor):
                    flat = ref.tensor.detach().view(-1)
                    pieces.append(Piece(next(offsets), flat.view(torch.uint8)))
                    copies.append(_part(arena, pieces[-1], flat).view(ref.tensor.shape))
                else:
                    copies.append(ref.tensor.detach().to(device))
            uploader.after_current()
            uploader.wait(uploader.send(arena, pieces))
            flats = [_part(arena, piece, region.flat) for piece, region in zip(pieces, regions, strict=False)]
            self._regions = [(*pair, pair[1]._version) for pair in zip(regions, flats, strict=True)]
            self._loose = [(*pair, pair[1]._version) for pair in zip(loose, copies, strict=True)]
            self.live = LiveBytes([arena, *(copy for copy in copies if copy.layout is torch.strided)])
            """The device memory of the copy."""
            for region, flat, _ in self._regions:
                region.point_to(flat)
            for ref, copy, _ in self._loose:
                ref.replace_with(copy)

    @property
    def nbytes(self) -> int:
        """Bytes on the device; after `end` those that other references keep alive."""
        return self.live.nbytes

    def end(self) -> dict[str, torch.Tensor]:
        """Put the module's own tensors back; return the regions it has written to: name -> elements, on the CPU."""
        written = {region.name: copy.to("cpu") for region, copy, version in self._regions if copy._version != version}
        for ref, copy, version in self._loose:
            now = ref.current
            if now is not None and (now is not copy or copy._version != version):
                ref.tensor = now.detach().to("cpu")
        for region, _, _ in self._regions:
            region.restore()
        for ref, _, _ in self._loose:
            ref.restore()
        self._regions.clear()
        self._loose.clear()
        return written


def copy_size(regions: Sequence[Region], loose: Sequence[TensorRef]) -> int:
    """Return the bytes that a copy takes on a device."""
    import torch

    apart = [ref.tensor for ref in loose if ref.tensor.layout is torch.strided and not _fits(ref.tensor)]
    return _lay_out(regions, loose)[0] + sum(int(tensor.nbytes) for tensor in apart)


def _lay_out(regions: Sequence[Region], loose: Sequence[TensorRef]) -> tuple[int, Iterator[int]]:
    """Return the length of the arena, and the offsets of each region and then each loose tensor that fits."""
    nbytes, offsets = lay_out(
        [*(region.flat.nbytes for region in regions), *(ref.tensor.nbytes for ref in loose if _fits(ref.tensor))]
    )
    return nbytes, iter(offsets)


def _part(arena: torch.Tensor, piece: Piece, like: torch.Tensor) -> torch.Tensor:
    """Return the piece's elements in the arena, (n,), with a version of their own."""
    return arena[piece.offset : piece.end].view(like.dtype).data


def _fits(tensor: torch.Tensor) -> bool:
    """Whether a copy of its bytes is a full copy of the tensor."""
    import torch

    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.numel() > 0
        and tensor.is_contiguous()
        and not (tensor.is_quantized or tensor.is_neg() or tensor.is_conj())
    )
