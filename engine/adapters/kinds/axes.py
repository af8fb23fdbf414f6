"""Axes: the vectors of another encoder, projected on the directions of anchor sentences.

Their own weights are one matrix of anchor vectors. Texts are read by the base encoder, through the engine: it loads,
steps down and fails by its own settings, and axes cost no second copy of it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.adapters.context import DETACHED, AdapterContext
from engine.adapters.kinds.universal_axes import UNIVERSAL_AXES
from engine.adapters.protocol import Loaded
from engine.devices.placement import CPU, NOTHING, Footprint, Needs, Placement
from engine.errors import Closed, EncoderError, LoadFailed, NotFinite, QueueFull, Unavailable, UnknownEncoder
from engine.operations.axes import BaseVectors, EmbedInBase, Projection
from engine.operations.inputs import ITEMS
from engine.operations.unit import unit
from engine.settings.config import EncoderConfig
from engine.state import Download

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class _Anchors:
    """The anchors' vectors (k, d), each of length 1, and the revision of the base's weights that made them."""

    vectors: NDArray[np.float32]
    revision: str | None

    def fit(self, found: BaseVectors) -> bool:
        """Return whether the same weights made these and the vectors `found`."""
        return (self.revision, self.vectors.shape[1]) == (found.revision, found.vectors.shape[1])


class AxesAdapter:
    """A matrix of some kilobytes in plain memory, which stays there until it is unloaded."""

    cannot_rest: str | None = None
    download: Download | None = None

    def __init__(self, config: EncoderConfig, device: str, context: AdapterContext = DETACHED) -> None:
        """Keep the configuration; the base has a device of its own."""
        axes = config.axes or UNIVERSAL_AXES
        self.names = tuple(axis.name for axis in axes)
        """Names of the axes, in the order of the coordinates."""
        self._sentences = [axis.anchor for axis in axes]
        self._digest = hashlib.sha256(repr([(axis.name, axis.anchor) for axis in axes]).encode()).hexdigest()[:8]
        self._name = config.name
        self._base = config.base or ""
        self._context = context
        self._anchors: _Anchors | None = None
        self._made_for: tuple[str, str | None] | None = None

    @property
    def revision(self) -> str | None:
        """The base's revision and a digest of the axes."""
        if self._anchors is None:
            return None
        return "+".join(filter(None, (self._anchors.revision, f"axes.{self._digest}")))

    def probe(self) -> None:
        """Raise Unavailable when there is no base."""
        with self._naming_the_base():
            self._context.view(self._base)

    def load(self, on: str | None = None) -> Loaded:
        """Let the base read the anchors, which brings it up; raises LoadFailed or Unavailable, which name it."""
        import numpy as np

        began, note = time.monotonic(), None
        try:
            with self._naming_the_base():
                model = self._context.view(self._base).model
            self._anchors = self._read_anchors()
        except NotFinite as error:
            # Each use asks again, which raises the same error, as long as the base has these weights.
            note = error.message
            self._anchors = _Anchors(unit(np.empty((0, 0))), self._context.view(self._base).revision)
        except (Closed, QueueFull) as error:
            raise LoadFailed(f"{self._name} stands on {self._base}: {error.message}") from error
        self._made_for = (model, self._anchors.revision)
        return Loaded(
            device=CPU,
            revision=self.revision,
            import_seconds=0.0,
            load_seconds=time.monotonic() - began,
            assumptions=() if note is None else (note,),
            metadata={"dimension": len(self.names), "axes": list(self.names), "base": self._base},
        )

    def encode_axes(
        self,
        texts: Sequence[str],
        *,
        task: str | None = None,
        truncate: bool = True,
        known: BaseVectors | None = None,
    ) -> Projection:
        """Return the cosine of each text with each anchor, float32 (n, k); `task` is the base's, for the texts.

        `known` are the base's vectors of `texts`, if the caller has them already; they are used only if the same
        weights made the anchors. Raises the errors of the base; LoadFailed and Unavailable name it.
        """
        anchors, asked = self._loaded, EmbedInBase(texts, task, truncate, ITEMS)
        found = known if known is not None and anchors.fit(known) else self._ask(asked)
        while not anchors.fit(found):
            # The base was loaded with other weights meanwhile.
            anchors = self._anchors = self._read_anchors()
            found = self._ask(asked)
        return Projection(unit(found.vectors) @ anchors.vectors.T, self.names, found.tokens, found.cut)

    def needs(self) -> Needs:
        """Return the bytes of the matrix, on the CPU."""
        return Needs(CPU, self._loaded.vectors.nbytes)

    def fault_in(self) -> None:
        """Do nothing: the matrix is in RAM."""

    def resume(self, placement: Placement) -> str | None:
        """Do nothing: the matrix is used in RAM."""
        return None

    def stale(self) -> str | None:
        """Return the change of the base since it read the anchors, in words; None for no change."""
        if self._made_for is None:
            return None
        try:
            base = self._context.view(self._base)
        except UnknownEncoder:
            return f"{self._base} is gone"
        model, revision = self._made_for
        # The revision of a base that has not loaded yet comes with its first vectors.
        same = base.model == model and base.revision in (revision, None)
        return None if same else f"{self._base} is another model"

    def mended(self) -> str | None:
        """Return that the base is asked again, which costs little: it keeps its own errors."""
        return f"{self._base} may answer now"

    def offload(self) -> Footprint:
        """Keep the matrix, because making it again takes a pass through the base."""
        return self.footprint()

    def unload(self) -> bool:
        """Drop the matrix."""
        self._anchors = self._made_for = None
        return True

    def footprint(self) -> Footprint:
        """Return the matrix's bytes, which are in RAM on every rung."""
        anchors = self._anchors
        return NOTHING if anchors is None else Footprint(0, anchors.vectors.nbytes, anchors.vectors.nbytes)

    def _read_anchors(self) -> _Anchors:
        found = self._ask(EmbedInBase(self._sentences, field="axes"))
        return _Anchors(unit(found.vectors), found.revision)

    def _ask(self, asked: EmbedInBase) -> BaseVectors:
        with self._naming_the_base():
            found: BaseVectors = self._context.run(self._base, asked, self._name)
        return found

    @contextmanager
    def _naming_the_base(self) -> Iterator[None]:
        stands = f"{self._name} stands on {self._base}"
        try:
            yield
        except UnknownEncoder as error:
            mend = f"Configure it, or mend `base` of {self._name} in the settings."
            raise Unavailable(f"{stands}, and there is no such encoder.", next_step=mend) from error
        except Unavailable as error:
            raise Unavailable(f"{stands}: {error.message}", next_step=error.next_step, title=error.title) from error
        except NotFinite as error:
            raise NotFinite(f"{stands}: {error.message}", next_step=error.next_step, encoder=self._base) from error
        except EncoderError as error:
            wait = error.retry_in_seconds if isinstance(error, LoadFailed) else None
            raise LoadFailed(
                f"{stands}: {error.message}", next_step=error.next_step, title=error.title, retry_in_seconds=wait
            ) from error

    @property
    def _loaded(self) -> _Anchors:
        assert self._anchors is not None, "only between load and unload"  # noqa: S101 - the slot's promise
        return self._anchors
