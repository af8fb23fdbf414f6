"""The part of a torch adapter that differs between kinds: what is installed, imported, found and constructed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, final

from engine.adapters.base.attention import pass_nan_on
from engine.adapters.base.conditions import Conditions
from engine.adapters.base.construction import checked_construction
from engine.adapters.base.hopeless import unavailable
from engine.adapters.base.model_source import Source
from engine.adapters.context import AdapterContext
from engine.adapters.packages import require
from engine.adapters.sources import declared, fit, foreign_code, hub
from engine.adapters.sources.locate import Reference, locate
from engine.settings.config import EncoderConfig
from engine.weights.gate import CONSTRUCTION


class TorchKind(ABC):
    """The steps of a load that a kind may override; it must override `_construct`."""

    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    """Packages that must be installed, by the names that are imported."""

    def __init__(self, config: EncoderConfig, context: AdapterContext) -> None:
        """Keep the configuration; import and read nothing."""
        self._config = config
        self._context = context
        self._assumptions: list[str] = []
        self._libraries = ""
        self._conditions = Conditions(context.offline)

    @abstractmethod
    def _construct(self, folder: Path) -> Any:
        """Return the module of the model in `folder`, on the CPU, in the element type of its files."""

    def _import_library(self) -> str:
        """Import the model library and return its name and version; transformers, to which a kind may add its own."""
        import transformers
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        pass_nan_on()
        return f"transformers {transformers.__version__}"

    def _locate(self) -> Reference:
        """Return the place of the model, asking no network; raises Unavailable. A kind may read `model` its own way."""
        return locate(self._config.model)

    def _resolve(self, reference: Reference) -> Reference:
        """Return the place to fetch from; a kind may ask its library, which is imported by then."""
        return reference

    def _metadata(self) -> dict[str, Any]:
        """Return the facts of the loaded model, as plain data for JSON; `dimension` and the like."""
        return {}

    @final
    def _assume(self, sentence: str) -> None:
        """Tell the user of a property that the model's files do not state, and of the value that is taken for it."""
        self._assumptions.append(sentence)

    @final
    def probe(self) -> None:
        """Raise Unavailable if a package or the model's folder is missing, or holds another model; imports nothing."""
        require(*self.packages)
        reference = self._locate()
        if reference.local:
            self._fit(Path(reference.source), open_clip=reference.open_clip)

    def _fit(self, folder: Path, *, open_clip: bool) -> tuple[str, ...]:
        """Return what has to be assumed for it that `folder` holds a whole model of this kind; raises Unavailable."""
        return fit.check(declared.read(folder), self._config, open_clip=open_clip)

    @final
    def mended(self) -> str | None:
        """Return the change since the last load that may let another one end otherwise, in words; None for none."""
        return self._conditions.change()

    def _import_libraries(self) -> str:
        """Import torch and the model library, and return their names and versions; raises Unavailable."""
        hub.be_quiet()
        try:
            import torch

            self._libraries = self._import_library()
        except ImportError as error:
            final = unavailable(self._config.name, error)
            if final is None:
                raise
            raise final from error
        return f"{self._libraries}, torch {torch.__version__}"

    def _require_code(self, reference: Reference, folder: Path) -> None:
        """Bring Python code of other models that the one in `folder` needs, where that is allowed.

        Raises Unavailable where it is not, and LoadFailed.
        """
        if self._config.trust_remote_code:
            foreign_code.require(
                self._config.model, folder, from_hub=not reference.local, offline=self._context.offline()
            )

    def _construct_checked(self, source: Source) -> Any:
        """Let the library make the module, with no other made at once; raises LoadFailed or Unavailable."""
        with CONSTRUCTION, checked_construction(self._config, source.own_folder, self._libraries):
            return self._construct(source.folder)
