"""Copies of a module's weights on a device, which stand in the module while its own tensors wait in their home."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from engine.weights.files.inventory import Region, TensorRef
from engine.weights.moves.live_bytes import LiveBytes
from engine.weights.moves.staging import Piece, Source, Uploader, laid_out

if TYPE_CHECKING:
    import torch


class DeviceCopy:
    """A copy of everything on one device, nearly all of it in one run of memory; the module sees it until `end`.

    What goes back needs no copy, because the own tensors are still there. Only what was written into on the device is
    fetched: torch counts writes in a tensor's version, those through `.data` excepted.
    """

    note: str | None = None
    """What a person should know about how the weights stand there: nothing."""

    def __init__(
        self, regions: Sequence[Region], loose: Sequence[TensorRef], device: str, uploader: Uploader, source: Source
    ) -> None:
        """Copy, and let the module see the copies once all of them are there; an error leaves it as it was."""
        import torch

        # An inference tensor counts no writes.
        with torch.inference_mode(False):
            nbytes, offsets = _laid_out(regions, loose)
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
            """The device memory that it took."""
            for region, flat, _ in self._regions:
                region.point_to(flat)
            for ref, copy, _ in self._loose:
                ref.replace_with(copy)

    @property
    def nbytes(self) -> int:
        """Bytes on the device; after `end` those that somebody else keeps there."""
        return self.live.nbytes

    def end(self) -> dict[str, torch.Tensor]:
        """Let the module see its own tensors again; return what it wrote into: region -> its elements, on the CPU."""
        written = {s.name: copy.to("cpu") for s, copy, version in self._regions if copy._version != version}
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

    apart = [t.tensor for t in loose if t.tensor.layout is torch.strided and not _fits(t.tensor)]
    return _laid_out(regions, loose)[0] + sum(int(tensor.nbytes) for tensor in apart)


def _laid_out(regions: Sequence[Region], loose: Sequence[TensorRef]) -> tuple[int, Iterator[int]]:
    """The length of the arena, and where each region and then each loose tensor that fits begins in it."""
    nbytes, offsets = laid_out(
        [*(region.flat.nbytes for region in regions), *(t.tensor.nbytes for t in loose if _fits(t.tensor))]
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
