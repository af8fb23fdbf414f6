"""The short names of models of images and texts, and the hub ids that they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from engine.errors import Unavailable

_OPENAI: Final = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
"""OpenAI's own names of those of its models (`clip.available_models()`) that its hub repositories hold."""
_HUB_ID: Final = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class Spec:
    """The meaning of `model`: a `source` as for every kind, or an `architecture` of open_clip with a `tag` of weights.

    Only open_clip can tell the place of such weights.
    """

    source: str = ""
    architecture: str | None = None
    tag: str = ""

    @property
    def open_clip(self) -> bool:
        """Whether only open_clip knows the model."""
        return self.architecture is not None


def parse(model: str) -> Spec:
    """Return the meaning of `model`; raises Unavailable for an unknown name."""
    family, colon, name = model.partition(":")
    if not colon or family not in ("openai-clip", "siglip", "open-clip"):
        return Spec(model)
    if family == "siglip":
        if not _HUB_ID.fullmatch(name):
            raise Unavailable(f"{name} is no hub id.", next_step='Write "siglip:google/siglip2-base-patch16-224".')
        return Spec(name)
    if family == "openai-clip":
        if name not in _OPENAI:
            raise Unavailable(f"OpenAI's CLIP has no {name}.", next_step=f"Choose one of: {', '.join(_OPENAI)}.")
        return Spec(_OPENAI[name])
    architecture, slash, tag = name.rpartition("/")
    if not slash:
        raise Unavailable(
            f"{name} names no weights.", next_step='Write architecture and weights: "open-clip:ViT-L-14/dfn2b_s39b".'
        )
    return Spec(architecture=architecture.replace("/", "-"), tag=tag)


def expand(model: str) -> str:
    """Return the reference that a short name stands for; `model` itself if it is no known short name."""
    try:
        spec = parse(model)
    except Unavailable:
        return model
    return f"open-clip:{spec.architecture}/{spec.tag}" if spec.open_clip else spec.source
