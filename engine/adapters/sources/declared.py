"""The facts that a model's folder states about itself, read from its small files before any library is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.adapters.sources.json_file import object_of
from engine.adapters.sources.modules import Module, read_modules
from engine.adapters.sources.own_code import Code, own_code
from engine.adapters.sources.weight_names import HEADS, INDEX, SAFE
from engine.errors import LoadFailed
from engine.weights.files import layout

_CONFIG: Final = "config.json"
_SAVED_AS: Final = "config_sentence_transformers.json"
_WITH_MODULES: Final = frozenset((_SAVED_AS, "sentence_bert_config.json"))
_ADAPTER: Final = "adapter_config.json"
_VOCABULARY: Final = ("tokenizer.", "vocab", "spiece.", "sentencepiece.", "tekken.")
"""Beginnings of the names of files that a tokenizer's vocabulary is read from."""
_MORE_VOCABULARY: Final = (".model", ".tiktoken", ".spm", ".codes", ".tokenizer")
"""Endings of the names of others."""
_BYTES: Final = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
"""Tokenizers without a vocabulary."""


@dataclass(frozen=True, slots=True)
class Declared:
    """The statements of a folder about itself; an empty value where it states nothing."""

    unreadable: str | None = None
    """A file that must be JSON and is not."""
    configured: bool = False
    """Whether it has a configuration of transformers."""
    architectures: tuple[str, ...] = ()
    """The classes that it was saved from."""
    model_type: str = ""
    labels: tuple[str, ...] | None = None
    problem_type: str | None = None
    encoder_decoder: bool = False
    vision: bool = False
    """Whether its configuration has a part for images."""
    tensors: frozenset[str] = frozenset()
    """The first two words of the names of its weights; read only where no architecture is named."""
    modules: tuple[Module, ...] | None = None
    """None without a modules.json."""
    had_modules: bool = False
    """Whether other files of sentence-transformers are there, which come with a modules.json."""
    saved_as: str | None = None
    """The class of sentence-transformers that saved it; older versions do not say."""
    adapter: str | None = None
    """The model that its adapter (LoRA) belongs to, "" for an adapter that names none; None without an adapter."""
    heads: frozenset[str] = frozenset()
    """Those of `HEADS` that have a file."""
    open_clip: bool = False
    spacy: bool = False
    vocabulary: bool = False
    """Whether each tokenizer has the file of its vocabulary."""
    image_processor: bool = False
    code: tuple[Code, ...] = ()

    @property
    def architecture(self) -> str:
        """The class that it was saved from; "" if none is named."""
        return self.architectures[0] if self.architectures else ""


def read(folder: Path) -> Declared:
    """Return the facts of the model in `folder`, from its small files and the names of the others.

    A folder that cannot be read states nothing, and raises nothing.
    """
    try:
        return _read(folder)
    except OSError:
        return Declared()


def _read(folder: Path) -> Declared:
    modules, unreadable = read_modules(folder)
    readers = [""] if modules is None else [module.path for module in modules if module.is_reader]
    body = folder / next(iter(readers), "")
    config, saved = object_of(body / _CONFIG), object_of(folder / _SAVED_AS)
    for file, value in ((body / _CONFIG, config), (folder / _SAVED_AS, saved)):
        if value is None and file.is_file():
            unreadable = unreadable or file.relative_to(folder).as_posix()
    said: Mapping[str, Any] = config or {}
    architectures = _strings(said.get("architectures"))
    names = {file.name for file in folder.glob("*") if file.is_file()}
    return Declared(
        unreadable=unreadable,
        configured=config is not None,
        architectures=architectures,
        model_type=str(said.get("model_type") or ""),
        labels=_labels(said),
        problem_type=said.get("problem_type"),
        encoder_decoder=said.get("is_encoder_decoder") is True,
        vision=isinstance(said.get("vision_config"), dict),
        tensors=frozenset() if architectures else frozenset(_tensors(body)),
        modules=modules,
        had_modules=bool(_WITH_MODULES & names) or (folder / "1_Pooling").is_dir(),
        saved_as=(saved or {}).get("model_type"),
        adapter=_adapter(folder, readers),
        heads=frozenset(head for head in HEADS if {f"{head}{SAFE}", f"{head}.pt"} & names),
        open_clip="open_clip_config.json" in names,
        spacy="config.cfg" in names and _CONFIG not in names,
        vocabulary=all(_has_vocabulary(folder / place) for place in readers),
        image_processor=bool({"preprocessor_config.json", "processor_config.json"} & names),
        code=own_code(folder),
    )


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _labels(said: Mapping[str, Any]) -> tuple[str, ...] | None:
    names, count = said.get("id2label"), said.get("num_labels")
    if isinstance(names, dict):
        return tuple(map(str, names.values()))
    return tuple(f"LABEL_{index}" for index in range(count)) if isinstance(count, int) else None


def _adapter(folder: Path, readers: list[str]) -> str | None:
    for place in dict.fromkeys(("", *readers)):
        if (folder / place / _ADAPTER).is_file():
            return str((object_of(folder / place / _ADAPTER) or {}).get("base_model_name_or_path") or "")
    return None


def _has_vocabulary(place: Path) -> bool:
    said = object_of(place / "tokenizer_config.json") or {}
    names = [file.name for file in place.glob("*") if file.is_file()]
    found = any(name.startswith(_VOCABULARY) or name.endswith(_MORE_VOCABULARY) for name in names)
    # Code of the model's own may read its vocabulary from any file.
    return found or "auto_map" in said or str(said.get("tokenizer_class")).removesuffix("Fast") in _BYTES


def _tensors(place: Path) -> Iterator[str]:
    names = (object_of(place / INDEX) or {}).get("weight_map")
    if not isinstance(names, dict):
        try:
            names = [one.name for one in layout.read(place / "model.safetensors")]
        except LoadFailed:
            names = []
    for name in names:
        yield ".".join(name.split(".")[:2])
