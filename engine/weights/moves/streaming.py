"""Weights that are more than a device shall hold: its blocks take turns in two buffers there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.errors import OutOfMemory, first_line
from engine.weights.files.survey import Stretch, Tenant
from engine.weights.moves.absent import absent
from engine.weights.moves.blocks import Block, Blocks, Order
from engine.weights.moves.loan import Loan
from engine.weights.moves.lookup import Lookup
from engine.weights.moves.staging import Courier, Piece, Source, aligned
from engine.weights.moves.storage_watch import StorageWatch

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


class _Buffer:
    """Room on the device for any of the blocks."""

    def __init__(self, nbytes: int, device: str) -> None:
        import torch

        self.arena = torch.empty(nbytes, dtype=torch.uint8, device=device)
        self.held = StorageWatch([self.arena])
        self.guest: _Guest | None = None
        """Whose weights are in it, or on their way."""
        self.ticket: Any = None
        self.guarded = False
        """Whether what is sent waits for all that was computed on it."""

    @property
    def in_use(self) -> bool:
        """Whether a block computes on it."""
        return self.guest is not None and self.guest.buffer is self


class _Guest:
    """A block that is on the device only while it runs."""

    def __init__(self, block: Block, device: torch.device, source: Source) -> None:
        self.block = block
        self._source = source
        self.buffer: _Buffer | None = None
        """What it computes on; None while it does not run."""
        self.depth = 0
        """How often it was entered and not left: a block may call itself."""
        self._absent = [
            (stretch, [absent(tensor, device) for tensor in stretch.tensors]) for stretch in block.stretches
        ]
        self._lent: list[tuple[Stretch, torch.Tensor, int, list[Any]]] = []

    def cargo(self, written: dict[str, torch.Tensor]) -> Iterator[Piece]:
        """Its weights, one after the other: as the block has `written` them, else from their source."""
        import torch

        offset = 0
        for stretch in self.block.stretches:
            new = written.get(stretch.name)
            yield self._source(stretch, offset) if new is None else Piece(offset, new.view(torch.uint8))
            offset += aligned(stretch.flat.nbytes)

    def leave(self) -> None:
        """Stand aside: nothing of it is on the device."""
        for stretch, nothing in self._absent:
            stretch.give_way(nothing)
        self._lent.clear()
        self.buffer, self.depth = None, 0

    def move_in(self, buffer: _Buffer) -> None:
        """Compute on what is in `buffer`."""
        self.buffer, self.depth = buffer, 1
        offset = 0
        for stretch in self.block.stretches:
            part = buffer.arena[offset : offset + stretch.flat.nbytes]
            flat = part.view(stretch.flat.dtype).data  # it counts the writes into this stretch alone
            stretch.lend(flat)
            self._lent.append((stretch, flat, flat._version, stretch.standing))
            offset += aligned(stretch.flat.nbytes)

    def written(self) -> dict[str, torch.Tensor]:
        """What the block has written into since it moved in: stretch -> its elements, (n,), on the CPU."""
        return {
            stretch.name: stretch.fetch(flat)
            for stretch, flat, version, lent in self._lent
            if flat._version != version
            or any(now is not then for now, then in zip(stretch.standing, lent, strict=True))
        }


class Stream:
    """A module on a device within a number of bytes; the module sees it from the start until `end`.

    What is no block's and the leading blocks that fit stay there. The others are sent just before they run, the next
    one while one computes; the first one again after the last. Rows of large embeddings are sent for each call, as the
    activations are, and beyond the number of bytes. One thread at a time may compute.
    """

    def __init__(
        self,
        blocks: Blocks,
        loose: Sequence[Tenant],
        device: str,
        streamed_in: int,
        courier: Courier,
        source: Source,
    ) -> None:
        """Take at most `streamed_in` bytes of the device; an error leaves the module as it was.

        Raises OutOfMemory when not even one block fits, and what the device raises.
        """
        import torch

        share = blocks.share(loose, streamed_in)
        if share is None:
            raise OutOfMemory(f"Its largest block does not fit in {streamed_in} bytes of {device}.")
        self.note = f"Streamed: {share.resident} of {len(blocks.blocks)} blocks stay on {device}."
        self._device, self._courier = device, courier
        self._hooks: list[Any] = []
        self._lookups: list[Lookup] = []
        self._guests: dict[int, _Guest] = {}
        self._written: dict[str, torch.Tensor] = {}
        resident, streamed = blocks.blocks[: share.resident], blocks.blocks[share.resident :]
        self._order = Order(streamed)
        size = max((block.nbytes for block in streamed), default=0)
        with torch.inference_mode(False), torch.no_grad():
            self._buffers = [_Buffer(size, device) for _ in range(share.buffers)]
            self._held = [buffer.held for buffer in self._buffers]
            kept = [stretch for block in resident for stretch in block.stretches]
            self._loan = Loan([*blocks.rest, *kept], loose, device, courier, source)
            self._held.append(self._loan.held)
            try:
                self._begin(blocks, streamed, source)
            except BaseException:
                self._stand_down()
                self._loan.end()
                raise

    @property
    def nbytes(self) -> int:
        """Bytes that the weights take on the device, and after `end` what somebody still holds of them."""
        return sum(held.nbytes for held in self._held)

    def end(self) -> dict[str, torch.Tensor]:
        """Let the module see its own tensors again; return what it wrote into: stretch -> its elements, on the CPU.

        Nothing else is copied to the host. An error leaves everything as it was.
        """
        for guest in self._guests.values():
            self._written |= guest.written()
        written = self._written | self._loan.end()
        self._stand_down()
        self._written = {}
        return written

    def _begin(self, blocks: Blocks, streamed: Sequence[Block], source: Source) -> None:
        import torch

        device = torch.empty(0, device=self._device).device  # with its number, as the tensors there have it
        for table in blocks.tables:
            self._lookups.append(Lookup(table, device))
        for block in streamed:
            guest = self._guests[id(block)] = _Guest(block, device, source)
            self._hooks += [
                block.module.register_forward_pre_hook(partial(self._enter, guest)),
                block.module.register_forward_hook(partial(self._leave, guest), always_call=True),
            ]
            guest.leave()
        self._guard()
        if streamed:
            self._prefetch(self._guests[id(streamed[0])])

    def _stand_down(self) -> None:
        """Take the hooks away and let go of all that is on the device, but for what is lent for good."""
        for hook in self._hooks:
            hook.remove()
        for lookup in self._lookups:
            lookup.end()
        for guest in self._guests.values():
            guest.leave()
            for stretch in guest.block.stretches:
                stretch.come_back()
        self._hooks.clear()
        self._lookups.clear()
        self._guests.clear()
        self._buffers.clear()
        self._order = Order(())

    # While the module computes

    def _enter(self, guest: _Guest, module: Any, args: Any) -> None:
        import torch

        if guest.buffer is not None:
            guest.depth += 1
            return
        # What is made under inference mode counts no writes.
        with torch.inference_mode(False), torch.no_grad():
            self._order.came(guest.block)
            buffer = self._buffer_of(guest)
            if buffer.guest is not guest:
                self._courier.after_current()
                self._send(guest, buffer)
            self._courier.wait(buffer.ticket)
            guest.move_in(buffer)

    def _leave(self, guest: _Guest, module: Any, args: Any, output: Any) -> None:
        import torch

        if guest.buffer is None:
            return  # an error on the way in
        guest.depth -= 1
        if guest.depth:
            return
        with torch.inference_mode(False), torch.no_grad():
            buffer = guest.buffer
            try:
                self._written |= guest.written()
            finally:
                guest.leave()
            buffer.guarded = False
            if output is not None:  # after an error nothing comes next
                self._prefetch(self._guests[id(self._order.after(guest.block))])
            # Only now: what was sent above need not wait for the block that has just been put to work.
            self._guard()

    def _buffer_of(self, guest: _Guest) -> _Buffer:
        """The buffer that has its weights, else one that no block computes on."""
        free = [buffer for buffer in self._buffers if not buffer.in_use]
        free.sort(key=lambda buffer: buffer.guest is not guest)
        if free:
            return free[0]
        # Blocks that call each other: better beyond the number of bytes than wrong.
        buffer = _Buffer(guest.block.nbytes, self._device)
        self._held = [*(held for held in self._held if held.nbytes), buffer.held]
        return buffer

    def _prefetch(self, guest: _Guest) -> None:
        """Send the weights of a block that is likely to run next to a buffer that nothing computes on any more."""
        free = [buffer for buffer in self._buffers if not buffer.in_use and buffer.guarded]
        if len(self._buffers) < 2 or not free or any(buffer.guest is guest for buffer in self._buffers):
            return
        try:
            self._send(guest, free[0])
        except (OSError, RuntimeError) as error:
            # A log may keep the traceback, and with it tensors on the device.
            _log.warning("a block could not be sent ahead, so it is sent when it runs: %s", first_line(error))

    def _guard(self) -> None:
        """Let what is sent from now on wait for what was computed on the buffers that no block computes on now."""
        self._courier.after_current()
        for buffer in self._buffers:
            buffer.guarded = not buffer.in_use

    def _send(self, guest: _Guest, buffer: _Buffer) -> None:
        buffer.guest = None  # whatever happens, what was in it is gone
        buffer.ticket = self._courier.send(buffer.arena, list(guest.cargo(self._written)))
        buffer.guest = guest
