"""A folder of links to a model's files, with converted weights in place of pickled ones."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import psutil

from engine.adapters.sources import model_folder, weight_names
from engine.weights.files.identity import Identity
from engine.weights.files.store import Store
from engine.weights.files.unpickling import Unpickler


class LinkedFolder:
    """A model as its library can read it: its own folder, or one of links where that would not do.

    It would not where weights are pickled, or where the path is no text. The folder of links stays until `close`,
    because libraries may read small files late.
    """

    def __init__(self, folder: Path, store: Store, cache: Path, *, open_clip: bool = False) -> None:
        """Look through `folder`, convert pickled weights into `store`, and put the links into a new folder in `cache`.

        `open_clip` says that this library will read it. Raises LoadFailed or OSError.
        """
        self.folder = folder
        """The folder that the library must read."""
        self.sources: tuple[Identity, ...] = ()
        """The files that the weights come from, as they were before: safetensors first, then the pickled ones."""
        self._store = store
        self._converted: list[Path] = []
        self._links: Path | None = None
        files = model_folder.weight_files(folder, open_clip=open_clip)
        safe = [Identity.of(file) for file in files if file.suffix == weight_names.SAFE]
        pickled = [Identity.of(file) for file in files if file.suffix != weight_names.SAFE]
        links = {source.path.relative_to(folder): source.path for source in safe}
        try:
            with Unpickler() as unpickler:
                for source in pickled:
                    target = unpickler.convert(source, store)
                    self._converted.append(target)
                    name = weight_names.safe_name(source.path.name)
                    links[source.path.relative_to(folder).with_name(name)] = target
                    safe.append(Identity.of(target))
            if pickled or not _is_text(folder):
                self._links = _new_folder(cache)
                _lay(folder, self._links, links)
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


def _new_folder(cache: Path) -> Path:
    """An empty folder of this process in `cache`; those of processes that are gone are removed."""
    cache.mkdir(parents=True, exist_ok=True)
    for left in cache.iterdir():
        process = left.name.partition(".")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}.", dir=cache))


def _lay(folder: Path, view: Path, weights: Mapping[Path, Path]) -> None:
    """Put links into `view`: the files of the model's folders without weights, and `weights`, path inside -> file."""
    places = [Path(), *map(Path, model_folder.module_folders(folder))]
    for place in dict.fromkeys(places):
        (view / place).mkdir(parents=True, exist_ok=True)
        for name in model_folder.files_in(folder / place):
            if name.startswith(".") or not _is_text(name) or weight_names.is_weights(name):
                continue
            if name in (weight_names.INDEX, weight_names.PICKLED_INDEX):
                _write_index(folder / place / name, place, view, weights)
            else:
                _link(folder / place / name, view / place / name)
        _link_folders(folder / place, view / place, {one for way in places for one in (way, *way.parents)}, place)
    for inside, target in weights.items():
        _link(target, view / inside)


def _link_folders(place: Path, view: Path, ours: Collection[Path], inside: Path) -> None:
    """Link the subfolders that are no module's, for templates and code; without links there are none of them."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith(".") and inside / entry.name not in ours:
                with contextlib.suppress(OSError):
                    (view / entry.name).symlink_to(Path(entry.path).absolute(), target_is_directory=True)


def _write_index(index: Path, place: Path, view: Path, weights: Mapping[Path, Path]) -> None:
    """Write an index for the shards as they are called in `view`; nothing for one of other files."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
        value = json.loads(index.read_text(encoding="utf-8"))
        pickled = index.name == weight_names.PICKLED_INDEX
        shards = {key: weight_names.safe_name(name) if pickled else name for key, name in value["weight_map"].items()}
        if all(place / shard in weights for shard in shards.values()):
            text = json.dumps({**value, "weight_map": shards})
            (view / place / weight_names.INDEX).write_text(text, encoding="utf-8")


def _is_text(path: Path | str) -> bool:
    """Whether a path is text, which it need not be on Linux; the libraries in Rust open no other."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


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
