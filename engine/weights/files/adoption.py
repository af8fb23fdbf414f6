"""How a module's weights come to stand in files: those that it was read from, and one of ours for the rest."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.errors import LoadFailed
from engine.weights.files.conversion import can_hold, convert
from engine.weights.files.identity import Identity
from engine.weights.files.layout import Place
from engine.weights.files.mapping import Mapping, runs_of
from engine.weights.files.matching import Found, Places, same
from engine.weights.files.pages import Usage
from engine.weights.files.store import Store
from engine.weights.files.survey import Stretch, Survey, Tenant

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

AUTO: Final = "auto"
"""The element type of the files on a device; on a CPU float32 for half precision."""


class Adoption:
    """What of a module stands in which file, in the element type that it computes in."""

    def __init__(self, store: Store, *, device: str, dtype: str) -> None:
        """Prepare for `device` and `dtype`: auto, or a floating type that all weights of such types shall have."""
        self.found: dict[str, tuple[Path, str]] = {}
        """Stretch -> the file, and the tensor in it, that holds its bytes."""
        self.mappings: list[Mapping] = []
        self.problem: str | None = None
        """Why some of the weights are in plain memory; None when none is."""
        self._store = store
        self._on_cpu = device == "cpu"
        self._dtype = dtype
        self._converted: Path | None = None
        self._runs: dict[Path, tuple[tuple[int, int], ...]] = {}
        """File -> where in it weights of this module lie; another module may use the rest."""

    def settle(self, seen: Survey, sources: Sequence[Identity], known: Found, made_by: str) -> None:
        """Let every stretch live in a mapping: of one of `sources` where it holds it as it is, else of a file of ours.

        `made_by` and `known` are as in `Home`. After an error `close` has to be called all the same.
        """
        self.problem = seen.problem
        unmatched = self._move_in(seen.stretches, sources, known)
        if unmatched:
            self._convert(unmatched, sources, made_by)
        for mapping in self.mappings:
            path = mapping.identity.path
            self._runs[path] = runs_of(mapping.places[name] for file, name in self.found.values() if file == path)
        for tenant in seen.loose:
            dtype = self._loose_type(tenant)
            if dtype is not tenant.tensor.dtype:
                tenant.tensor.data = tenant.tensor.to(dtype)

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

    def place_of(self, stretch: Stretch) -> tuple[Mapping, int] | None:
        """Return in which mapping a stretch stands and at which byte of its file; None for plain memory."""
        if stretch.name not in self.found:
            return None
        path, name = self.found[stretch.name]
        mapping = next(mapping for mapping in self.mappings if mapping.identity.path == path)
        return mapping, mapping.places[name].begin

    def written(self, stretches: Iterable[Stretch]) -> Iterator[Stretch]:
        """Find those whose bytes are not those of their file any more, or cannot be compared."""
        files = {mapping.identity.path: _mapped(mapping.identity.path) for mapping in self.mappings}
        for stretch in stretches:
            path, name = self.found[stretch.name]
            file = files[path]
            if file is None or not same(stretch.flat, file.flat(file.places[name])):
                yield stretch

    def _move_in(self, stretches: Iterable[Stretch], sources: Sequence[Identity], known: Found) -> list[Stretch]:
        """Settle every stretch that a file holds as it is; return those that can be converted."""
        mappings = [mapping for source in sources if (mapping := _mapped(source.path)) is not None]
        places = Places(mappings)
        unmatched = []
        for stretch in stretches:
            if not can_hold(stretch.flat.dtype):
                self.problem = f"{stretch.name} is of type {stretch.flat.dtype}, which no file can hold"
            elif self._type(stretch.flat) is not stretch.flat.dtype or (match := places.take(stretch, known)) is None:
                unmatched.append(stretch)
            else:
                self._settle(stretch, *match)
        self.mappings = [m for m in mappings if any(path == m.identity.path for path, _ in self.found.values())]
        for mapping in mappings:
            if mapping not in self.mappings:
                mapping.close()
        return unmatched

    def _convert(self, unmatched: list[Stretch], sources: Sequence[Identity], made_by: str) -> None:
        """Settle stretches in a file of our own; in plain memory, with the reason, where that cannot be."""
        types = {stretch.name: self._type(stretch.flat) for stretch in unmatched}
        try:
            if not sources:
                raise OSError("it comes from no weights file")  # noqa: TRY301 - one way out for every such reason
            self._converted = convert(unmatched, types, self._store, sources=sources, made_by=made_by)
            mapping = Mapping(self._converted)
        except (OSError, LoadFailed) as error:
            self.problem = (getattr(error, "strerror", None) or str(error)).rstrip(".")
            _log.warning("converted weights cannot be kept on disk: %s", self.problem)
            for stretch in unmatched:
                stretch.settle(stretch.flat.to(types[stretch.name]))
            return
        self.mappings.append(mapping)
        for stretch in unmatched:
            self._settle(stretch, mapping, mapping.places[stretch.name])

    def _settle(self, stretch: Stretch, mapping: Mapping, place: Place) -> None:
        stretch.settle(mapping.flat(place))
        self.found[stretch.name] = (mapping.identity.path, place.name)

    def _type(self, tensor: torch.Tensor) -> torch.dtype:
        """The element type that a weight is computed in."""
        import torch

        half = tensor.dtype in (torch.float16, torch.bfloat16)
        if self._dtype == AUTO:
            return torch.float32 if half and self._on_cpu else tensor.dtype
        wanted: torch.dtype = getattr(torch, self._dtype)
        return wanted if half or tensor.dtype in (torch.float32, torch.float64) else tensor.dtype

    def _loose_type(self, tenant: Tenant) -> torch.dtype:
        """The same for what stands in no file: a buffer that is wider than the weights was made so for a reason."""
        import torch

        tensor = tenant.tensor
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
