"""Taggers through spaCy: tokens, parts of speech and entities, on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from engine import paths
from engine.adapters.base.python_object import ObjectAdapter
from engine.adapters.kinds import spacy_pipeline
from engine.adapters.kinds.spacy_memory import SpacyMemory
from engine.adapters.kinds.spacy_needs import unavailable_pipeline
from engine.adapters.kinds.spacy_pipeline import Pipeline
from engine.adapters.sources import declared, fit
from engine.adapters.sources.content import Digests
from engine.adapters.sources.locate import locate
from engine.errors import InvalidInput
from engine.operations.inputs import ITEMS
from engine.operations.tag import Entity, Tagged, Token
from engine.weights.gate import CONSTRUCTION

_OWN_WARNINGS = r"\[W\d{3}\]"


class TagAdapter(ObjectAdapter):
    """A spaCy `Language`."""

    packages = ("spacy",)
    cannot_rest = "spaCy pipelines cannot be offloaded to RAM, so an idle one is unloaded."

    def _find(self) -> None:
        model = self._config.model
        if not model.isidentifier():
            fit.check(declared.read(Path(locate(model).source)), self._config)
        self._pipeline()

    def _import_library(self) -> None:
        import spacy  # noqa: F401

        # The answers show the parts that a pipeline lacks; a warning for every text would fill the log.
        warnings.filterwarnings("ignore", message=_OWN_WARNINGS)

    def _files(self) -> Iterable[Path]:
        return spacy_pipeline.files(self._pipeline().folder)

    def _folders(self) -> Iterable[Path]:
        return (self._pipeline().folder,)

    def _load(self) -> Any:
        import spacy

        # A pipeline may have torch modules, which must not be made while another model is constructed.
        pipeline = self._pipeline()
        try:
            with CONSTRUCTION:
                held = spacy.load(pipeline.source)
        except Exception as error:
            final = unavailable_pipeline(self._config.name, pipeline, error)
            if final is None:
                raise
            raise final from error
        self._memory = SpacyMemory(held)
        return held

    def _nbytes(self, held: Any) -> int | None:
        layers = {id(layer): layer for _, part in held.pipeline for layer in _layers(part)}
        weights = (layer.get_param(name) for layer in layers.values() for name in _filled(layer))
        return int(held.vocab.vectors.data.nbytes) + sum(int(weight.nbytes) for weight in weights)

    def _revision_of(self, held: Any) -> str | None:
        pipeline = self._pipeline()
        name = f"{pipeline.name}-{pipeline.version}"
        return name if pipeline.package else f"{name}+{_content(pipeline)}"

    def _metadata(self, held: Any) -> dict[str, Any]:
        return {"language": held.lang, "parts": list(held.pipe_names), "max_characters": held.max_length}

    def _outgrown(self, held: Any) -> str | None:
        return self._memory.outgrown(held)

    def tag(self, texts: Sequence[str]) -> tuple[Tagged, ...]:
        """Return the tokens and entities of each text; raises InvalidInput for one that is too long."""
        limit = self._held.max_length
        for index, text in enumerate(texts):
            if len(text) > limit:
                raise InvalidInput(
                    f"{ITEMS}[{index}] has {len(text)} characters; {self._config.name} reads {limit} at most.",
                    param=ITEMS,
                    next_step="Send it in pieces, cut between paragraphs.",
                )
        with self._memory.bounded(self._held, sum(map(len, texts))):
            return tuple(_tagged(document) for document in self._held.pipe(map(str, texts)))

    def _pipeline(self) -> Pipeline:
        return spacy_pipeline.locate(self._config.model, offline=self._context.offline())


def _tagged(document: Any) -> Tagged:
    tokens = (
        Token(one.text, one.idx, one.idx + len(one.text), one.pos_, one.tag_, one.lemma_ or None) for one in document
    )
    entities = (Entity(one.text, one.label_, one.start_char, one.end_char) for one in document.ents)
    return Tagged(tuple(tokens), tuple(entities))


def _layers(part: Any) -> Iterable[Any]:
    """The layers of a part of the pipeline; rules have none."""
    walk = getattr(getattr(part, "model", None), "walk", None)
    return walk() if walk else ()


def _filled(layer: Any) -> list[str]:
    return [name for name in layer.param_names if layer.has_param(name)]


def _content(pipeline: Pipeline) -> str:
    """A digest of a folder's pipeline, which differs from others of its name and version."""
    digests = Digests(paths.cache_folder() / "digests.json")
    return digests.together(spacy_pipeline.files(pipeline.folder), pipeline.folder)
