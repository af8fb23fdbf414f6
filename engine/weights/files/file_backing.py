"""The files behind a module's weights: those it was read from, and a converted one for the rest."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import LoadFailed
from engine.weights.files.conversion import can_hold, convert
from engine.weights.files.identity import Identity
from engine.weights.files.inventory import Inventory, Region, TensorRef
from engine.weights.files.layout import Place
from engine.weights.files.mapping import Mapping, runs_of
from engine.weights.files.matching import Places, same
from engine.weights.files.pages import Usage
from engine.weights.files.store import Store
from engine.weights.home_request import AUTO, HomeRequest

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


class FileBacking:
    """The mapped files of one module, in the element type that it computes in."""

    def __init__(self, store: Store, request: HomeRequest) -> None:
        """Prepare for the request; `assign` maps the files."""
        self.locations: dict[str, tuple[Path, str]] = {}
        """Name of a region -> the file with its bytes, and the tensor's name in that file."""
        self.mappings: list[Mapping] = []
        self.problem: str | None = None
        """Why some of the weights are in plain memory; None if none is."""
        self._store = store
        self._request = request
        self._converted: Path | None = None
        self._runs: dict[Path, tuple[tuple[int, int], ...]] = {}
        """File -> its pages with weights of this module; another module may use the rest."""

    def assign(self, inventory: Inventory) -> None:
        """Point every region to a mapping: of a source that holds it exactly, else of a converted file.

        After an error `close` must still be called.
        """
        self.problem = inventory.problem
        unmatched = self._match(inventory.regions)
        if unmatched:
            self._convert(unmatched)
        for mapping in self.mappings:
            path = mapping.identity.path
            self._runs[path] = runs_of(mapping.places[name] for file, name in self.locations.values() if file == path)
        for ref in inventory.loose:
            dtype = self._loose_type(ref)
            if dtype is not ref.tensor.dtype:
                ref.tensor.data = ref.tensor.to(dtype)

    def close(self) -> None:
        """Release the files; they are unmapped once the module is freed too."""
        for mapping in self.mappings:
            mapping.close()
        if self._converted is not None:
            self._store.release(self._converted)
            self._converted = None

    @property
    def files(self) -> list[Identity]:
        """The mapped files, as they were when they were mapped."""
        return [mapping.identity for mapping in self.mappings]

    def usage(self) -> Usage:
        """Return the usage of the weights in all mappings together; a figure unknown for one is unknown."""
        usages = [mapping.usage(self._runs.get(mapping.identity.path)) for mapping in self.mappings]
        return Usage(_total(usage.resident for usage in usages), _total(usage.written for usage in usages))

    def give_back(self) -> None:
        """Give all pages back to the system; raises OSError."""
        for mapping in self.mappings:
            mapping.give_back()

    def place_of(self, region: Region) -> tuple[Mapping, int] | None:
        """Return the mapping of a region and the region's first byte in that file; None if in plain memory."""
        if region.name not in self.locations:
            return None
        path, name = self.locations[region.name]
        mapping = next(mapping for mapping in self.mappings if mapping.identity.path == path)
        return mapping, mapping.places[name].begin

    def modified(self, regions: Iterable[Region]) -> Iterator[Region]:
        """Return those whose bytes differ from their file's, or cannot be compared with them."""
        files = {mapping.identity.path: _mapped(mapping.identity.path) for mapping in self.mappings}
        for region in regions:
            path, name = self.locations[region.name]
            file = files[path]
            if file is None or not same(region.flat, file.flat(file.places[name])):
                yield region

    def _match(self, regions: Iterable[Region]) -> list[Region]:
        """Assign every region that a source holds exactly; return those that can be converted."""
        mappings = [mapping for source in self._request.sources if (mapping := _mapped(source.path)) is not None]
        places, known = Places(mappings), self._request.known
        unmatched = []
        for region in regions:
            if not can_hold(region.flat.dtype):
                self.problem = f"{region.name} is of type {region.flat.dtype}, which no file can hold"
            elif self._type(region.flat) is not region.flat.dtype or (match := places.take(region, known)) is None:
                unmatched.append(region)
            else:
                self._assign(region, *match)
        self.mappings = [m for m in mappings if any(path == m.identity.path for path, _ in self.locations.values())]
        for mapping in mappings:
            if mapping not in self.mappings:
                mapping.close()
        return unmatched

    def _convert(self, unmatched: list[Region]) -> None:
        """Assign regions to a converted file; to plain memory, with the reason, if it cannot be written."""
        types = {region.name: self._type(region.flat) for region in unmatched}
        sources, made_by = self._request.sources, self._request.made_by
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
        self.locations[region.name] = (mapping.identity.path, place.name)

    def _type(self, tensor: torch.Tensor) -> torch.dtype:
        """Return the element type that a weight is computed in."""
        import torch

        half = tensor.dtype in (torch.float16, torch.bfloat16)
        if self._request.dtype == AUTO:
            return torch.float32 if half and self._request.on_cpu else tensor.dtype
        wanted: torch.dtype = getattr(torch, self._request.dtype)
        return wanted if half or tensor.dtype in (torch.float32, torch.float64) else tensor.dtype

    def _loose_type(self, ref: TensorRef) -> torch.dtype:
        """Return the same for a tensor that no file has; a buffer wider than the weights is so on purpose."""
        import torch

        tensor = ref.tensor
        narrow = tensor.dtype in (torch.float16, torch.bfloat16)
        return self._type(tensor) if narrow or isinstance(tensor, torch.nn.Parameter) else tensor.dtype


def _total(figures: Iterable[int | None]) -> int | None:
    known = list(figures)
    return None if None in known else sum(filter(None, known))


def _mapped(path: Path) -> Mapping | None:
    """Return a mapping of a safetensors file; None for other files and for invalid ones, which the library skipped."""
    if path.suffix != ".safetensors":
        return None
    try:
        return Mapping(path)
    except (LoadFailed, OSError) as error:
        _log.warning("not mapped: %s", error)
        return None
