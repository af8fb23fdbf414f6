"""Where one module's weights live: in mappings of its files, so that stepping down and coming back copy nothing."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping as Table
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.errors import CannotRest, LoadFailed
from engine.weights import libc
from engine.weights.footprint import Footprint
from engine.weights.identity import Identity
from engine.weights.layout import Place
from engine.weights.mapping import TORCH_NAMES, Mapping
from engine.weights.store import Entry, Store
from engine.weights.survey import Stretch, survey

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

_FORMAT: Final = 1
"""Counts up when converted files are written in another way."""
_SAFETENSORS_NAMES: Final = {torch_name: name for name, torch_name in TORCH_NAMES.items()}
_PAGE: Final = 4096

_Free = dict[tuple[str, int], list[tuple[Mapping, Place]]]
"""Torch's element type and the number of elements -> the places in files that nobody took yet."""

Found = Table[str, tuple[Path, str]]
"""Stretch -> the file, and the tensor in it, that holds its bytes."""


class Home:
    """The weights of one module, as views of copy-on-write mappings of its files.

    Where a file holds a tensor as the module uses it, that is the file itself; for the others (half precision on a
    CPU, renamed or fused by the library, pickled) one converted file is written into the store. When that fails they
    stay in plain memory, and `cannot_rest` says why. Buffers that no file has stay as the library made them.
    """

    def __init__(
        self,
        module: Any,
        sources: Sequence[Identity],
        store: Store,
        *,
        device: str,
        made_by: str,
        known: Found | None = None,
    ) -> None:
        """Adopt `module`, which is on the CPU.

        `sources` are its weights files as they were before it was read, `made_by` the libraries that read it (others
        may read it otherwise); `device` is where it will compute, on a CPU half precision as float32; `known` is what
        an earlier home of the same files has `found`. Raises LoadFailed when a file changed meanwhile.
        """
        seen = survey(module)
        self.cannot_rest: str | None = None
        """Why the weights would not survive or not shrink in RAM; None when they can rest there."""
        self.found: dict[str, tuple[Path, str]] = {}
        self._sources = tuple(sources)
        self._store = store
        self._converted: Path | None = None
        self._mappings: list[Mapping] = []
        self._stretches = seen.stretches
        self._loose = seen.loose
        self._device = device
        self._lifted = False
        try:
            self._adopt(seen.problem, known or {}, made_by)
        except BaseException:
            self.close()
            raise

    def _adopt(self, problem: str | None, known: Found, made_by: str) -> None:
        import torch

        self._refuse_stale()
        if problem is not None:
            self._stay_plain(problem)
        strangers = self._move_in(known)
        if strangers:
            self._convert(strangers, made_by)
        if self._on_cpu:
            for tensor in self._loose:
                tensor.data = _widened(tensor)
        self._plain = sum(s.flat.nbytes for s in self._stretches if s.name not in self.found)
        self._plain += sum(tensor.nbytes for tensor in self._loose if tensor.layout is torch.strided)
        self.total = self._plain + sum(s.flat.nbytes for s in self._stretches if s.name in self.found)
        self._refuse_stale()
        if self.cannot_rest is None:
            # Finding the places has touched every page; the first use takes those that it needs.
            self._give_back()

    # Looking

    def stale(self) -> str | None:
        """Say what happened to one of its files since, None for nothing; a stat per file, no page is touched."""
        files = (*self._sources, *(mapping.identity for mapping in self._mappings))
        return next((changed for file in files if (changed := file.changed())), None)

    def footprint(self) -> Footprint:
        """Return the resident bytes at this instant as the system counts them; nominal where it does not say."""
        mapped = [mapping.usage().resident for mapping in self._mappings]
        known = [resident for resident in mapped if resident is not None]
        resident = self._plain + (sum(known) if len(known) == len(mapped) else self.total - self._plain)
        if not self._lifted:
            return Footprint(on_device=0, in_ram=resident, total=self.total)
        if self._on_cpu:
            return Footprint(on_device=resident, in_ram=0, total=self.total)
        return Footprint(on_device=self.total, in_ram=resident, total=self.total)

    def remains(self) -> int:
        """Return the resident bytes of the mappings that are still there after `close`."""
        return sum(mapping.usage().resident or 0 for mapping in self._mappings if not mapping.gone)

    @property
    def gone(self) -> bool:
        """Whether, after `close`, none of its files is mapped any more."""
        return all(mapping.gone for mapping in self._mappings)

    # Moving

    def fault_in(self) -> None:
        """Read every page of the files now."""
        import torch

        for stretch in self._stretches:
            stretch.flat.view(torch.uint8)[::_PAGE].sum()

    def lift(self) -> None:
        """Let the module compute: on copies that are on its device, on a CPU on the mapped pages themselves."""
        if not self._on_cpu:
            for stretch in self._stretches:
                stretch.look_at(stretch.flat.to(self._device))
            for tensor in self._loose:
                tensor.data = tensor.to(self._device)
            self._give_back()
        self._lifted = True

    def lower(self) -> int:
        """Take the weights off their device and give the pages back, which the next use takes from the file again.

        Returns how many bytes that should free. Raises CannotRest when they are not all in files (on a CPU), or when
        the module has written into them; OSError when the system refuses.
        """
        expected = self.footprint().on_device - (self._plain if self._on_cpu else 0)
        if not self._on_cpu:
            for stretch in self._stretches:
                stretch.look_at(stretch.flat)
            for tensor in self._loose:
                tensor.data = tensor.to("cpu")
        if self.cannot_rest is None:
            self.cannot_rest = self._would_lose()
        if self.cannot_rest is not None:
            raise CannotRest(self.cannot_rest)
        self._give_back()
        self._lifted = False
        return expected

    def writes(self) -> dict[str, torch.Tensor]:
        """Return copies of what the module has written into: stretch -> its elements, (n,); empty for most."""
        if self._would_lose() is None or self.stale():
            return {}
        files = {mapping.identity.path: Mapping(mapping.identity.path) for mapping in self._mappings}
        written = {}
        for stretch in self._stretches:
            if stretch.name in self.found:
                path, name = self.found[stretch.name]
                if not _same(stretch.flat, files[path].flat(files[path].places[name])):
                    written[stretch.name] = stretch.flat.clone()
        return written

    def restore(self, writes: Table[str, torch.Tensor]) -> None:
        """Write again what an earlier home of the same files had been written into."""
        for stretch in self._stretches:
            if stretch.name in writes:
                stretch.flat.copy_(writes[stretch.name])

    def close(self) -> None:
        """Let go of everything; the files are unmapped once the module is gone too."""
        self._stretches, self._loose = (), ()
        for mapping in self._mappings:
            mapping.close()
        if self._converted is not None:
            self._store.release(self._converted)
            self._converted = None

    # Within

    @property
    def _on_cpu(self) -> bool:
        return self._device == "cpu"

    def _stay_plain(self, reason: str) -> None:
        """Where the device is elsewhere plain memory is a place to rest like any other."""
        if self._on_cpu:
            self.cannot_rest = f"Its weights are in plain memory, so when idle it is unloaded: {reason}."

    def _refuse_stale(self) -> None:
        if changed := self.stale():
            raise LoadFailed(f"{changed} while it was read.", next_step="Try again when the file is complete.")

    def _give_back(self) -> None:
        for mapping in self._mappings:
            mapping.give_back()

    def _would_lose(self) -> str | None:
        """Say why giving the pages back would lose something that is in no file, None when it would not."""
        written = [mapping.usage().written for mapping in self._mappings]
        if any(written):
            return "It writes into its own weights, so when idle it is unloaded; what it wrote is kept."
        if None in written:
            return "The system does not say whether it writes into its own weights, so when idle it is unloaded."
        return None

    def _move_in(self, known: Found) -> list[Stretch]:
        """Settle every stretch that a file holds as it is; return the others."""
        mappings = [mapping for source in self._sources if (mapping := _mapped(source.path)) is not None]
        free: _Free = {}
        for mapping in mappings:
            for place in filter(mapping.can_view, mapping.places.values()):
                free.setdefault((TORCH_NAMES[place.dtype], math.prod(place.shape)), []).append((mapping, place))
        strangers = []
        for stretch in self._stretches:
            half = self._on_cpu and stretch.flat.dtype is not _widened_type(stretch.flat.dtype)
            if _name(stretch.flat.dtype) not in _SAFETENSORS_NAMES:
                self._stay_plain(f"{stretch.name} is of type {stretch.flat.dtype}, which no file can hold")
                continue
            match = None if half else _taken(stretch, free, known.get(stretch.name))
            if match is None:
                strangers.append(stretch)
            else:
                self._settle(stretch, *match)
        self._mappings = [m for m in mappings if any(path == m.identity.path for path, _ in self.found.values())]
        for mapping in mappings:
            if mapping not in self._mappings:
                mapping.close()
        return strangers

    def _convert(self, strangers: list[Stretch], made_by: str) -> None:
        """Settle stretches in a file of our own; in plain memory, with the reason, where that cannot be."""
        types = {s.name: _widened_type(s.flat.dtype) if self._on_cpu else s.flat.dtype for s in strangers}
        try:
            mapping = self._converted_file(strangers, types, made_by)
        except OSError as error:
            _log.warning("converted weights cannot be kept on disk: %s", error)
            self._stay_plain(str(error))
            for stretch in strangers:
                stretch.settle(stretch.flat.to(types[stretch.name]))
            return
        self._mappings.append(mapping)
        for stretch in strangers:
            self._settle(stretch, mapping, mapping.places[stretch.name])

    def _converted_file(self, strangers: list[Stretch], types: Table[str, torch.dtype], made_by: str) -> Mapping:
        if not self._sources:
            raise OSError("it comes from no weights file")
        entries = []
        for stretch in strangers:
            dtype = types[stretch.name]
            spelled = _SAFETENSORS_NAMES[_name(dtype)]
            entries.append(Entry(stretch.name, spelled, (stretch.flat.numel(),), partial(_bytes, stretch.flat, dtype)))
        what = [(entry.name, entry.dtype, entry.shape) for entry in entries]
        identity = [_FORMAT, made_by, [source.key for source in self._sources], what]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        self._converted = self._store.provide(key, entries)
        return Mapping(self._converted)

    def _settle(self, stretch: Stretch, mapping: Mapping, place: Place) -> None:
        stretch.settle(mapping.flat(place))
        self.found[stretch.name] = (mapping.identity.path, place.name)


def _mapped(path: Path) -> Mapping | None:
    """The mapping of a safetensors file; None for another file, or one that only looks like it and the library left."""
    if path.suffix != ".safetensors":
        return None
    try:
        return Mapping(path)
    except LoadFailed as error:
        _log.warning("not mapped: %s", error.message)
        return None


def _taken(stretch: Stretch, free: _Free, known: tuple[Path, str] | None) -> tuple[Mapping, Place] | None:
    """The place in a file whose bytes are those of the stretch; the most alike name is looked at first.

    It serves no other stretch then: two that are equal by chance must not become one.
    """
    fitting = free.get((_name(stretch.flat.dtype), stretch.flat.numel()), [])
    fitting.sort(key=lambda pair: _likeness(stretch.name, pair[1].name), reverse=True)
    for index, (mapping, place) in enumerate(fitting):
        if known == (mapping.identity.path, place.name) or _same(stretch.flat, mapping.flat(place)):
            return fitting.pop(index)
    return None


def _likeness(name: str, other: str) -> int:
    """How many parts of two dotted names agree, from the end."""
    pairs = zip(reversed(name.split(".")), reversed(other.split(".")), strict=False)
    alike = 0
    for mine, theirs in pairs:
        if mine != theirs:
            break
        alike += 1
    return alike


def _same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.nbytes == right.nbytes and libc.same_bytes(left.data_ptr(), right.data_ptr(), left.nbytes)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _widened_type(dtype: torch.dtype) -> torch.dtype:
    import torch

    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(_widened_type(tensor.dtype))


def _bytes(flat: torch.Tensor, dtype: torch.dtype) -> Any:
    """The elements as `dtype`, as bytes that a file takes."""
    import torch

    return flat.to(dtype).view(torch.uint8).numpy()
