"""The base of all torch adapters: how a module is read, moved, offloaded and unloaded. A kind adds its computation."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar, final

from engine import paths
from engine.adapters.base.batches import TOKENS_ON_CPU, TOKENS_ON_DEVICE, Batches
from engine.adapters.base.leftovers import Leftovers, log_freed
from engine.adapters.base.model_source import Recall, Source, open_source
from engine.adapters.base.torch_kind import TorchKind
from engine.adapters.context import DETACHED, AdapterContext
from engine.adapters.protocol import Loaded
from engine.adapters.sources.locate import Reference
from engine.adapters.sources.model_files import fetch, place_of
from engine.devices import Choice, choose, empty_cache, lost_device, memory, out_of_memory_on
from engine.devices.placement import CPU, NOTHING, Footprint, Needs, Placement
from engine.errors import OutOfMemory
from engine.settings.config import EncoderConfig
from engine.state import Download
from engine.weights.files.store import Store
from engine.weights.gate import CONSTRUCTION
from engine.weights.home import Home
from engine.weights.home_request import HomeRequest
from engine.weights.release import dismantle, freeze_gc, release

_log = logging.getLogger(__name__)

T = TypeVar("T")


class TorchAdapter(TorchKind):
    """One `torch.nn.Module` from its files; its weights are in a `Home`."""

    def __init__(self, config: EncoderConfig, device: str, context: AdapterContext = DETACHED) -> None:
        """Keep the configuration; import and read nothing."""
        super().__init__(config, context)
        self._download: Download | None = None
        self._wanted_device = device
        self._device = CPU
        self._needs: Needs | None = None
        self._revision: str | None = None
        self._batches = Batches()
        self._source: Source | None = None
        self._module: Any = None
        self._home: Home | None = None
        self._leftovers = Leftovers()
        self._recall = Recall()

    @property
    @final
    def download(self) -> Download | None:
        """Progress of the download that `load` is waiting for; None while there is none."""
        return self._download

    @final
    def load(self, on: str | None = None) -> Loaded:
        """Read the model for the device of the settings, or for `on`; asks a hub only for a hub id."""
        reference = self._locate()
        began = time.monotonic()
        self._conditions.note(place_of(reference))
        libraries = self._import_libraries()
        imported = time.monotonic()
        choice = choose(self._wanted_device) if on is None else Choice(on)
        self._device = choice.device
        source = self._open(reference, libraries)
        if not self._is_streamed_on_cpu:
            source.warm_cache()
        self._module = self._construct_checked(source)
        streamable = self._house(source, as_wanted=on is None)
        freeze_gc()
        self._revision = source.revision_of(self._module)
        return Loaded(
            device=self._device,
            note=choice.reason,
            assumptions=tuple(dict.fromkeys(self._assumptions)),
            streamable=streamable,
            revision=self._revision,
            import_seconds=imported - began,
            load_seconds=time.monotonic() - imported,
            metadata=self._metadata(),
        )

    @property
    @final
    def cannot_rest(self) -> str | None:
        """The reason why the weights cannot stay in RAM while they are off their device; None when they can."""
        return self._home.cannot_rest if self._home else None

    @property
    @final
    def revision(self) -> str | None:
        """The model's revision with the element type that it computes in."""
        return self._revision

    @final
    def needs(self) -> Needs:
        """Return what the weights would take on the device of the settings."""
        assert self._needs is not None, "only after a load"  # noqa: S101 - the slot's promise
        return self._needs

    @final
    def fault_in(self) -> None:
        """Read all the weights into RAM now; only into the system's file cache if they will be streamed on a CPU."""
        if self._is_streamed_on_cpu:
            self._at_home.warm_cache()
        else:
            self._at_home.fault_in()

    @final
    def resume(self, placement: Placement) -> str | None:
        """Bring the weights to the device, whole or streamed.

        Raises OutOfMemory and leaves them in RAM if they do not fit.
        """
        whole_on_cpu = placement.device == CPU and placement.streamed_in is None
        self._batches.reset(TOKENS_ON_CPU if whole_on_cpu else TOKENS_ON_DEVICE)
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
        """Return the change of the weights' files since they were loaded, in words; None for no change."""
        home = self._home  # read once: `unload` may end meanwhile on another thread
        return home.stale() if home else None

    @final
    def offload(self) -> Footprint:
        """Free the memory of the weights, keep skeleton and tokenizer; returns where they were. Raises CannotRest."""
        if self._device == CPU:
            return self._at_home.offload()
        held = memory(self._device)
        with CONSTRUCTION:
            before = self._at_home.offload()
        empty_cache(self._device)
        log_freed(self._config.name, self._device, before.on_device, held)
        return before

    @final
    def unload(self) -> bool:
        """Drop everything, and return whether it is gone.

        The module's writes into its weights are kept for the next load of the same files.
        """
        home, module, source = self._home, self._module, self._source
        self._home = self._module = self._source = None
        try:
            if home is not None:
                self._recall.writes = home.writes()
        except Exception as error:  # noqa: BLE001 - the adapter edge: no memory for a copy, or the files are gone
            _log.exception("what %s wrote into its weights is lost", self._config.name)
            traceback.clear_frames(error.__traceback__)  # its frames refer to weights, and a log may keep them
        finally:
            if home is not None:
                home.close()
                self._leftovers.add(home)
            if module is not None:
                dismantle(module)
            del module, home
            release()
            if source is not None:
                source.close()
            if not self._leftovers.gone():
                release(thoroughly=True)
            try:
                empty_cache(self._device)
            except Exception:  # noqa: BLE001 - the adapter edge: the device may be lost, and its cache with it
                _log.warning("%s does not answer", self._device, exc_info=True)
        return self._leftovers.gone()

    @final
    def footprint(self) -> Footprint:
        """Return the bytes of the weights by place, with copies that are kept and weights that did not come free."""
        home = self._home  # read once, as in `stale`
        now = home.footprint() if home else NOTHING
        on_device, in_ram, left = now.on_device, now.in_ram, self._leftovers.in_ram
        return replace(
            now,
            on_device=None if on_device is None else on_device + self._leftovers.on_device,
            in_ram=None if in_ram is None or left is None else in_ram + self._recall.nbytes + left,
        )

    # Within

    @final
    def _in_batches(self, compute: Callable[[int], T], count: int, *, alone: Callable[[], bool] = lambda: False) -> T:
        """Return the result of `compute` for `count` inputs in batches of the size that it is given.

        Raises OutOfMemory when one input alone is too much for the device; `alone` as in `Batches.run`.
        """
        return self._batches.run(self._device, compute, count, alone=alone)

    def _open(self, reference: Reference, libraries: str) -> Source:
        """Bring the files here in a form that the library can read; raises LoadFailed or Unavailable."""
        resolved = self._resolve(reference)
        try:
            own_folder = fetch(resolved, self._context, self._note)
        finally:
            if not resolved.local:
                self._conditions.note(place_of(resolved))  # the download has just changed it
        # Before pickled weights are converted, which may take minutes.
        self._assumptions = list(self._fit(own_folder, open_clip=resolved.open_clip))
        self._require_code(resolved, own_folder)
        # Kept at once, so that `unload` closes it when a later step fails.
        self._source = source = open_source(
            self._config.name, resolved, own_folder, store=_store(), libraries=libraries
        )
        self._recall.about(source)
        return source

    def _house(self, source: Source, *, as_wanted: bool) -> bool:
        """Give the weights their home and restore earlier writes; returns whether the model can be streamed.

        Its needs are kept only for the device of the settings: `as_wanted`.
        """
        request = HomeRequest(
            sources=source.identities,
            made_by=source.made_by,
            device=self._device,
            dtype=self._config.dtype,
            keep=self._config.home,
            known=self._recall.found,
        )
        self._home = home = Home(self._module, _store(), request)
        whole, least = home.needs()
        if as_wanted:
            self._needs = Needs(self._device, whole, least if self._config.stream_layers else None)
        self._recall.restore(home)
        return least is not None

    def _note(self, download: Download | None) -> None:
        self._download = download

    @property
    def _is_streamed_on_cpu(self) -> bool:
        """Whether the RAM may hold less than the files do."""
        return bool(self._config.stream_layers) and self._device == CPU

    @property
    def _at_home(self) -> Home:
        assert self._home is not None, "only between load and unload"  # noqa: S101 - the slot's promise
        return self._home


@cache
def _store() -> Store:
    """The converted files of this user, shared by all encoders."""
    return Store(paths.cache_folder() / "weights")
