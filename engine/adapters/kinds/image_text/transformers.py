"""CLIP, SigLIP and SigLIP 2 through transformers: each tower read alone from a checkpoint of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.adapters.kinds.image_text.scales import scales
from engine.adapters.kinds.image_text.tower import Features, ImageTower, TextTower
from engine.adapters.packages import missing, require
from engine.adapters.sources.element_type import element_type
from engine.adapters.sources.json_file import object_of
from engine.adapters.text.company import Company
from engine.adapters.text.limits import position_rows, vocabulary_rows
from engine.adapters.text.reader import columns_of, economical, padding_token, with_padding_token
from engine.adapters.text.rows import IDS, Limit, Rows, read_rows
from engine.errors import LoadFailed, Unavailable

if TYPE_CHECKING:
    from engine.operations.images import Image


@dataclass(frozen=True, slots=True)
class _Family:
    """Class names of the towers of a model type in transformers, and the output with their vectors."""

    text: str
    image: str
    output: str
    masked: bool
    """Whether its text tower was trained with an attention mask; SigLIP's was not, although its tokenizer gives one."""


_CLIP: Final = _Family("CLIPTextModelWithProjection", "CLIPVisionModelWithProjection", "embeds", True)
_SIGLIP: Final = _Family("SiglipTextModel", "SiglipVisionModel", "pooler_output", False)
_SIGLIP2: Final = _Family("Siglip2TextModel", "Siglip2VisionModel", "pooler_output", False)
_OF_TEXTS: Final = ("text_model.", "text_projection.")
_OF_IMAGES: Final = ("vision_model.", "visual_projection.")
"""How the names of the weights of each tower begin."""
_FAMILIES: Final = {"clip": _CLIP, "siglip": _SIGLIP, "siglip2": _SIGLIP2}
"""By `model_type`; a SigLIP 2 of one fixed resolution has type `siglip`, one of any resolution (NaFlex) `siglip2`."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The configuration of both towers, and the folder of their weights."""

    name: str
    """Name of the model in errors."""
    folder: Path
    config: Any
    family: _Family
    trusted: Mapping[str, bool]
    """Arguments of the library's calls: to ask no hub, and whether the model's own code may run."""

    @classmethod
    def of(cls, name: str, folder: Path, *, trust_remote_code: bool = False) -> Checkpoint:
        """Return the checkpoint in `folder`; raises Unavailable for a model of another kind."""
        from transformers import AutoConfig

        trusted = {"local_files_only": True, "trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(folder, **trusted)
        # A configuration of the model's own code counts as the one that it derives from.
        types = (getattr(one, "model_type", "") for one in type(config).__mro__)
        family = next((_FAMILIES[name] for name in types if name in _FAMILIES), None)
        if family is None or not hasattr(config, "text_config") or not hasattr(config, "vision_config"):
            raise Unavailable(
                f"{name} is of type {config.model_type}: no model of images and texts that is known here.",
                next_step="Set `model` to a CLIP, a SigLIP or a SigLIP 2, or mend `kind` in the settings.",
            )
        if family is _CLIP:
            # The towers' own copies may be out of date; the whole model reads this one too.
            config.text_config.projection_dim = config.vision_config.projection_dim = config.projection_dim
        return cls(name, folder, config, family, trusted)

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the model, the same for both towers."""
        text, image = self.config.text_config, self.config.vision_config
        said = self._tokenizer_settings.get("model_max_length")
        dimension = self.config.projection_dim if self.family is _CLIP else text.projection_size
        return {
            "dimension": int(dimension),
            "max_tokens": int(min(text.max_position_embeddings, said) if said else text.max_position_embeddings),
            "image_size": getattr(image, "image_size", None),
            **scales(self.folder),
        }

    def text(self) -> TextTower:
        """Return the tower that reads texts; raises LoadFailed or Unavailable."""
        module = self._tower(self.family.text, self.config.text_config, other=_OF_IMAGES)
        tokenizer = self._tokenizer()
        pad = tokenizer.pad_token_id
        # Each family was trained with padding at the right, which Gemma's tokenizers take for a choice of their own.
        company = Company(fills={IDS: padding_token(module, tokenizer) if pad is None else pad})
        family = self.family
        with_padding_token(tokenizer)
        economical(module)
        tables = position_rows(module)
        facts = {**self.facts, "max_tokens": min(self.facts["max_tokens"], *tables)}

        def rows(texts: Sequence[str], limit: Limit) -> Rows:
            found = read_rows(texts, partial(columns_of, tokenizer), tokenizer, limit)
            found.rows = [{IDS: row[IDS]} for row in found.rows]
            found.masked = family.masked
            # A causal tower ignores padding; the others read it, so there must be as much as in training.
            return found if family.masked else found.filled(facts["max_tokens"], company)

        name = "text_embeds" if family is _CLIP else family.output
        return TextTower(
            module,
            lambda features: getattr(module(**features), name),
            facts,
            rows,
            company,
            vocabulary_rows(module),
        )

    def image(self) -> ImageTower:
        """Return the tower that reads images; raises LoadFailed."""
        from transformers import AutoImageProcessor

        module = self._tower(self.family.image, self.config.vision_config, other=_OF_TEXTS)
        # Always Pillow, so that an installed torchvision changes no vector.
        processor = AutoImageProcessor.from_pretrained(self.folder, backend="pil", **self.trusted)

        def read(image: Image) -> Features:
            features: Features = processor(images=[image], return_tensors="pt")
            return features

        name = "image_embeds" if self.family is _CLIP else self.family.output
        return ImageTower(module, lambda features: getattr(module(**features), name), self.facts, read)

    def _tower(self, class_name: str, config: Any, other: tuple[str, ...]) -> Any:
        """The tower of this class; `other` begins the names of weights that it does not read."""
        import transformers

        found = getattr(transformers, class_name)
        # The other tower's keys are expected; the class keeps its name, because transformers maps old keys by it.
        alone: Any = type(class_name, (found,), {"_keys_to_ignore_on_load_unexpected": [""]})
        module, report = alone.from_pretrained(
            self.folder,
            config=config,
            dtype=element_type(self.folder, counts=lambda name: not name.startswith((*other, "logit_"))),
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        wrong = sorted(report["missing_keys"]) or sorted(str(key[0]) for key in report["mismatched_keys"])
        if wrong:
            problem = "lack" if report["missing_keys"] else "have in another shape than its configuration says"
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise LoadFailed(
                f"The weights of {self.name} {problem}: {wrong[0]}{more}.",
                next_step="Put the complete files of one model there.",
            )
        return module

    @property
    def _tokenizer_settings(self) -> dict[str, Any]:
        return object_of(self.folder / "tokenizer_config.json") or {}

    def _tokenizer(self) -> Any:
        from tokenizers import normalizers
        from transformers import AutoTokenizer, TokenizersBackend

        said = self._tokenizer_settings
        # Without a class the library would take the one of SigLIP, which reads no tokenizer.json.
        nameless = "tokenizer_class" not in said and not (self.folder / "spiece.model").exists()
        kind = TokenizersBackend if self.family is _SIGLIP and nameless else AutoTokenizer
        if said.get("tokenizer_class") == "SiglipTokenizer":
            require("sentencepiece")
            if find_spec("google") is None or find_spec("google.protobuf") is None:
                raise missing("protobuf", "The package protobuf is not installed.")
        tokenizer = kind.from_pretrained(self.folder, **self.trusted)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if self.family is not _CLIP and backend is not None and type(backend.model).__name__ == "BPE":
            # SigLIP 2 read Gemma's vocabulary in lower case; its tokenizer in the repositories is plain Gemma's.
            parts = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
            backend.normalizer = normalizers.Sequence(parts)
        return tokenizer
