"""The package or file that a spaCy pipeline lacks, from the error of its loading."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import metadata
from typing import Final

from engine.adapters.base.hopeless import unavailable
from engine.adapters.kinds.spacy_pipeline import Pipeline
from engine.adapters.packages import missing
from engine.errors import Unavailable, first_line

_FACTORY: Final = re.compile(r"\[E002\] Can't find factory for '([^']+)'")
_FUNCTION: Final = re.compile(r"\[E893\] Could not find function '([^']+)' in function registry '([^']+)'")
_TABLES: Final = re.compile(r"\[E955\]|\[E912\]")
_UNREADABLE: Final = re.compile(r"Can't read file: (.+)")
_FACTORIES: Final = {
    "transformer": "spacy-transformers",
    "curated_transformer": "spacy-curated-transformers",
    "llm": "spacy-llm",
    "span_finder": "spacy-experimental",
}
"""Factories of components -> the package of spaCy's authors that has them."""


def unavailable_pipeline(name: str, pipeline: Pipeline, error: Exception) -> Unavailable | None:
    """Return the error that says what to install or put in place for encoder `name`; None where a retry may help."""
    text = str(error)
    if found := _FACTORY.search(text):
        factory = found.group(1)
        return _without(pipeline, f"{name} has a component {factory!r}", _FACTORIES.get(factory))
    if found := _FUNCTION.search(text):
        function, registry = found.groups()
        # By custom a package's functions begin with its name.
        package = function.partition(".")[0]
        is_named = package.startswith("spacy-")
        return _without(pipeline, f"{name} uses {function!r} of the {registry}", package if is_named else None)
    if _TABLES.search(text):
        return missing("spacy-lookups-data", f"{name} needs tables of words: {first_line(error).rstrip('.')}.")
    if found := _UNREADABLE.search(text):
        error = FileNotFoundError(2, "No such file", found.group(1))
    if isinstance(error, ImportError | FileNotFoundError):
        return unavailable(name, error, library=f"spaCy {metadata.version('spacy')}")
    return None


def _without(pipeline: Pipeline, uses: str, package: str | None) -> Unavailable:
    package = package or next(_required(pipeline), None)
    if package is not None:
        return missing(package, f"{uses}, and the package {package}, which has it, is not installed.")
    return Unavailable(
        f"{uses}, which no installed package has.", next_step="Install the package that the pipeline was made with."
    )


def _required(pipeline: Pipeline) -> Iterator[str]:
    """The packages that the pipeline's `meta.json` requires and that are not installed."""
    meta = json.loads((pipeline.folder / "meta.json").read_text(encoding="utf-8"))
    for requirement in meta.get("requirements", ()):
        if found := re.match(r"[\w.-]+", str(requirement)):
            try:
                metadata.version(found.group())
            except metadata.PackageNotFoundError:
                yield found.group()
