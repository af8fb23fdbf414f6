"""Where one module's weights live: in mappings of its files, so that stepping down and coming back copy nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Table
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.errors import CannotRest, FilesChanged, LoadFailed
from engine.weights.conversion import can_hold, convert
from engine.weights.footprint import Footprint
from engine.weights.identity import Identity
from engine.weights.layout import Place
from engine.weights.loan import Loan
from engine.weights.mapping import Mapping
from engine.weights.matching import Found, Places, same
from engine.weights.pages import Usage
from engine.weights.store import Store
from engine.weights.survey import Stretch, survey

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


_WRITES: Final = "It writes into its own weights, so when idle it is unloaded; what it wrote is kept."


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

        `sources` are its weights files as they were before it was read, `made_by` the libraries and the configuration
        that read it (others may read it otherwise); `device` is where it will compute, on a CPU half precision as
        float32; `known` is what an earlier home of the same files has `found`. Raises LoadFailed when a file changed
        meanwhile.
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
        self._computing = False
        self._loan: Loan | None = None
        self._written: dict[str, torch.Tensor] = {}
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
        unmatched = self._move_in(known)
        if unmatched:
            self._convert(unmatched, made_by)
        if self._on_cpu:
            for tenant in self._loose:
                tenant.tensor.data = _widened(tenant.tensor)
        self._plain = sum(s.flat.nbytes for s in self._stretches if s.name not in self.found)
        self._beside = sum(t.tensor.nbytes for t in self._loose if t.tensor.layout is torch.strided)
        self._mapped = sum(s.flat.nbytes for s in self._stretches if s.name in self.found)
        self.total = self._plain + self._beside + self._mapped
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
        """Return the resident bytes at this instant as the system counts them."""
        return self._footprint(self._usage().resident)

    def remains(self) -> int | None:
        """Return the resident bytes of the mappings that are still there after `close`."""
        return self._usage().resident

    @property
    def gone(self) -> bool:
        """Whether, after `close`, none of its files is mapped any more."""
        return all(mapping.gone for mapping in self._mappings)

    # Moving

    def fault_in(self) -> None:
        """Read every page of the files now; raises OSError."""
        for mapping in self._mappings:
            mapping.read_in()

    def to_device(self) -> None:
        """Let the module compute: on copies that are on its device, on a CPU on the mapped pages themselves.

        An error, such as the device's lack of memory, leaves the module as it was.
        """
        if not self._on_cpu:
            self._loan = Loan(self._stretches, self._loose, self._device)
            if _would_lose(self._usage()) is None:
                self._give_back()
        self._computing = True

    def offload(self) -> Footprint:
        """Take the weights off their device and give the pages back, which the next use takes from the file again.

        Returns where they were before. Raises CannotRest when they are not all in files (on a CPU), or when the module
        has written into them; OSError when the system refuses.
        """
        usage = self._usage()
        before = self._footprint(usage.resident)
        self._end_loan()
        if self.cannot_rest is None:
            self.cannot_rest = _WRITES if self._written else _would_lose(usage)
        if self.cannot_rest is not None:
            raise CannotRest(self.cannot_rest)
        self._give_back()
        self._computing = False
        return before

    def writes(self) -> dict[str, torch.Tensor]:
        """Return copies of what the module has written into: stretch -> its elements, (n,); empty for most.

        Into plain memory only those writes count that torch knows of, because there is no file to compare with.
        """
        if self.stale():
            return {}
        self._end_loan()
        changed = (s for s in self._stretches if s.rebound() or (s.written() and s.name not in self.found))
        written = {stretch.name: stretch.as_it_is() for stretch in changed} | self._written
        if _would_lose(self._usage()) is None:
            return written
        files = {mapping.identity.path: _mapped(mapping.identity.path) for mapping in self._mappings}
        for stretch in self._stretches:
            if stretch.name in self.found and stretch.name not in written:
                path, name = self.found[stretch.name]
                file = files[path]
                # What cannot be compared any more is kept whole.
                if file is None or not same(stretch.flat, file.flat(file.places[name])):
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
        self._loan = None
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
            raise FilesChanged(f"{changed} while it was read.", next_step="Try again when the file is complete.")

    def _give_back(self) -> None:
        for mapping in self._mappings:
            mapping.give_back()

    def _end_loan(self) -> None:
        if self._loan is not None:
            self._written |= self._loan.end()
            self._loan = None

    def _usage(self) -> Usage:
        """What the system says of all mappings together; unknown where it does not say it of one."""
        usages = [mapping.usage() for mapping in self._mappings]
        return Usage(_total(usage.resident for usage in usages), _total(usage.written for usage in usages))

    def _footprint(self, mapped: int | None) -> Footprint:
        at_home = None if mapped is None else self._plain + mapped
        if self._computing and self._on_cpu:
            return Footprint(at_home, self._beside, self.total)
        on_device = self._loan.nbytes if self._loan else 0
        return Footprint(on_device, None if at_home is None else at_home + self._beside, self.total)

    def _move_in(self, known: Found) -> list[Stretch]:
        """Settle every stretch that a file holds as it is; return those that can be converted."""
        mappings = [mapping for source in self._sources if (mapping := _mapped(source.path)) is not None]
        places = Places(mappings)
        unmatched = []
        for stretch in self._stretches:
            if not can_hold(stretch.flat.dtype):
                self._stay_plain(f"{stretch.name} is of type {stretch.flat.dtype}, which no file can hold")
            elif self._type(stretch) is not stretch.flat.dtype or (match := places.take(stretch, known)) is None:
                unmatched.append(stretch)
            else:
                self._settle(stretch, *match)
        self._mappings = [m for m in mappings if any(path == m.identity.path for path, _ in self.found.values())]
        for mapping in mappings:
            if mapping not in self._mappings:
                mapping.close()
        return unmatched

    def _convert(self, unmatched: list[Stretch], made_by: str) -> None:
        """Settle stretches in a file of our own; in plain memory, with the reason, where that cannot be."""
        types = {stretch.name: self._type(stretch) for stretch in unmatched}
        try:
            if not self._sources:
                raise OSError("it comes from no weights file")  # noqa: TRY301 - one way out for every such reason
            self._converted = convert(unmatched, types, self._store, sources=self._sources, made_by=made_by)
            mapping = Mapping(self._converted)
        except (OSError, LoadFailed) as error:
            _log.warning("converted weights cannot be kept on disk: %s", error)
            self._stay_plain(str(error).rstrip("."))
            for stretch in unmatched:
                stretch.settle(stretch.flat.to(types[stretch.name]))
            return
        self._mappings.append(mapping)
        for stretch in unmatched:
            self._settle(stretch, mapping, mapping.places[stretch.name])

    def _type(self, stretch: Stretch) -> torch.dtype:
        """The element type that the stretch is computed in."""
        return _widened_type(stretch.flat.dtype) if self._on_cpu else stretch.flat.dtype

    def _settle(self, stretch: Stretch, mapping: Mapping, place: Place) -> None:
        stretch.settle(mapping.flat(place))
        self.found[stretch.name] = (mapping.identity.path, place.name)


def _total(figures: Iterable[int | None]) -> int | None:
    known = list(figures)
    return None if None in known else sum(filter(None, known))


def _would_lose(usage: Usage) -> str | None:
    """Say why giving the pages back would lose something that is in no file, None when it would not."""
    if usage.written:
        return _WRITES
    if usage.written is None:
        return "The system does not say whether it writes into its own weights, so when idle it is unloaded."
    return None


def _mapped(path: Path) -> Mapping | None:
    """The mapping of a safetensors file; None for another file, or one that only looks like it and the library left."""
    if path.suffix != ".safetensors":
        return None
    try:
        return Mapping(path)
    except (LoadFailed, OSError) as error:
        _log.warning("not mapped: %s", error)
        return None


def _widened_type(dtype: torch.dtype) -> torch.dtype:
    import torch

    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(_widened_type(tensor.dtype))
