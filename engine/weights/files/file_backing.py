"""How a module's weights come to stand in files: those that it was read from, and one of ours for the rest."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.errors import LoadFailed
from engine.weights.files.conversion import can_hold, convert
from engine.weights.files.identity import Identity
from engine.weights.files.inventory import Inventory, Region, TensorRef
from engine.weights.files.layout import Place
from engine.weights.files.mapping import Mapping, runs_of
from engine.weights.files.matching import Found, Places, same
from engine.weights.files.pages import Usage
from engine.weights.files.store import Store

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

AUTO: Final = "auto"
"""The element type of the files on a device; on a CPU float32 for half precision."""


class FileBacking:
    """What of a module stands in which file, in the element type that it computes in."""

    def __init__(self, store: Store, *, device: str, dtype: str) -> None:
        """Prepare for `device` and `dtype`: auto, or a floating type that all weights of such types shall have."""
        self.found: dict[str, tuple[Path, str]] = {}
        """Region -> the file, and the tensor in it, that holds its bytes."""
        self.mappings: list[Mapping] = []
        self.problem: str | None = None
        """Why some of the weights are in plain memory; None when none is."""
        self._store = store
        self._on_cpu = device == "cpu"
        self._dtype = dtype
        self._converted: Path | None = None
        self._runs: dict[Path, tuple[tuple[int, int], ...]] = {}
        """File -> where in it weights of this module lie; another module may use the rest."""

    def assign(self, seen: Inventory, sources: Sequence[Identity], known: Found, made_by: str) -> None:
        """Let every region live in a mapping: of one of `sources` where it holds it as it is, else of a file of ours.

        `made_by` and `known` are as in `Home`. After an error `close` has to be called all the same.
        """
        self.problem = seen.problem
        unmatched = self._assign_places(seen.regions, sources, known)
        if unmatched:
            self._convert(unmatched, sources, made_by)
        for mapping in self.mappings:
            path = mapping.identity.path
            self._runs[path] = runs_of(mapping.places[name] for file, name in self.found.values() if file == path)
        for ref in seen.loose:
            dtype = self._loose_type(ref)
            if dtype is not ref.tensor.dtype:
                ref.tensor.data = ref.tensor.to(dtype)

    def close(self) -> None:
        """Let go of the files; they are unmapped once the module is gone too."""
        for mapping in self.mappings:
            mapping.close()
        if self._converted is not None:
            self._store.release(self._converted)
            self._converted = None

    @property
    def files(self) -> list[Identity]:
        """The files that are mapped, as they were then."""
        return [mapping.identity for mapping in self.mappings]

    def usage(self) -> Usage:
        """What the system says of the weights in all mappings together; unknown where it does not say it of one."""
        usages = [mapping.usage(self._runs.get(mapping.identity.path)) for mapping in self.mappings]
        return Usage(_total(usage.resident for usage in usages), _total(usage.written for usage in usages))

    def give_back(self) -> None:
        """Let the system have all pages; raises OSError."""
        for mapping in self.mappings:
            mapping.give_back()

    def place_of(self, region: Region) -> tuple[Mapping, int] | None:
        """Return in which mapping a region stands and at which byte of its file; None for plain memory."""
        if region.name not in self.found:
            return None
        path, name = self.found[region.name]
        mapping = next(mapping for mapping in self.mappings if mapping.identity.path == path)
        return mapping, mapping.places[name].begin

    def written(self, regions: Iterable[Region]) -> Iterator[Region]:
        """Find those whose bytes are not those of their file any more, or cannot be compared."""
        files = {mapping.identity.path: _mapped(mapping.identity.path) for mapping in self.mappings}
        for region in regions:
            path, name = self.found[region.name]
            file = files[path]
            if file is None or not same(region.flat, file.flat(file.places[name])):
                yield region

    def _assign_places(self, regions: Iterable[Region], sources: Sequence[Identity], known: Found) -> list[Region]:
        """Settle every region that a file holds as it is; return those that can be converted."""
        mappings = [mapping for source in sources if (mapping := _mapped(source.path)) is not None]
        places = Places(mappings)
        unmatched = []
        for region in regions:
            if not can_hold(region.flat.dtype):
                self.problem = f"{region.name} is of type {region.flat.dtype}, which no file can hold"
            elif self._type(region.flat) is not region.flat.dtype or (match := places.take(region, known)) is None:
                unmatched.append(region)
            else:
                self._assign(region, *match)
        self.mappings = [m for m in mappings if any(path == m.identity.path for path, _ in self.found.values())]
        for mapping in mappings:
            if mapping not in self.mappings:
                mapping.close()
        return unmatched

    def _convert(self, unmatched: list[Region], sources: Sequence[Identity], made_by: str) -> None:
        """Settle regions in a file of our own; in plain memory, with the reason, where that cannot be."""
        types = {region.name: self._type(region.flat) for region in unmatched}
        try:
            if not sources:
                raise OSError("it comes from no weights file")  # noqa: TRY301 - one way out for every such reason
            self._converted = convert(unmatched, types, self._store, sources=sources, made_by=made_by)
            mapping = Mapping(self._converted)
        except (OSError, LoadFailed) as error:
            self.problem = (getattr(error, "strerror", None) or str(error)).rstrip(".")
            _log.warning("converted weights cannot be kept on disk: %s", self.problem)
            for region in unmatched:
                region.assign(region.flat.to(types[region.name]))
            return
        self.mappings.append(mapping)
        for region in unmatched:
            self._assign(region, mapping, mapping.places[region.name])

    def _assign(self, region: Region, mapping: Mapping, place: Place) -> None:
        region.assign(mapping.flat(place))
        self.found[region.name] = (mapping.identity.path, place.name)

    def _type(self, tensor: torch.Tensor) -> torch.dtype:
        """The element type that a weight is computed in."""
        import torch

        half = tensor.dtype in (torch.float16, torch.bfloat16)
        if self._dtype == AUTO:
            return torch.float32 if half and self._on_cpu else tensor.dtype
        wanted: torch.dtype = getattr(torch, self._dtype)
        return wanted if half or tensor.dtype in (torch.float32, torch.float64) else tensor.dtype

    def _loose_type(self, ref: TensorRef) -> torch.dtype:
        """The same for what stands in no file: a buffer that is wider than the weights was made so for a reason."""
        import torch

        tensor = ref.tensor
        narrow = tensor.dtype in (torch.float16, torch.bfloat16)
        return self._type(tensor) if narrow or isinstance(tensor, torch.nn.Parameter) else tensor.dtype


def _total(figures: Iterable[int | None]) -> int | None:
    known = list(figures)
    return None if None in known else sum(filter(None, known))


def _mapped(path: Path) -> Mapping | None:
    """The mapping of a safetensors file; None for another file, or one that only looks like it and the library left."""
    if path.suffix != ".safetensors":
        return None
    try:
        return Mapping(path)
    except (LoadFailed, OSError) as error:
        _log.warning("not mapped: %s", error)
        return None
