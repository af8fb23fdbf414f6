"""Models by hub id: fetched into the hub's own cache before anything is constructed."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Final

from engine.adapters.sources.download import Progress, fetch_large
from engine.adapters.sources.model_folder import ROUTER, module_folders, weight_paths
from engine.adapters.sources.weight_names import INDEX, PICKLED_INDEX, is_weights
from engine.errors import EncoderError, LoadFailed, Unavailable, first_line
from engine.units import MIB

_OTHER_FORMATS: Final = (
    "onnx/*", "openvino/*", "coreml/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.tflite", "*.gguf", "*.tar.gz",
)  # fmt: skip
_FIRST: Final = ("modules.json", "config.json", ROUTER, INDEX, PICKLED_INDEX)
"""Files that say which other files are needed."""
_LARGE: Final = 4 << 20
"""Bytes from which on a download is worth resuming."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_TITLE: Final = "Model not downloaded"


def be_quiet() -> None:
    """Tell the hub's library, before its import, to report nothing and to draw no progress bars."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def cached(model: str) -> Path:
    """Return the folder of the hub's cache for `model`, which is there once something of it was fetched."""
    be_quiet()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"models--{model.replace('/', '--')}")


def fetch(
    model: str,
    revision: str | None = None,
    *,
    offline: bool = False,
    open_clip: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Return the folder of the hub's cache that holds `model` at `revision`, downloading what is missing.

    `revision` is a branch, a tag or a commit; None is the default branch. Without a network, or with `offline`, the
    files in the cache must do; for a commit that is complete in the cache no request is made. Pickled weights are
    fetched only if there are no safetensors; of two layouts the one that transformers reads, or `open_clip`. Raises
    LoadFailed, and Unavailable for files that `offline` forbids to fetch.
    """
    be_quiet()
    try:
        return _fetched(model, revision, offline, open_clip, progress or Progress())
    except LoadFailed:
        raise
    except Exception as error:
        raise _failed(model, revision, offline, error) from error


def fetch_code(repository: str) -> None:
    """Bring the Python files of a repository into the hub's cache; raises LoadFailed."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(repository, allow_patterns=["*.py"])
    except Exception as error:
        raise _failed(repository, None, False, error) from error


def _fetched(model: str, revision: str | None, offline: bool, open_clip: bool, progress: Progress) -> Path:
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    folder = Path(snapshot_download(model, revision=revision, allow_patterns=list(_FIRST), local_files_only=offline))
    try:
        tree = get_cached_repo_tree(model, revision=folder.name)
    except CachedRepoTreeNotFoundError:
        return folder  # fetched by an older library, which kept no list of the files
    files = {file.path: file.size for file in tree}
    for _ in ("modules", "the modules behind a router"):
        if not offline:
            _let_fetch(model, folder, _described_in_modules(files, folder))
    wanted = _wanted(files, folder, open_clip=open_clip)
    missing = {name: size for name, size in wanted.items() if not (folder / name).exists()}
    if not missing:
        return folder
    if offline:
        raise LocalEntryNotFoundError(f"{len(missing)} of its files are not on this computer")
    _require_room(model, folder, sum(missing.values()))
    progress.begin(sum(missing.values()))
    try:
        small = {name: size for name, size in missing.items() if size < _LARGE}
        _let_fetch(model, folder, list(small))
        progress.add(sum(small.values()))
        for name in missing.keys() - small.keys():
            fetch_large(model, name, folder, progress)
        _let_fetch(model, folder, list(missing))
    finally:
        progress.end()
    return folder


def _described_in_modules(files: Mapping[str, int], folder: Path) -> list[str]:
    """The missing files of the same names in the modules' folders, as far as those are known."""
    names = [f"{place}/{name}" for place in module_folders(folder) for name in _FIRST]
    return [name for name in names if name in files and not (folder / name).exists()]


def _let_fetch(model: str, folder: Path, names: list[str]) -> None:
    """Let the hub's library bring these files into the snapshot; files that are there already cost nothing."""
    from huggingface_hub import snapshot_download

    if names:
        snapshot_download(model, revision=folder.name, allow_patterns=[glob.escape(name) for name in names])


def _wanted(files: Mapping[str, int], folder: Path, *, open_clip: bool = False) -> dict[str, int]:
    """The files of a repository, path -> size in bytes, that the model is read from, and its small files."""

    def names_in(place: str) -> list[str]:
        inside = PurePosixPath(place)
        return [PurePosixPath(path).name for path in files if PurePosixPath(path).parent == inside]

    weights = set(weight_paths(folder, names_in, open_clip=open_clip))
    return {
        path: size
        for path, size in files.items()
        if path in weights or not (is_weights(path) or any(fnmatch(path, pattern) for pattern in _OTHER_FORMATS))
    }


def _require_room(model: str, folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise LoadFailed(
            f"{model} needs {nbytes // MIB} MiB for its download, and the disk of {folder.parent.parent.parent} has "
            f"{free // MIB} MiB free.",
            title=_TITLE,
            next_step="Make room there, or set HF_HOME to a folder on another disk.",
        )


def _failed(model: str, revision: str | None, offline: bool, error: Exception) -> EncoderError:
    from huggingface_hub import errors

    message, next_step = _words(model, revision, offline, error)
    if offline and isinstance(error, errors.LocalEntryNotFoundError | errors.IncompleteSnapshotError):
        return Unavailable(message, title=_TITLE, next_step=next_step)
    return LoadFailed(message, title=_TITLE, next_step=next_step)


def _words(model: str, revision: str | None, offline: bool, error: Exception) -> tuple[str, str]:
    """The message for the user, and the next step."""
    import httpx2
    from huggingface_hub import errors

    named = f"{model}@{revision}" if revision else model
    match error:
        case errors.LocalEntryNotFoundError() | errors.IncompleteSnapshotError() if offline:
            return (
                f"{named} is not on this computer, at least not all of it, and the settings say to ask no model hub.",
                "Set offline = false under [hub] in the settings file, or set `model` to a folder.",
            )
        case errors.LocalEntryNotFoundError() | errors.IncompleteSnapshotError():
            return (
                f"{named} is not on this computer, at least not all of it, and the model hub cannot be reached.",
                "Connect to the network and try again, or set `model` to a folder.",
            )
        case errors.GatedRepoError():
            return (
                f"{model} is given only to those who accept its licence.",
                f"Accept it at https://huggingface.co/{model}, make a token there, and run: hf auth login",
            )
        case errors.RevisionNotFoundError():
            return f"{model} has no revision {revision!r}.", "Check what follows the @ in `model`."
        case errors.RepositoryNotFoundError():
            return (
                f"The model hub has no {model}, or it is private.",
                "Check the spelling of `model`. For a private one make a token at the hub, and run: hf auth login",
            )
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return (
                f"The model hub does not give {model} to you.",
                f"See https://huggingface.co/{model}, make a token there, and run: hf auth login",
            )
        case errors.HFValidationError():
            return f"{model} is no id of a model: {first_line(error)}", "Mend `model` in the settings."
        case OSError() if error.errno in _FULL:
            return f"The disk became full while {model} was downloaded.", "Make room; it goes on where it was."
        case httpx2.TransportError():
            return (
                f"The connection to the model hub was lost while {model} was downloaded: {first_line(error)}",
                "Check the network; the next try goes on where this one was.",
            )
    return (
        f"{model} could not be fetched from the model hub: {first_line(error)}",
        "Check `model` in the settings, the network and the free disk space.",
    )
