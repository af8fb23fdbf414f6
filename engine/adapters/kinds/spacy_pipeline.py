"""The place of a spaCy pipeline, and a check that the installed spaCy can read it; imports neither."""

from __future__ import annotations

import configparser
import contextlib
import importlib
import json
import os
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.adapters.packages import command, packaged
from engine.adapters.sources.locate import locate as locate_folder
from engine.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline on this computer."""

    package: str | None
    """The package that it is installed as, None for a folder."""
    folder: Path
    """The folder with its `config.cfg`."""
    name: str
    version: str
    """As its `meta.json` says."""

    @property
    def source(self) -> str | Path:
        """The argument of `spacy.load` for it."""
        return self.package or self.folder


def locate(model: str, *, offline: bool = False) -> Pipeline:
    """Return the pipeline of `model`, the name of a package or a folder; raises Unavailable with a next step.

    With `offline` the next step is no download.
    """
    package = model if model.isidentifier() else None
    root = _installed(model, offline) if package else Path(locate_folder(model).source)
    meta = _meta(root, package)
    lang, name, version = (str(meta.get(key, "")) for key in ("lang", "name", "version"))
    folder = root / f"{lang}_{name}-{version}" if package else root
    if not (folder / "config.cfg").is_file():
        raise _not_a_pipeline(folder, "config.cfg")
    _check_version(f"{package or root.name} {version}", str(meta.get("spacy_version", "")), package)
    return Pipeline(package, folder, f"{lang}_{name}", version)


def files(folder: Path) -> list[Path]:
    """Return the files that spaCy reads of the pipeline in `folder`, sorted: whatever else is there is no part of it.

    Source: `Language.from_disk`, which reads one file or folder for each component that `config.cfg` names.
    """
    found: list[Path] = []
    for name in ("config.cfg", "meta.json", "tokenizer", "vocab", *_components(folder)):
        place = folder / name
        found += [place] if place.is_file() else []
        for inside, _, names in os.walk(place):
            found += [file for file in (Path(inside, one) for one in names) if file.is_file()]
    return sorted(set(found))


def _components(folder: Path) -> list[str]:
    """The names of the components; of a configuration that cannot be read, which spaCy will refuse, none."""
    config = configparser.RawConfigParser(strict=False)
    with contextlib.suppress(OSError, ValueError, configparser.Error):
        config.read_string((folder / "config.cfg").read_text(encoding="utf-8"))
        return [str(name) for name in json.loads(config.get("nlp", "pipeline"))]
    return []


def _installed(package: str, offline: bool) -> Path:
    """The folder of an installed package."""
    importlib.invalidate_caches()
    with contextlib.suppress(metadata.PackageNotFoundError):
        metadata.distribution(package)
        spec = find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            return Path(place)
    if packaged():
        step = "Unpack it into a folder, and name in `model` the folder that holds its config.cfg."
    elif offline:
        step = (
            "The settings say offline: copy it here and name in `model` the folder that holds its config.cfg, "
            f"or run once with a network: {_download(package)}"
        )
    else:
        step = f"Run: {_download(package)}"
    raise Unavailable(f"The spaCy pipeline {package} is not installed.", next_step=step)


def _meta(root: Path, package: str | None) -> dict[str, Any]:
    try:
        meta = json.loads((root / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _not_a_pipeline(package or root, "meta.json") from None
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"{root / 'meta.json'} cannot be read: {error}", next_step="Put a whole copy of the pipeline there."
        ) from error
    if not isinstance(meta, dict):
        raise Unavailable(
            f"{root / 'meta.json'} does not describe a pipeline.", next_step="Put a whole copy of the pipeline there."
        )
    return meta


def _not_a_pipeline(what: object, file: str) -> Unavailable:
    return Unavailable(
        f"{what} is no spaCy pipeline: it has no {file}.",
        next_step='Name in `model` a pipeline ("en_core_web_sm") or the folder that `nlp.to_disk` wrote.',
    )


def _check_version(pipeline: str, wanted: str, package: str | None) -> None:
    """Raise Unavailable if the pipeline was made for a version of spaCy that is not the installed one."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # spaCy itself depends on it

    installed = metadata.version("spacy")
    try:
        if not wanted or SpecifierSet(wanted).contains(installed, prereleases=True):
            return
    except InvalidSpecifier:
        return
    if packaged():
        step = f"Get the version of the pipeline that is for spaCy {installed}."
    elif package:
        step = f"Get the version that fits. Run: {_download(package)}"
    else:
        requirement = f'"spacy{wanted}"'
        step = f"Train or export it anew, or run: {command('pip', 'install', requirement)}"
    raise Unavailable(f"The pipeline {pipeline} is for spaCy {wanted}; installed is {installed}.", next_step=step)


def _download(package: str) -> str:
    return command("spacy", "download", package)
