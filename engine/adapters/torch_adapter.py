"""What every torch model shares: how it is read, moved, rested and dropped. A kind adds what it computes."""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

from engine import paths
from engine.adapters import hub, references
from engine.adapters.protocol import Loaded
from engine.config import EncoderConfig
from engine.errors import LoadFailed, Unavailable
from engine.weights.footprint import Footprint
from engine.weights.gate import CONSTRUCTION
from engine.weights.home import Found, Home
from engine.weights.identity import Identity
from engine.weights.release import dismantle, release, settle
from engine.weights.store import Store

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


class TorchAdapter(ABC):
    """One `torch.nn.Module` from its files; its weights live in a `Home`."""

    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    """What must be installed, by the names that are imported."""

    def __init__(self, config: EncoderConfig, device: str) -> None:
        """Keep the configuration; import and read nothing."""
        self._config = config
        self._wanted_device = device
        self._device = "cpu"
        self._module: Any = None
        self._home: Home | None = None
        self._left: Home | None = None
        """A home that was closed but is still in memory, because something else refers to its weights."""
        self._sources: tuple[Identity, ...] = ()
        self._found: Found = {}
        self._writes: dict[str, torch.Tensor] = {}

    @abstractmethod
    def _import_library(self) -> str:
        """Import the model library and return its name and version."""

    @abstractmethod
    def _construct(self, folder: Path) -> Any:
        """Return the module of the model in `folder`, on the CPU, in the element type of its files."""

    @final
    def probe(self) -> None:
        """Raise Unavailable when a package or the model's folder is missing; imports nothing."""
        for package in self.packages:
            if find_spec(package) is None:
                name = package.replace("_", "-")
                raise Unavailable(f"The package {name} is not installed.", next_step=f"Run: pip install {name}")
        references.locate(self._config.model)

    @final
    def load(self) -> Loaded:
        """Read the model; asks a hub only for a model that is a hub id."""
        reference = references.locate(self._config.model)
        began = time.monotonic()
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        import torch

        library = self._import_library()
        imported = time.monotonic()
        self._device = _choose_device(torch, self._wanted_device)
        folder = Path(reference.source) if reference.local else hub.fetch(reference.source)
        sources = tuple(Identity.of(file) for file in references.weight_files(folder))
        if sources != self._sources:
            self._sources, self._found, self._writes = sources, {}, {}
        with CONSTRUCTION:
            self._module = self._construct(folder)
        self._home = Home(
            self._module,
            sources,
            _store(),
            device=self._device,
            made_by=f"{library}, torch {torch.__version__}",
            known=self._found,
        )
        self._found = self._home.found
        self._home.restore(self._writes)
        settle()
        return Loaded(
            device=self._device,
            revision=reference.revision or (None if reference.local else folder.name),
            import_seconds=imported - began,
            load_seconds=time.monotonic() - imported,
        )

    @property
    @final
    def cannot_rest(self) -> str | None:
        """Why the weights cannot stay in RAM while they are off their device, None when they can."""
        return self._home.cannot_rest if self._home else None

    @final
    def fault_in(self) -> None:
        """Read all the weights into RAM now."""
        self._at_home.fault_in()

    @final
    def resume(self) -> None:
        """Let the module compute on its device."""
        if self._device == "cpu":
            self._at_home.lift()
        else:
            with CONSTRUCTION:
                self._at_home.lift()

    @final
    def stale(self) -> str | None:
        """Say what happened to the weights' files since they were loaded, None for nothing."""
        return self._home.stale() if self._home else None

    @final
    def offload(self) -> int:
        """Give the weights' memory back, keep skeleton and tokenizer, and return the bytes that should come free.

        Raises CannotRest.
        """
        if self._device == "cpu":
            return self._at_home.lower()
        with CONSTRUCTION:
            expected = self._at_home.lower()
        self._empty_device_cache()
        return expected

    @final
    def unload(self) -> None:
        """Drop everything; what the module wrote into its weights is kept for the next load of the same files."""
        home, module = self._home, self._module
        self._home = self._module = None
        if home is not None:
            try:
                self._writes = home.writes()
            except (OSError, LoadFailed):
                _log.exception("what %s wrote into its weights is lost", self._config.name)
            home.close()
        if module is not None:
            dismantle(module)
        del module
        release()
        if home is not None and not home.gone:
            release(thoroughly=True)
        self._left = home if home is not None and not home.gone else None
        if self._device != "cpu":
            self._empty_device_cache()

    @final
    def footprint(self) -> Footprint:
        """Return where the weights are resident now."""
        if (home := self._home) is not None:
            return home.footprint()
        left = self._left.remains() if self._left else 0
        return Footprint(on_device=0, in_ram=left, total=left)

    @property
    def _at_home(self) -> Home:
        assert self._home is not None, "only between load and unload"  # noqa: S101 - the slot's promise
        return self._home

    def _empty_device_cache(self) -> None:
        import torch

        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()
        elif self._device == "mps":
            torch.mps.empty_cache()


@cache
def _store() -> Store:
    """The converted files of this user, shared by all encoders."""
    return Store(paths.cache_folder() / "weights")


def _choose_device(torch: Any, wanted: str) -> str:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    if wanted.startswith("cuda") and not cuda:
        raise LoadFailed(
            f"The device is set to {wanted}, but torch {torch.__version__} finds no CUDA GPU.",
            next_step='Set device = "auto" or "cpu", or install a CUDA build of torch.',
        )
    if wanted == "mps" and not mps:
        raise LoadFailed(
            "The device is set to mps, but this machine has none.", next_step='Set device = "auto" or "cpu".'
        )
    return wanted
