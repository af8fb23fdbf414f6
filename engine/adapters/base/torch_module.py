"""What every torch model shares: how it is read, moved, rested and dropped. A kind adds what it computes."""

from __future__ import annotations

import logging
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, final

from engine import paths
from engine.adapters.base.construction import carefully
from engine.adapters.context import ALONE, Surroundings
from engine.adapters.packages import require
from engine.adapters.protocol import Loaded
from engine.adapters.sources import hub, locate as references, model_folder
from engine.adapters.sources.linked_folder import LinkedFolder
from engine.adapters.sources.model_files import fetched, opened, revision_of
from engine.devices import Choice, DeviceMemory, choose, empty_cache, lost_device, memory, out_of_memory_on
from engine.devices.placement import CPU, NOTHING, Footprint, Needs, Placement
from engine.errors import OutOfMemory
from engine.settings.config import EncoderConfig
from engine.state import Download
from engine.weights.files.identity import Identity
from engine.weights.files.mapping import warm_cache
from engine.weights.files.store import Store
from engine.weights.gate import CONSTRUCTION
from engine.weights.home import Home
from engine.weights.home_request import HomeRequest, Locations
from engine.weights.release import dismantle, freeze_gc, release

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

_BATCH_SIZE: Final = 32
"""Inputs per forward; on a CPU larger batches are slower, because they pad more."""

T = TypeVar("T")


class TorchAdapter(ABC):
    """One `torch.nn.Module` from its files; its weights live in a `Home`."""

    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    """What must be installed, by the names that are imported."""

    def __init__(self, config: EncoderConfig, device: str, surroundings: Surroundings = ALONE) -> None:
        """Keep the configuration; import and read nothing."""
        self._config = config
        self._surroundings = surroundings
        self._download: Download | None = None
        self._wanted_device = device
        self._device = CPU
        self._needs: Needs | None = None
        self._revision: str | None = None
        self._batch_size = _BATCH_SIZE
        self._module: Any = None
        self._home: Home | None = None
        self._left: list[Home] = []
        """Homes that were closed but are still in memory, because something else refers to their weights."""
        self._linked: LinkedFolder | None = None
        self._sources: tuple[Identity, ...] = ()
        self._made_by = ""
        self._found: Locations = {}
        self._writes: dict[str, torch.Tensor] = {}

    def _import_library(self) -> str:
        """Import the model library and return its name and version; transformers, to which a kind may add its own."""
        import transformers
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        return f"transformers {transformers.__version__}"

    @abstractmethod
    def _construct(self, folder: Path) -> Any:
        """Return the module of the model in `folder`, on the CPU, in the element type of its files."""

    def _locate(self) -> references.Reference:
        """Return where the model is, asking no network; raises Unavailable. A kind may read `model` in its own way."""
        return references.locate(self._config.model)

    def _metadata(self) -> dict[str, Any]:
        """Return what there is to know of the loaded model, as plain data for JSON; `dimension` and the like."""
        return {}

    @property
    @final
    def download(self) -> Download | None:
        """How far `load` is with fetching files from a model hub; None while it fetches none."""
        return self._download

    @final
    def probe(self) -> None:
        """Raise Unavailable when a package or the model's folder is missing; imports nothing."""
        require(*self.packages)
        self._locate()

    @final
    def load(self, on: str | None = None) -> Loaded:
        """Read the model for the device that it wishes for, or for `on`; asks a hub only for a hub id."""
        reference = self._locate()
        began = time.monotonic()
        hub.be_quiet()
        import torch

        library = self._import_library()
        imported = time.monotonic()
        choice = choose(self._wanted_device) if on is None else Choice(on)
        self._device = choice.device
        folder = self._fetched(reference)
        self._linked = opened(self._config.name, folder, _store())
        sources = self._linked.sources
        revision = revision_of(self._config.name, reference, folder)
        made_by = f"{library}, torch {torch.__version__}, {model_folder.configuration(folder)}"
        if (sources, made_by) != (self._sources, self._made_by):
            self._sources, self._made_by, self._found, self._writes = sources, made_by, {}, {}
        if not (self._config.stream_layers and self._device == CPU):
            # There, less may be in memory than the files hold.
            for source in sources:
                if source.path.suffix == model_folder.SAFE:
                    warm_cache(source.path)
        with CONSTRUCTION, carefully(self._config, folder):
            self._module = self._construct(self._linked.folder)
        request = HomeRequest(
            sources=sources,
            made_by=made_by,
            device=self._device,
            dtype=self._config.dtype,
            keep=self._config.home,
            known=self._found,
        )
        self._home = Home(self._module, _store(), request)
        whole, least = self._home.needs()
        if on is None:
            self._needs = Needs(self._device, whole, least if self._config.stream_layers else None)
        self._found = self._home.locations
        self._home.restore(self._writes)
        self._writes = {}
        freeze_gc()
        self._revision = self._named(revision)
        return Loaded(
            device=self._device,
            note=choice.reason,
            streamable=least is not None,
            revision=self._revision,
            import_seconds=imported - began,
            load_seconds=time.monotonic() - imported,
            metadata=self._metadata(),
        )

    @final
    def _in_batches(self, compute: Callable[[int], T], count: int) -> T:
        """Return what `compute` makes of `count` inputs in batches of the size that it is given.

        Where the device has no memory for a batch it begins anew with batches half as large, and what worked is kept
        until the weights come up again. Raises OutOfMemory when one input alone is too much.
        """
        size = max(1, min(self._batch_size, count))
        while True:
            try:
                with lost_device(self._device), out_of_memory_on(self._device):
                    return compute(size)
            except OutOfMemory:
                if size == 1:
                    raise
            # Not before: the error may hold what was computed last.
            with lost_device(self._device):
                empty_cache(self._device)
            size = self._batch_size = (size + 1) // 2
            _log.warning("%s has memory for batches of %d at most", self._device, size)

    @property
    @final
    def cannot_rest(self) -> str | None:
        """Why the weights cannot stay in RAM while they are off their device, None when they can."""
        return self._home.cannot_rest if self._home else None

    @property
    @final
    def revision(self) -> str | None:
        """The model's revision with the element type that it computes in."""
        return self._revision

    @final
    def needs(self) -> Needs:
        """Return what the weights would take on the device that the encoder wishes for."""
        assert self._needs is not None, "only after a load"  # noqa: S101 - the slot's promise
        return self._needs

    @final
    def fault_in(self) -> None:
        """Read all the weights into RAM now; what will be streamed on a CPU into the system's file cache only."""
        if self._config.stream_layers and self._device == CPU:
            self._at_home.warm_cache()
        else:
            self._at_home.fault_in()

    @final
    def resume(self, placement: Placement) -> str | None:
        """Let the module compute, whole or streamed; raises OutOfMemory and leaves it in RAM where it does not fit."""
        self._batch_size = _BATCH_SIZE
        if placement.device == CPU:
            return self._at_home.to_device(placement)
        try:
            with CONSTRUCTION, lost_device(placement.device), out_of_memory_on(placement.device):
                return self._at_home.to_device(placement)
        except OutOfMemory:
            with lost_device(placement.device):
                empty_cache(placement.device)
            raise

    @final
    def stale(self) -> str | None:
        """Say what happened to the weights' files since they were loaded, None for nothing."""
        return self._home.stale() if self._home else None

    @final
    def offload(self) -> Footprint:
        """Give the weights' memory back, keep skeleton and tokenizer; returns where they were. Raises CannotRest."""
        if self._device == CPU:
            return self._at_home.offload()
        held = memory(self._device)
        with CONSTRUCTION:
            before = self._at_home.offload()
        empty_cache(self._device)
        self._log_what_came_free(before.on_device, held)
        return before

    @final
    def unload(self) -> bool:
        """Drop everything, and return whether it is gone.

        What the module wrote into its weights is kept for the next load of the same files.
        """
        home, module, linked = self._home, self._module, self._linked
        self._home = self._module = self._linked = None
        try:
            if home is not None:
                self._writes = home.writes()
        except Exception as error:  # noqa: BLE001 - the adapter edge: no memory for a copy, or the files are gone
            _log.exception("what %s wrote into its weights is lost", self._config.name)
            traceback.clear_frames(error.__traceback__)  # they hold weights, and a log may keep them
        finally:
            if home is not None:
                home.close()
                self._left.append(home)
            if module is not None:
                dismantle(module)
            del module, home
            release()
            if linked is not None:
                linked.close()
            if not self._gone():
                release(thoroughly=True)
            try:
                empty_cache(self._device)
            except Exception:  # noqa: BLE001 - the adapter edge: the device may be lost, and with it what it kept
                _log.warning("%s does not answer", self._device, exc_info=True)
        return self._gone()

    @final
    def footprint(self) -> Footprint:
        """Return where the weights are resident now, what is kept of them or not given back included."""
        home = self._home
        now = home.footprint() if home else NOTHING
        if now.on_device is not None:
            now = replace(now, on_device=now.on_device + sum(home.left for home in self._left))
        left = [home.remains() for home in self._left]
        kept = sum(tensor.nbytes for tensor in self._writes.values())
        if now.in_ram is None or None in left:
            return replace(now, in_ram=None)
        return replace(now, in_ram=now.in_ram + kept + sum(filter(None, left)))

    def _log_what_came_free(self, expected: int | None, before: DeviceMemory | None) -> None:
        """Say what the allocator gave back and what the driver has free now, beside the bytes that left the device.

        Others compute meanwhile, so the figures are evidence for a reader of the log and no verdict.
        """
        now = memory(self._device)
        if before is not None and now is not None:
            _log.info(
                "%s left %s: %s bytes of weights; torch held %s and holds %s, the driver had %s free and has %s",
                self._config.name,
                self._device,
                expected,
                before.ours,
                now.ours,
                before.free,
                now.free,
            )

    def _fetched(self, reference: references.Reference) -> Path:
        """The folder of the model, downloaded first where it is a hub's; raises LoadFailed."""
        return fetched(reference, self._surroundings, self._note)

    def _note(self, download: Download | None) -> None:
        self._download = download

    def _named(self, revision: str | None) -> str | None:
        """The model's revision with the element type that it computes in, on which its answers depend too."""
        weights = (str(weight.dtype) for weight in self._module.parameters() if weight.is_floating_point())
        dtype = next(weights, "").removeprefix("torch.")
        return "+".join(filter(None, (revision, dtype))) or None

    def _gone(self) -> bool:
        for home in self._left:
            home.forget_files()
        self._left = [home for home in self._left if not home.gone]
        return not self._left

    @property
    def _at_home(self) -> Home:
        assert self._home is not None, "only between load and unload"  # noqa: S101 - the slot's promise
        return self._home


@cache
def _store() -> Store:
    """The converted files of this user, shared by all encoders."""
    return Store(paths.cache_folder() / "weights")
