"""A folder of links to a model's files, with converted weights in place of pickled ones."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from engine.adapters.sources import model_folder
from engine.weights.files.identity import Identity
from engine.weights.files.store import Store
from engine.weights.files.unpickling import Unpickler, Unreadable

_log = logging.getLogger(__name__)


class LinkedFolder:
    """A model whose weights are all safetensors: its own folder, or one of links where some of them are pickled.

    The folder of links stays until `close`, because libraries may read small files late.
    """

    def __init__(self, folder: Path, store: Store, cache: Path) -> None:
        """Look through `folder`, convert pickled weights into `store`, and put the links into a new folder in `cache`.

        Raises LoadFailed or OSError.
        """
        self.folder = folder
        """The folder that the library must read."""
        self.sources: tuple[Identity, ...] = ()
        """The files that the weights come from, as they were before: safetensors first, then the pickled ones."""
        self._store = store
        self._converted: list[Path] = []
        self._links: Path | None = None
        files = model_folder.weight_files(folder)
        safe = [Identity.of(file) for file in files if file.suffix == model_folder.SAFE]
        pickled = [Identity.of(file) for file in files if file.suffix != model_folder.SAFE]
        links: dict[Path, Path] = {}
        try:
            with Unpickler() as unpickler:
                for source in pickled:
                    target = self._converted_or_left_out(source, unpickler)
                    if target is not None:
                        name = model_folder.safe_name(source.path.name)
                        links[source.path.relative_to(folder).with_name(name)] = target
                        safe.append(Identity.of(target))
            if pickled:
                self._links = _new_folder(cache)
                _lay(folder, self._links, {source.path for source in pickled}, links)
                self.folder = self._links
        except BaseException:
            self.close()
            raise
        self.sources = (*safe, *pickled)

    def close(self) -> None:
        """Remove the links and release the converted files; safe to call twice."""
        paths, self._converted = self._converted, []
        for path in paths:
            self._store.release(path)
        if self._links is not None:
            shutil.rmtree(self._links, ignore_errors=True)

    def _converted_or_left_out(self, source: Identity, unpickler: Unpickler) -> Path | None:
        """The converted file; None for a pickled file without weights that the model can be read without."""
        try:
            path = unpickler.convert(source, self._store)
        except Unreadable as error:
            if model_folder.is_indispensable(source.path):
                raise
            _log.warning("left out: %s", error)
            return None
        self._converted.append(path)
        return path


def _new_folder(cache: Path) -> Path:
    """An empty folder of this process in `cache`; those of processes that are gone are removed."""
    cache.mkdir(parents=True, exist_ok=True)
    for left in cache.iterdir():
        process = left.name.partition(".")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}.", dir=cache))


def _lay(folder: Path, view: Path, without: set[Path], links: Mapping[Path, Path]) -> None:
    """Link every file of `folder` in `view`, except those in `without`, and `links`: path in the view -> file."""
    for file in _files(folder):
        inside = view / file.relative_to(folder)
        if file in without:
            continue
        if file.name == model_folder.PICKLED_INDEX and not file.with_name(model_folder.INDEX).exists():
            _write_index(file, inside.with_name(model_folder.INDEX))
        else:
            _link(file, inside)
    for inside, target in links.items():
        _link(target, view / inside)


def _files(folder: Path) -> list[Path]:
    """All files, also those behind links to folders, without hidden ones."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return found


def _write_index(index: Path, target: Path) -> None:
    """Write the index of pickled shards as one of the converted ones."""
    value = json.loads(index.read_text(encoding="utf-8"))
    value["weight_map"] = {key: model_folder.safe_name(name) for key, name in value["weight_map"].items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(value), encoding="utf-8")


def _link(file: Path, inside: Path) -> None:
    """Make `inside` a link to `file`, or a copy if the system allows no link, as Windows for most users."""
    inside.parent.mkdir(parents=True, exist_ok=True)
    try:
        inside.symlink_to(file.absolute())
    except OSError:
        try:
            os.link(file.resolve(), inside)
        except OSError:
            shutil.copyfile(file, inside)
