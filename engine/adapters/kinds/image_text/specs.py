"""The short names that such models go by, and the hub ids that they stand for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.errors import Unavailable

_OPENAI: Final = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
"""OpenAI's own names of those of its models (`clip.available_models()`) that its hub repositories hold."""
_CONFIGURATION: Final = "open_clip_config.json"
_HUB_ID: Final = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class Spec:
    """What `model` asks for: `source` is a reference as every kind knows it, unless an `architecture` has to be asked.

    `tag` names the weights of an open_clip `architecture`; open_clip knows where those are.
    """

    source: str = ""
    architecture: str | None = None
    tag: str = ""

    @property
    def open_clip(self) -> bool:
        """Whether only open_clip knows the model."""
        return self.architecture is not None


def parsed(model: str) -> Spec:
    """Return what `model` means; raises Unavailable for a name that nobody has."""
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


def check_architecture(name: str, package: Sequence[str]) -> None:
    """Raise Unavailable unless open_clip, whose folders are `package`, has an architecture of that name."""
    files = [file for place in package for file in (Path(place) / "model_configs").glob("*.json")]
    if files and name not in {file.stem for file in files}:
        alike = sorted(file.stem for file in files if file.stem.lower().startswith(name.lower()[:4]))
        raise Unavailable(
            f"open_clip has no architecture {name}.",
            next_step=f"Choose one of: {', '.join(alike)}." if alike else "open_clip.list_models() lists them.",
        )


def only_open_clip_reads(folder: Path) -> bool:
    """Return whether the model in `folder` is in open_clip's layout; a repository may hold it in both."""
    return (folder / _CONFIGURATION).is_file() and not (folder / "config.json").is_file()


def configuration(folder: Path) -> dict[str, Any] | None:
    """Return open_clip's own description of the model in `folder`, None where the model is not in its layout.

    Raises Unavailable for one that cannot be read.
    """
    file = folder / _CONFIGURATION
    if not file.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found["model_cfg"]["vision_cfg"], dict) and isinstance(found["model_cfg"]["text_cfg"], dict):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise Unavailable(f"{file} does not describe a model of open_clip.", next_step="Put the original file there.")
