"""The modules of sentence-transformers that a model's folder lists in modules.json, and those of routers among them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from engine.adapters.sources.json_file import object_of, value_of
from engine.adapters.sources.model_folder import MODULES, ROUTER
from engine.adapters.sources.own_code import is_own

_READERS: Final = ("Transformer", "MLMTransformer", "CLIPModel")
_ROUTERS: Final = ("Router", "Asym")
_NEEDS: Final = {
    **dict.fromkeys(_ROUTERS, (ROUTER, "config.json")),
    "CNN": ("cnn_config.json",),
    "LSTM": ("lstm_config.json",),
    "WordEmbeddings": ("wordembedding_config.json",),
    "StaticEmbedding": ("tokenizer.json",),
    **dict.fromkeys(("Normalize", "Dropout", "SparseStaticEmbedding"), ()),
}
"""Class -> files of which it needs one; config.json for the others, of which some take defaults without it."""
_WEIGHTED: Final = ("Dense", "LSTM", "CNN", "LayerNorm", "SparseAutoEncoder", "WeightedLayerPooling", "StaticEmbedding")
_WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")
"""The files of which a module in `_WEIGHTED` needs one."""


@dataclass(frozen=True, slots=True)
class Module:
    """One module: an entry of modules.json or of a router's file."""

    type: str
    """Its class with the package of it."""
    path: str = ""
    lacks: str | None = None
    """A missing file that its class cannot do without, within the model's folder."""
    task: str | None = None
    """The task that a transformer is read for, as sentence-transformers calls it."""
    output: str | None = None
    """Name of its result, if the folder states one: `scores`, `token_embeddings`, `sentence_embedding`."""
    width: int | None = None
    """Length of the result of a Dense."""
    activation: str | None = None
    """Class of the activation function of a Dense, with the package of it."""
    is_blank: bool = False
    """Whether its result is 0 for every input: a LogitScore whose two answers are one token."""

    @property
    def name(self) -> str:
        """Its class without the package."""
        return self.type.rpartition(".")[2]

    @property
    def is_own(self) -> bool:
        """Whether its class comes with no library."""
        return is_own(self.type)

    @property
    def is_reader(self) -> bool:
        """Whether it is a model of transformers with a tokenizer."""
        return self.name in _READERS and not self.is_own


def read_modules(folder: Path) -> tuple[tuple[Module, ...] | None, str | None]:
    """Return the modules in their order, None without a modules.json; and the name of a file that cannot be read."""
    if not (folder / MODULES).is_file():
        return None, None
    entries = value_of(folder / MODULES)
    try:
        pending = [(PurePosixPath(entry["path"]), str(entry["type"])) for entry in entries]
    except (TypeError, KeyError):
        return (), MODULES
    found: list[Module] = []
    routers: set[PurePosixPath] = set()
    while pending:
        place, type_name = pending.pop(0)
        found.append(module := _module(folder, place, type_name))
        # A router may name itself.
        if module.name not in _ROUTERS or module.is_own or module.lacks is not None or place in routers:
            continue
        routers.add(place)
        said = object_of(folder / place / ROUTER) or object_of(folder / place / "config.json") or {}
        if not isinstance(said.get("types"), dict):
            return tuple(found), (place / ROUTER).as_posix()
        pending = [(place / way, str(one)) for way, one in said["types"].items()] + pending
    return tuple(found), None


def _module(folder: Path, place: PurePosixPath, type_name: str) -> Module:
    path, name = "" if place == PurePosixPath() else place.as_posix(), type_name.rpartition(".")[2]
    if place.is_absolute() or ".." in place.parts:
        return Module(type_name, lacks=path)
    if is_own(type_name):
        return Module(type_name, path)
    needs = [_NEEDS.get(name, ("config.json",)), _WEIGHTS if name in _WEIGHTED else ()]
    lacks = (one[0] for one in needs if one and not any((folder / path / file).is_file() for file in one))
    said: dict[str, Any] = object_of(folder / path / _settings(name)) or {}
    return Module(
        type_name,
        path,
        lacks=next(((place / file).as_posix() for file in lacks), None),
        task=said.get("transformer_task"),
        output=said.get("module_output_name"),
        width=said.get("out_features"),
        activation=said.get("activation_function") if name == "Dense" else None,
        is_blank=name == "LogitScore" and said.get("true_token_id") == said.get("false_token_id"),
    )


def _settings(name: str) -> str:
    return "sentence_bert_config.json" if name in _READERS else "config.json"
