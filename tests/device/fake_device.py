"""An accelerator that is not there: two cards, `fakegpu:0` and `fakegpu:1`, whose memory is this process's own.

torch believes that the tensors lie elsewhere: they do not mix with the CPU's, have no NumPy array and move only by
copies. Each op runs on a CPU tensor that the device tensor holds. What a `Card` counts is exact; time is not modelled:
every copy is done when the call returns, and streams and events order nothing.

It is a Python backend on torch's PrivateUse1 (`torch.utils.backend_registration`) with a wrapper tensor subclass.
Unlike a real card's, a tensor here is of a class of its own, `p.data = ...` across devices is refused, so that
`module.to` makes new Parameter objects, and an op that resizes a device tensor in place is refused.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final

import torch
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME: Final = "fakegpu"
UNLIMITED: Final = 1 << 40
"""Bytes that `mem_get_info` calls the whole of a card without a capacity."""

_aten = torch.ops.aten
_INDEXING: Final = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)


class Card:
    """The memory of one card, in bytes; the attributes without an underscore may be read and set at any time."""

    def __init__(self, index: int) -> None:
        """Make an empty card; `index` is the N of `fakegpu:N`."""
        self.index = index
        self.live = 0
        # Reentrant: the garbage collector may drop a tensor while this thread holds the lock.
        self._lock = threading.RLock()
        self._held: weakref.WeakValueDictionary[int, _Held] = weakref.WeakValueDictionary()
        self.reset()

    def reset(self) -> None:
        """Forget limits, counts and pending failures; what is live stays so."""
        with self._lock:
            self.capacity: int | None = None
            self.used_by_others = 0
            self.limit: int | None = None
            """Bytes that this process may keep from others, living and cached."""
            self.lost = False
            """Raise RuntimeError for every allocation and copy, as a card does after a driver's reset."""
            self.shares_ram = False
            """What the card's properties call `is_integrated`."""
            self.keeps_freed_bytes = False
            """Keep freed bytes for later allocations until `empty_cache`, as CUDA's allocator does."""
            self.cached = 0
            self.peak = self.live
            self.allocations = 0
            """Allocations asked for, one for each storage, the failed ones among them."""
            self.copies = 0
            """Copies onto or off the card, the failed ones among them."""
            self.to_device = 0
            self.to_host = 0
            self.from_other_card = 0
            self.cache_emptied = 0
            """How often `empty_cache` was called."""
            self._failing_allocation = self._failing_copy = 0
            self._full = False
            """Whether all allocations after the failing one fail too."""

    def fail_allocation(self, nth: int = 1, *, for_good: bool = False) -> None:
        """Let the `nth` allocation from now raise torch.OutOfMemoryError; the ones after it succeed or fail too."""
        with self._lock:
            self._failing_allocation = self.allocations + nth
            self._full = for_good

    def fail_copy(self, nth: int = 1) -> None:
        """Let the `nth` copy from now raise RuntimeError; the ones after it succeed."""
        with self._lock:
            self._failing_copy = self.copies + nth

    @property
    def reserved(self) -> int:
        """Bytes that this process keeps from others."""
        return self.live + self.cached

    @property
    def total(self) -> int:
        """Bytes that the card has."""
        return UNLIMITED if self.capacity is None else self.capacity

    @property
    def _room(self) -> int:
        """Bytes that this process could keep at most."""
        room = self.total - self.used_by_others
        return room if self.limit is None else min(room, self.limit)

    def empty_cache(self) -> None:
        """Give back the bytes that were freed."""
        with self._lock:
            self.cached = 0
            self.cache_emptied += 1

    def hold(self, raw: torch.Tensor) -> _Held:
        """Return the hold on the memory of `raw`; live until all who have it drop it. Raises OutOfMemoryError."""
        storage = raw.untyped_storage()
        with self._lock:
            held = self._held.get(storage._cdata)
            if held is None:
                self._allocate(storage.nbytes())
                held = self._held[storage._cdata] = _Held(self, storage)
            return held

    def _refuse_lost(self) -> None:
        if self.lost:
            raise RuntimeError(f"{NAME} error: unspecified launch failure")

    def _allocate(self, size: int) -> None:
        self.allocations += 1
        self._refuse_lost()
        nth = self.allocations - self._failing_allocation
        if nth == 0 or (self._full and nth > 0) or self.live + size > self._room:
            limited = "" if self.limit is None else f", {self.limit} allowed"
            raise torch.OutOfMemoryError(
                f"{NAME} out of memory. Tried to allocate {size} bytes on card {self.index}: "
                f"{self.live} live, {self.used_by_others} used by others, of {self.total}{limited}."
            )
        self.live += size
        # Out of what was kept as far as it goes; the rest of it is given back where there is no room for both.
        self.cached = max(0, min(self.cached - size, self._room - self.live))
        self.peak = max(self.peak, self.live)

    def free(self, size: int) -> None:
        """Take `size` bytes off what is live; called by the last hold on them."""
        with self._lock:
            self.live -= size
            self.cached += size if self.keeps_freed_bytes else 0

    def copied(self, size: int, origin: str) -> None:
        """Count a copy that `origin` names: `to_device`, `to_host` or `from_other_card`. Raises RuntimeError."""
        with self._lock:
            self.copies += 1
            self._refuse_lost()
            if self.copies == self._failing_copy:
                raise RuntimeError(f"{NAME} error: a copy of {size} bytes failed")
            setattr(self, origin, getattr(self, origin) + size)


class _Held:
    """One storage on a card. It owns the storage, so that no other can get its address before it is forgotten."""

    def __init__(self, card: Card, storage: torch.UntypedStorage) -> None:
        self.card = card
        self.storage = storage
        self.size = storage.nbytes()

    def __del__(self) -> None:
        self.card.free(self.size)


CARDS: Final = (Card(0), Card(1))


class OnCard(torch.Tensor):
    """A tensor on a card; `raw` is the CPU tensor that has its elements, of the same shape and strides."""

    raw: torch.Tensor
    card: Card
    _held: _Held
    # Without it every function on a subclass goes through Python once more and its result is made a subclass again.
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor, card: Card) -> OnCard:
        """Put `raw` on the `card`. Raises torch.OutOfMemoryError."""
        held = card.hold(raw)
        # A view of an ordinary tensor is no inference tensor, even under inference mode.
        with torch.inference_mode(raw.is_inference()):
            tensor = torch.Tensor._make_wrapper_subclass(
                cls,
                raw.size(),
                strides=raw.stride(),
                storage_offset=raw.storage_offset(),
                dtype=raw.dtype,
                device=torch.device(NAME, card.index),
            )
        tensor.raw, tensor.card, tensor._held = raw, card, held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})

    def __repr__(self) -> str:
        return f"OnCard({self.raw!r}, device='{self.device}')"

    @property
    def data(self) -> torch.Tensor:
        """The tensor without its history; assigning makes this one look at what another looks at."""
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, other: torch.Tensor) -> None:
        torch.Tensor.data.__set__(self, other)  # refuses what is on no card, and takes over shape and device only
        self.raw, self.card, self._held = other.raw, other.card, other._held

    def data_ptr(self) -> int:
        """Return an address that views of one storage share."""
        return self.raw.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        """Return the storage that stands in for the card's: its size and address are right, its device is not."""
        return self.raw.untyped_storage()

    def numpy(self, *, force: bool = False) -> Any:
        """Raise TypeError, as a tensor of any device but the CPU does, unless `force` copies it."""
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. "
            "Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def tolist(self) -> Any:
        """Copy it to the host and return its elements."""
        return self.detach().cpu().tolist()

    def record_stream(self, stream: Stream) -> None:
        """Do nothing: no memory is reused while an op runs."""


def card_of(device: str | int | torch.device | None) -> Card:
    """Return the card that a device names; the first one without an index. Raises RuntimeError."""
    index = device if isinstance(device, int) else torch.device(device or NAME).index or 0
    if index >= BACKEND.device_count():
        raise RuntimeError(f"{NAME} error: invalid device ordinal")
    return CARDS[index]


def _run(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run `op` on the tensors that those on cards hold, and put what comes out on the card it belongs to."""
    # Under inference mode composite ops arrive whole, else in parts; here they come in parts always.
    parts = op.decompose(*args, **kwargs)
    if parts is not NotImplemented:
        return parts
    leaves, spec = pytree.tree_flatten((args, kwargs))
    mine = {id(leaf.raw): leaf for leaf in leaves if isinstance(leaf, OnCard)}
    device = kwargs.get("device")
    source: Card | None = getattr(args[0], "card", None)
    target = _target(device, mine)
    if op is _aten.copy_.default:
        _count_copy(args[1], getattr(args[1], "card", None), source)
    elif op is _aten._to_copy.default:
        _count_copy(args[0], source, target)
    elif op is _aten._local_scalar_dense.default:
        _count_copy(args[0], source, None)
    else:
        # The CPU may index a card's tensor, as with CUDA.
        _require_one_device((args[0], *args[2:]) if op in _INDEXING and source else leaves)
    plain_args, plain_kwargs = pytree.tree_unflatten([_plain(leaf) for leaf in leaves], spec)
    with torch.no_grad():
        found = op(*plain_args, **plain_kwargs)
    for tensor in mine.values():
        if tensor.raw.shape != tensor.shape or tensor.raw.stride() != tensor.stride():
            raise NotImplementedError(f"{op} changes the shape of a {NAME} tensor in place")

    if op is _aten.copy_.default:
        return args[0]

    def placed(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or target is None:
            return value
        return mine[id(value)] if id(value) in mine else OnCard(value, target)

    return pytree.tree_map(placed, found)


def _target(device: torch.device | None, mine: dict[int, OnCard]) -> Card | None:
    """The card of an op's results, None for the CPU."""
    if device is None:
        return next(iter(mine.values())).card
    return card_of(device) if torch.device(device).type == NAME else None


def _count_copy(tensor: torch.Tensor, source: Card | None, target: Card | None) -> None:
    if target is None and source is not None:
        source.copied(tensor.nbytes, "to_host")
    elif target is not None and target is not source:
        target.copied(tensor.nbytes, "from_other_card" if source else "to_device")


def _require_one_device(values: Any) -> None:
    tensors = [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    found = {str(tensor.device) for tensor in tensors if isinstance(tensor, OnCard) or tensor.dim()}
    if len(found) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(found, reverse=True))}!"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, OnCard):
        return value.raw
    if isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    return value


class Event:
    """Something that has always happened already."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        """Take what torch.cuda.Event takes."""

    def record(self, stream: Stream | None = None) -> None:
        """Do nothing."""

    def wait(self, stream: Stream | None = None) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing."""

    def query(self) -> bool:
        """Return True."""
        return True

    def elapsed_time(self, end: Event) -> float:
        """Return 0 milliseconds."""
        return 0.0


class Stream:
    """A queue whose work is done when it is put there."""

    def __init__(self, device: str | int | torch.device | None = None, priority: int = 0) -> None:
        """Make a stream of a card. Raises RuntimeError."""
        self.device = torch.device(NAME, card_of(device).index)

    def wait_stream(self, stream: Stream) -> None:
        """Do nothing."""

    def wait_event(self, event: Event) -> None:
        """Do nothing."""

    def record_event(self, event: Event | None = None) -> Event:
        """Return the event."""
        return event or Event()

    def synchronize(self) -> None:
        """Do nothing."""

    def query(self) -> bool:
        """Return True."""
        return True


@dataclass(frozen=True, slots=True)
class Properties:
    """What a card says of itself, by the names of torch.cuda's."""

    name: str
    total_memory: int
    is_integrated: bool


class Backend:
    """What `torch.fakegpu` answers: the part of `torch.cuda` that is asked of a device, by the same names."""

    Stream: ClassVar = Stream
    Event: ClassVar = Event

    def __init__(self) -> None:
        """Show both cards."""
        self.visible = len(CARDS)
        """How many cards there are; a test may hide some."""
        self.initialized = True
        """Whether this process has used the device; a test may deny it."""
        self._current = threading.local()

    def is_available(self) -> bool:
        """Whether there is a card."""
        return self.visible > 0

    def is_initialized(self) -> bool:
        """Whether this process has used the device."""
        return self.initialized

    def device_count(self) -> int:
        """Return the number of cards."""
        return self.visible

    def current_device(self) -> int:
        """Return the index of the card that `fakegpu` without an index means."""
        return 0

    def get_device_name(self, device: Any = None) -> str:
        """Return a name that differs between cards."""
        return f"Fake GPU {card_of(device).index}"

    def get_device_properties(self, device: Any = None) -> Properties:
        """Return what the card says of itself."""
        card = card_of(device)
        return Properties(self.get_device_name(device), card.total, card.shares_ram)

    def synchronize(self, device: Any = None) -> None:
        """Do nothing but check the device."""
        card_of(device)

    def empty_cache(self) -> None:
        """Give freed bytes of all cards back."""
        for card in CARDS:
            card.empty_cache()

    def memory_allocated(self, device: Any = None) -> int:
        """Return the bytes of living tensors."""
        return card_of(device).live

    def memory_reserved(self, device: Any = None) -> int:
        """Return the bytes of living tensors and of those freed but kept."""
        return card_of(device).reserved

    def max_memory_allocated(self, device: Any = None) -> int:
        """Return the most bytes that lived at once."""
        return card_of(device).peak

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        """Count the peak from now."""
        card = card_of(device)
        card.peak = card.live

    def set_per_process_memory_fraction(self, fraction: float, device: Any = None) -> None:
        """Let this process keep so much of what the card has now; what it keeps already stays. Raises ValueError."""
        if not isinstance(fraction, float):
            raise TypeError("Invalid type for fraction argument, must be `float`")
        if not 0 <= fraction <= 1:
            raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
        card = card_of(device)
        card.limit = int(fraction * card.total)

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        """Return the free and all bytes of a card."""
        card = card_of(device)
        return max(0, card.total - card.reserved - card.used_by_others), card.total

    def current_stream(self, device: Any = None) -> Stream:
        """Return the stream that this thread is in, a new one outside of all."""
        return getattr(self._current, "stream", None) or Stream(device)

    def stream(self, stream: Stream | None) -> AbstractContextManager[None]:
        """Make `stream` the current one of this thread."""
        return nullcontext() if stream is None else self._within(stream)

    @contextmanager
    def _within(self, stream: Stream) -> Iterator[None]:
        before = getattr(self._current, "stream", None)
        self._current.stream = stream
        try:
            yield
        finally:
            self._current.stream = before

    def manual_seed_all(self, seed: int) -> None:
        """Do nothing: random numbers are the CPU's. `torch.manual_seed` calls it."""

    def _is_in_bad_fork(self) -> bool:
        return False


BACKEND: Final = Backend()


@cache
def register() -> None:
    """Give this process the device; it stays for the life of the process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=BACKEND)
    # Factories reach the device without a tensor that stands on it. The others are made of the first two; these
    # last would resize an empty one.
    factories = ("empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step", "eye", "eye.m")
    for name in factories:
        torch.library.impl(f"aten::{name}", "PrivateUse1")(_factory(name))
    torch.library.impl("aten::_copy_from", "PrivateUse1")(_copy_from)


def _factory(name: str) -> Any:
    packet, _, overload = name.partition(".")
    op = getattr(getattr(_aten, packet), overload or "default")

    def make(*args: Any, device: Any = None, pin_memory: Any = None, **kwargs: Any) -> OnCard:
        card = card_of(device)
        return OnCard(op(*args, **kwargs, device="cpu"), card)

    return make


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """The copy of `torch.tensor(..., device=...)`, which keeps it from arriving as an op on a subclass."""
    _run(_aten.copy_.default, (target, source), {})
    return target
