"""Models of open_clip: each tower built and read alone, its images and texts prepared by the library itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.adapters.kinds.image_text.open_clip_folder import configuration
from engine.adapters.kinds.image_text.scales import scales
from engine.adapters.kinds.image_text.tower import Features, ImageTower, TextTower
from engine.adapters.sources.model_folder import weight_files
from engine.adapters.text.company import Company
from engine.adapters.text.rows import IDS, Limit, Rows
from engine.errors import LoadFailed, Unavailable
from engine.settings.short_names import Spec

if TYPE_CHECKING:
    from engine.operations.images import Image

_IMAGE: Final = "visual."
_TEXT: Final = "text."
"""Prefix of the text tower's keys if it is a module of its own; in the older layout they have no prefix."""
_NEITHER: Final = ("logit_scale", "logit_bias", "attn_mask")


def repository(architecture: str, tag: str) -> str:
    """Return the hub id of the weights that open_clip calls `tag`; raises Unavailable for one that it does not know."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    found = get_pretrained_cfg(architecture, tag)
    if not found:
        known = ", ".join(list_pretrained_tags_by_model(architecture))
        raise Unavailable(
            f"open_clip knows no weights {tag} for {architecture}.",
            next_step=f"Choose one of: {known}." if known else "It has none for this architecture.",
        )
    hub_id, _, _ = str(found.get("hf_hub", "")).rpartition("/")
    if not hub_id:
        raise Unavailable(
            f"The weights {tag} of {architecture} are on no model hub.",
            next_step="Put them into a folder in open_clip's layout and set `model` to it.",
        )
    return hub_id


@dataclass(frozen=True, slots=True)
class OpenClipCheckpoint:
    """A model in open_clip's layout: `model_cfg` and `preprocess_cfg` as its file spells them."""

    name: str
    """Name of the model in errors."""
    folder: Path
    architecture: str | None
    """The architecture that chooses the tokenizer; None if the folder describes the model itself."""
    model: dict[str, Any]
    preprocess: dict[str, Any]

    @classmethod
    def of(cls, name: str, folder: Path, spec: Spec) -> OpenClipCheckpoint:
        """Return the checkpoint in `folder`, by its own description, else by the library's description of `spec`."""
        from open_clip import get_model_config, get_pretrained_cfg

        described = configuration(folder)
        if described is not None:
            model, preprocess, architecture = described["model_cfg"], described.get("preprocess_cfg") or {}, None
        else:
            architecture, preprocess = spec.architecture, get_pretrained_cfg(spec.architecture, spec.tag)
            # As the weights were trained; the architecture's own value is right for some of its weights only.
            model = {**(get_model_config(architecture) or {}), "quick_gelu": preprocess.get("quick_gelu", False)}
        if "vision_cfg" not in model or "multimodal_cfg" in model:
            raise Unavailable(
                f"{name} is no pair of an image and a text tower.", next_step="Set `model` to a CLIP or SigLIP."
            )
        model = deepcopy(model)
        # The checkpoint is loaded, not the weights that a tower was trained from.
        model["vision_cfg"]["timm_model_pretrained"] = model["text_cfg"]["hf_model_pretrained"] = False
        return cls(name, folder, architecture, model, dict(preprocess))

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the model, the same for both towers."""
        return {
            "dimension": int(self.model["embed_dim"]),
            "max_tokens": int(self.model["text_cfg"].get("context_length", 77)),
            "image_size": self.model["vision_cfg"].get("image_size", 224),
            **scales(self.folder, open_clip=True),
        }

    def text(self) -> TextTower:
        """Return the tower that reads texts; raises LoadFailed."""
        from open_clip import get_tokenizer
        from open_clip.model import _build_text_tower

        module = self._filled(_build_text_tower, "text_cfg", of_image=False)
        tokenizer = get_tokenizer(self.architecture or f"local-dir:{self.folder}")
        inner = getattr(tokenizer, "tokenizer", None)
        padding = 0 if inner is None else inner.pad_token_id
        facts = self.facts

        def ids_of(text: str, **options: Any) -> dict[str, Any]:
            return {"input_ids": tokenizer.encode(text)}

        def rows(texts: Sequence[str], limit: Limit) -> Rows:
            short = [limit.short(text, inner or ids_of) for text in texts]
            ids = tokenizer(short).numpy()
            # The library itself cuts; it adds a begin and an end to the ids of `encode`.
            whole = (
                [len(ids_of(text)["input_ids"]) + 2 for text in short] if inner is None else inner(short)["input_ids"]
            )
            cut = limit.cut_of([one if isinstance(one, int) else len(one) for one in whole])
            return Rows([{IDS: row} for row in ids], masked=False, cut=cut, unread=int((ids == padding).sum()))

        return TextTower(module, lambda features: module(features[IDS]), facts, rows, Company())

    def image(self) -> ImageTower:
        """Return the tower that reads images; raises LoadFailed."""
        from open_clip.model import _build_vision_tower
        from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

        module = self._filled(_build_vision_tower, "vision_cfg", of_image=True)
        own = self.preprocess | {"size": getattr(module, "image_size", self.facts["image_size"])}
        transform = image_transform_v2(PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), own)), is_train=False)

        def read(image: Image) -> Features:
            return {"image": transform(image).unsqueeze(0)}

        return ImageTower(module, lambda features: module(features["image"]), self.facts, read)

    def _filled(self, build: Callable[..., Any], part: str, *, of_image: bool) -> Any:
        """The tower that `build` makes of its part of the configuration, with its own tensors of the checkpoint."""
        module = build(self.model["embed_dim"], self.model[part], self.model.get("quick_gelu", False))
        try:
            module.load_state_dict(dict(_tensors(self._weights(), of_image=of_image)), assign=True)
            _widen(module)
        except RuntimeError as error:
            raise LoadFailed(
                f"The weights of {self.name} are not those of the model that its configuration describes: "
                f"{' '.join(str(error).split())[:300]}",
                next_step="Put the complete files of one model there.",
            ) from error
        return module

    def _weights(self) -> Path:
        files = weight_files(self.folder, open_clip=True, heads=False)
        if not files:
            raise LoadFailed(
                f"{self.name} has no weights.", next_step="Put open_clip_model.safetensors into its folder."
            )
        return files[0]


def _widen(module: Any) -> None:
    """Give all weights the widest element type among them, because the towers compute in one."""
    import torch

    types = {weight.dtype for weight in module.parameters() if weight.is_floating_point()}
    if len(types) > 1:
        module.to(reduce(torch.promote_types, types))


def _tensors(file: Path, *, of_image: bool) -> Iterator[tuple[str, Any]]:
    """The tensors of one tower by the names that it uses; none of the other is read."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        for name, own in _own(tensors.keys(), of_image=of_image):
            yield own, tensors.get_tensor(name)


def _own(names: Any, *, of_image: bool) -> Iterator[tuple[str, str]]:
    """The names of one tower's tensors, in the file and in the tower."""
    bare = [(name, name.removeprefix("module.")) for name in names]
    separate = any(name.startswith(_TEXT) for _, name in bare)
    for stored, name in bare:
        if name.startswith(_IMAGE):
            if of_image:
                yield stored, name.removeprefix(_IMAGE)
        elif not of_image and name not in _NEITHER and name.startswith(_TEXT) is separate:
            yield stored, name.removeprefix(_TEXT)
