"""The two components of a model of images and texts; each loads and runs its own tower alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.adapters.base.text_adapter import TextAdapter
from engine.adapters.kinds.image_text import open_clip_folder
from engine.adapters.kinds.image_text.scales import without_unusable
from engine.adapters.packages import require
from engine.adapters.sources.locate import Reference, locate
from engine.adapters.text.rows import Limit
from engine.errors import InvalidInput
from engine.operations.calibration import score_floor
from engine.operations.dense import Encoding
from engine.operations.images import decoded
from engine.operations.unit import unit
from engine.settings import short_names

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from engine.adapters.kinds.image_text.tower import ImageTower, TextTower

_OPEN_CLIP: Final = "open_clip"


class TowerAdapter(TextAdapter):
    """One tower of a checkpoint that holds two."""

    def _locate(self) -> Reference:
        spec = short_names.parse(self._config.model)
        if spec.architecture is None:
            reference = locate(spec.source)
            if reference.local and open_clip_folder.only_open_clip_reads(Path(reference.source)):
                require(_OPEN_CLIP)
            return reference
        require(_OPEN_CLIP)
        package = find_spec(_OPEN_CLIP)
        open_clip_folder.check_architecture(
            spec.architecture, list((package and package.submodule_search_locations) or ())
        )
        # Only the library knows the place of the weights, and nothing is imported here.
        return Reference(self._config.model, local=False)

    def _resolve(self, reference: Reference) -> Reference:
        spec = short_names.parse(self._config.model)
        if spec.architecture is None:
            return reference
        from engine.adapters.kinds.image_text.open_clip import repository

        return Reference(repository(spec.architecture, spec.tag), local=False, open_clip=True)

    def _import_library(self) -> str:
        library = super()._import_library()
        reference = self._locate()
        local = reference.local and open_clip_folder.only_open_clip_reads(Path(reference.source))
        if local or short_names.parse(self._config.model).open_clip:
            import open_clip

            library = f"open_clip {open_clip.__version__}, {library}"
        return library

    def _construct(self, folder: Path) -> Any:
        spec = short_names.parse(self._config.model)
        if spec.open_clip or open_clip_folder.only_open_clip_reads(folder):
            require(_OPEN_CLIP)
            from engine.adapters.kinds.image_text.open_clip import OpenClipCheckpoint

            tower = self._tower_of(OpenClipCheckpoint.of(self._config.model, folder, spec))
        else:
            from engine.adapters.kinds.image_text.transformers import Checkpoint

            trusted = self._config.trust_remote_code
            tower = self._tower_of(Checkpoint.of(self._config.model, folder, trust_remote_code=trusted))
        # In the module, so that `unload` drops it with everything else.
        tower.module.tower = tower
        if without_unusable(tower.facts) != tower.facts:
            self._assume("Its learned scale or bias is NaN or too large, so its similarities cannot be calibrated.")
        return tower.module.eval()

    @abstractmethod
    def _tower_of(self, checkpoint: Any) -> Any:
        """Return this adapter's tower of a checkpoint of either library."""

    def _metadata(self) -> dict[str, Any]:
        facts = without_unusable(self._module.tower.facts)
        facts["max_tokens"] = min(facts["max_tokens"], self._config.max_tokens or facts["max_tokens"])
        # The model's own; a floor in the settings is of one encoder, and several may share these weights.
        facts["score_floor"] = score_floor(facts["logit_scale"], facts["logit_bias"])
        return facts

    def _run(self, features: Mapping[str, Any]) -> torch.Tensor:
        """The vectors of features on the device, (n, d)."""
        vectors: torch.Tensor = self._module.tower.run(features)
        return vectors


class TextTowerAdapter(TowerAdapter):
    """The tower that reads texts."""

    def _tower_of(self, checkpoint: Any) -> TextTower:
        found: TextTower = checkpoint.text()
        return found

    def encode(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        *,
        task: str | None = None,
        dimensions: int | None = None,
        truncate: bool = True,
    ) -> Encoding:
        """Return one vector per text, of length 1; `task` changes nothing, because such a model has no prompts.

        Raises InvalidInput for token ids and for `dimensions`, because its vectors must compare with those of images.
        """
        if any(not isinstance(text, str) for text in inputs):
            raise InvalidInput(
                f"{self._config.name} reads texts, no token ids.", param="input", next_step="Send the texts themselves."
            )
        if dimensions not in (None, self._module.tower.facts["dimension"]):
            raise InvalidInput(
                f"The vectors of {self._config.name} cannot be cut: those of its images would no longer compare.",
                param="dimensions",
                next_step="Leave `dimensions` out.",
            )
        import numpy as np

        tower: TextTower = self._module.tower
        size, most = tower.facts["dimension"], tower.facts["max_tokens"]
        limit = Limit(self._config.name, min(most, self._config.max_tokens or most), truncate, tower.vocabulary)
        rows = tower.rows([str(text) for text in inputs], limit)
        vectors = self._compute(
            rows,
            tower.company,
            self._run,
            lambda vectors, *_: list(unit(vectors.float().cpu())),
            nothing=np.zeros(size, dtype=np.float32),
        )
        return Encoding(np.stack(vectors) if vectors else np.empty((0, size), np.float32), rows.tokens, rows.cut)


class ImageTowerAdapter(TowerAdapter):
    """The tower that reads images."""

    packages = ("torch", "transformers", "PIL")

    def _tower_of(self, checkpoint: Any) -> ImageTower:
        found: ImageTower = checkpoint.image()
        return found

    def encode_images(self, images: Sequence[bytes], field: str = "images") -> Encoding:
        """Return one vector per image, of length 1; `field` names the images in errors. Raises InvalidInput."""
        import numpy as np
        import torch

        tower: ImageTower = self._module.tower

        def compute(size: int) -> NDArray[np.float32]:
            found = []
            for start in range(0, len(images), size):
                end = min(start + size, len(images))
                # One at a time, because a decoded photo takes a hundred times the memory of its features.
                seen = [tower.read(decoded(images[i], f"{field}[{i}]", field)) for i in range(start, end)]
                sent = {key: self._sent(torch.cat([one[key] for one in seen])) for key in seen[0]}
                with torch.inference_mode():
                    found.append(unit(self._run(sent).float().cpu()))
            return np.concatenate(found)

        return Encoding(self._in_batches(compute, len(images)), 0)

    def _sent(self, tensor: Any) -> Any:
        if not tensor.is_floating_point():
            return tensor.to(self._device)
        own = next(weight.dtype for weight in self._module.parameters() if weight.is_floating_point())
        return tensor.to(self._device, own)
