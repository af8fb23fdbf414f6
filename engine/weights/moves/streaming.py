"""A module that is larger than its limit on a device: its blocks take turns in two buffers there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.errors import OutOfMemory, first_line
from engine.weights.files.inventory import Region, TensorRef
from engine.weights.moves.blocks import Block, Blocks, Order
from engine.weights.moves.device_copy import DeviceCopy
from engine.weights.moves.embedding_rows import EmbeddingRows
from engine.weights.moves.live_bytes import LiveBytes
from engine.weights.moves.placeholders import placeholder
from engine.weights.moves.staging import CopyEvent, Piece, Source, Uploader, aligned

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


class _Buffer:
    """Device memory that is large enough for any of the streamed blocks."""

    def __init__(self, nbytes: int, device: str) -> None:
        import torch

        self.arena = torch.empty(nbytes, dtype=torch.uint8, device=device)
        self.live = LiveBytes([self.arena])
        self.content: StreamedBlock | None = None
        """The block whose weights are in it, or are being copied to it."""
        self.copied: CopyEvent = None
        """The event after the copy to it."""
        self.guarded = False
        """Whether a copy to it waits for every computation that reads it."""

    @property
    def in_use(self) -> bool:
        """Whether a block computes on it."""
        return self.content is not None and self.content.buffer is self


class StreamedBlock:
    """A block whose weights are on the device only while it runs."""

    def __init__(self, block: Block, device: torch.device, source: Source) -> None:
        """Prepare placeholders; the module changes with `bind` and `unbind` alone."""
        self.block = block
        self._source = source
        self.buffer: _Buffer | None = None
        """The buffer that it computes on; None while it does not run."""
        self.depth = 0
        """Calls of the block that have begun and not ended: a block may call itself."""
        self._placeholders = [
            (region, [placeholder(tensor, device) for tensor in region.tensors]) for region in block.regions
        ]
        self._bound: list[tuple[Region, torch.Tensor, int, list[Any]]] = []

    def pieces(self, written: dict[str, torch.Tensor]) -> Iterator[Piece]:
        """Return its weights one after the other: the block's own writes in `written`, else from their source."""
        import torch

        offset = 0
        for region in self.block.regions:
            new = written.get(region.name)
            yield self._source(region, offset) if new is None else Piece(offset, new.view(torch.uint8))
            offset += aligned(region.flat.nbytes)

    def unbind(self) -> None:
        """Put placeholders in the module; its weights leave the device."""
        for region, placeholders in self._placeholders:
            region.replace_with(placeholders)
        self._bound.clear()
        self.buffer, self.depth = None, 0

    def bind(self, buffer: _Buffer) -> None:
        """Point the block's tensors to the weights in `buffer`."""
        self.buffer, self.depth = buffer, 1
        offset = 0
        for region in self.block.regions:
            part = buffer.arena[offset : offset + region.flat.nbytes]
            flat = part.view(region.flat.dtype).data  # has a version of its own, so it counts writes to this region
            region.point_to(flat)
            self._bound.append((region, flat, flat._version, region.current))
            offset += aligned(region.flat.nbytes)

    def written(self) -> dict[str, torch.Tensor]:
        """Return the regions that the block has written to since `bind`: name -> elements, (n,), on the CPU."""
        return {
            region.name: region.fetch(flat)
            for region, flat, version, bound in self._bound
            if flat._version != version or any(now is not then for now, then in zip(region.current, bound, strict=True))
        }


class Stream:
    """A module that computes on a device within a number of bytes, until `end`.

    Weights outside the blocks and the leading blocks that fit stay on the device. Each other block is copied just
    before it runs, and the next one while it computes; the first one follows the last. The rows of large embeddings
    are copied for each call and, like the activations, do not count as the weights' bytes. One thread at a time may
    compute.
    """

    def __init__(
        self,
        blocks: Blocks,
        loose: Sequence[TensorRef],
        device: str,
        streamed_in: int,
        uploader: Uploader,
        source: Source,
    ) -> None:
        """Take at most `streamed_in` bytes of the device; an error leaves the module unchanged.

        Raises OutOfMemory when not even one block fits, and the device's own errors.
        """
        import torch

        plan = blocks.plan(loose, streamed_in)
        if plan is None:
            raise OutOfMemory(f"Its largest block does not fit in {streamed_in} bytes of {device}.")
        self.note = f"Streamed: {plan.resident} of {len(blocks.blocks)} blocks stay on {device}."
        self._device, self._uploader = device, uploader
        self._hooks: list[Any] = []
        self._embeddings: list[EmbeddingRows] = []
        self._streamed: dict[int, StreamedBlock] = {}
        self._written: dict[str, torch.Tensor] = {}
        resident, streamed = blocks.blocks[: plan.resident], blocks.blocks[plan.resident :]
        self._order = Order(streamed)
        size = max((block.nbytes for block in streamed), default=0)
        with torch.inference_mode(False), torch.no_grad():
            self._buffers = [_Buffer(size, device) for _ in range(plan.buffers)]
            self._live = [buffer.live for buffer in self._buffers]
            kept = [region for block in resident for region in block.regions]
            self._kept = DeviceCopy([*blocks.rest, *kept], loose, device, uploader, source)
            self._live.append(self._kept.live)
            try:
                self._begin(blocks, streamed, source)
            except BaseException:
                self._release()
                self._kept.end()
                raise

    @property
    def nbytes(self) -> int:
        """Bytes that the weights take on the device; after `end` those that other references keep alive."""
        return sum(live.nbytes for live in self._live)

    def end(self) -> dict[str, torch.Tensor]:
        """Put the module's own tensors back; return the regions it has written to: name -> elements, on the CPU.

        Only those are copied to the host. An error leaves everything unchanged.
        """
        for streamed in self._streamed.values():
            self._written |= streamed.written()
        written = self._written | self._kept.end()
        self._release()
        self._written = {}
        return written

    def _begin(self, blocks: Blocks, streamed: Sequence[Block], source: Source) -> None:
        import torch

        device = torch.empty(0, device=self._device).device  # with its number, as tensors on it report it
        for table in blocks.tables:
            self._embeddings.append(EmbeddingRows(table, device))
        for block in streamed:
            one = self._streamed[id(block)] = StreamedBlock(block, device, source)
            self._hooks += [
                block.module.register_forward_pre_hook(partial(self._enter, one)),
                block.module.register_forward_hook(partial(self._leave, one), always_call=True),
            ]
            one.unbind()
        self._guard()
        if streamed:
            self._prefetch(self._streamed[id(streamed[0])])

    def _release(self) -> None:
        """Remove the hooks and free all device memory except the copy of the kept weights."""
        for hook in self._hooks:
            hook.remove()
        for rows in self._embeddings:
            rows.end()
        for streamed in self._streamed.values():
            streamed.unbind()
            for region in streamed.block.regions:
                region.restore()
        self._hooks.clear()
        self._embeddings.clear()
        self._streamed.clear()
        self._buffers.clear()
        self._order = Order(())

    # While the module computes

    def _enter(self, streamed: StreamedBlock, module: Any, args: Any) -> None:
        import torch

        if streamed.buffer is not None:
            streamed.depth += 1
            return
        # A tensor made under inference mode counts no writes.
        with torch.inference_mode(False), torch.no_grad():
            self._order.started(streamed.block)
            buffer = self._buffer_for(streamed)
            if buffer.content is not streamed:
                self._uploader.after_current()
                self._send(streamed, buffer)
            self._uploader.wait(buffer.copied)
            streamed.bind(buffer)

    def _leave(self, streamed: StreamedBlock, module: Any, args: Any, output: Any) -> None:
        import torch

        if streamed.buffer is None:
            return  # `_enter` raised
        streamed.depth -= 1
        if streamed.depth:
            return
        with torch.inference_mode(False), torch.no_grad():
            buffer = streamed.buffer
            try:
                self._written |= streamed.written()
            finally:
                streamed.unbind()
            buffer.guarded = False
            if output is not None:  # None after an error: no block follows
                self._prefetch(self._streamed[id(self._order.after(streamed.block))])
            # Only now, so that the copy above does not wait for the block that has just been queued.
            self._guard()

    def _buffer_for(self, streamed: StreamedBlock) -> _Buffer:
        """Return the buffer that has the block's weights, else one that no block computes on."""
        free = [buffer for buffer in self._buffers if not buffer.in_use]
        free.sort(key=lambda buffer: buffer.content is not streamed)
        if free:
            return free[0]
        # Blocks that call each other need a third buffer: exceeding the limit is better than a wrong result.
        buffer = _Buffer(streamed.block.nbytes, self._device)
        self._live = [*(live for live in self._live if live.nbytes), buffer.live]
        return buffer

    def _prefetch(self, streamed: StreamedBlock) -> None:
        """Copy the block that is likely to run next to a buffer that no computation reads any more."""
        free = [buffer for buffer in self._buffers if not buffer.in_use and buffer.guarded]
        if len(self._buffers) < 2 or not free or any(buffer.content is streamed for buffer in self._buffers):
            return
        try:
            self._send(streamed, free[0])
        except (OSError, RuntimeError) as error:
            # Without the traceback: a log handler that keeps it would keep tensors on the device.
            _log.warning("a block could not be sent ahead, so it is sent when it runs: %s", first_line(error))

    def _guard(self) -> None:
        """Make later copies wait for the computations queued so far on the buffers that are now free."""
        self._uploader.after_current()
        for buffer in self._buffers:
            buffer.guarded = not buffer.in_use

    def _send(self, streamed: StreamedBlock, buffer: _Buffer) -> None:
        buffer.content = None  # an error leaves the buffer half overwritten
        buffer.copied = self._uploader.send(buffer.arena, list(streamed.pieces(self._written)))
        buffer.content = streamed
