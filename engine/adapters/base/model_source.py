"""The files that one load reads, and the findings of an earlier load of the same files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.adapters.sources import content, weight_names
from engine.adapters.sources.linked_folder import LinkedFolder
from engine.adapters.sources.locate import Reference
from engine.adapters.sources.model_files import open_folder, revision
from engine.weights.files.identity import Identity
from engine.weights.files.mapping import warm_cache
from engine.weights.files.store import Store
from engine.weights.home_request import Locations

if TYPE_CHECKING:
    import torch

    from engine.weights.home import Home


@dataclass(frozen=True, slots=True)
class Source:
    """A model's files as its library reads them; `close` when nothing of the model is in use."""

    own_folder: Path
    """The folder that the user or the hub put the model into."""
    files: LinkedFolder
    revision: str | None
    made_by: str
    """The libraries with their versions and a digest of the configuration: others may read the same files otherwise."""

    @property
    def folder(self) -> Path:
        """The folder that the library must read, without pickled weights."""
        return self.files.folder

    @property
    def identities(self) -> tuple[Identity, ...]:
        """The files that the weights come from, as they were before they were read."""
        return self.files.sources

    def revision_of(self, module: Any) -> str | None:
        """Return the revision with the element types that `module` computes in, because answers depend on both."""
        types = {weight.dtype for weight in module.parameters() if weight.is_floating_point()}
        widest_first = sorted(types, key=lambda dtype: (-dtype.itemsize, str(dtype)))
        spelled = [str(dtype).removeprefix("torch.") for dtype in widest_first]
        return "+".join(filter(None, (self.revision, *spelled))) or None

    def warm_cache(self) -> None:
        """Read the safetensors files into the system's cache, and nothing of them into this process."""
        for identity in self.identities:
            if identity.path.suffix == weight_names.SAFE:
                warm_cache(identity.path)

    def close(self) -> None:
        """Remove the links and release the converted files; safe to call twice."""
        self.files.close()


def open_source(
    name: str,
    reference: Reference,
    own_folder: Path,
    *,
    store: Store,
    libraries: str,
) -> Source:
    """Return the files of encoder `name` in `own_folder`, converted first if they are pickled.

    Raises LoadFailed, and Unavailable for missing and quantised weights.
    """
    files = open_folder(name, reference, own_folder, store)
    try:
        named = revision(name, reference, own_folder)
        return Source(own_folder, files, named, f"{libraries}, {content.configuration(own_folder)}")
    except BaseException:
        files.close()
        raise


class Recall:
    """Findings and writes of the last load, kept as long as the same files are read by the same libraries."""

    def __init__(self) -> None:
        self.found: Locations = {}
        """The place of each tensor in the files."""
        self.writes: dict[str, torch.Tensor] = {}
        """Copies of what the module wrote into its weights, until a later load has restored them."""
        self._identities: tuple[Identity, ...] = ()
        self._made_by = ""

    def about(self, source: Source) -> None:
        """Forget all of it unless it is about this source."""
        if (source.identities, source.made_by) != (self._identities, self._made_by):
            self._identities, self._made_by = source.identities, source.made_by
            self.found, self.writes = {}, {}

    def restore(self, home: Home) -> None:
        """Give the writes to the home of the next load, and keep its findings."""
        self.found = home.locations
        home.restore(self.writes)
        self.writes = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the writes that are kept."""
        return sum(tensor.nbytes for tensor in self.writes.values())
