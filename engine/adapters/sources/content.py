"""The content id of a local model: a digest of its files, each of them read once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from engine import paths
from engine.adapters.sources import model_folder
from engine.weights.files.identity import Identity

_log = logging.getLogger(__name__)

_DIGITS: Final = 12
_MOST: Final = 2000
"""Digests that are kept at most; a model has about ten files."""
_LOCK: Final = threading.Lock()  # guards the file of digests, never held while a model is read


class Digests:
    """SHA-256 by file, kept on disk, so that an unchanged file is not read again."""

    def __init__(self, file: Path) -> None:
        """Keep them in `file`; touches nothing yet."""
        self._file = file

    def of(self, files: Iterable[Path]) -> dict[Path, str]:
        """Return the digest of each file, in hex; raises OSError for one that cannot be read."""
        with _LOCK:
            known = self._read()
        found, new = {}, {}
        for file in files:
            key = json.dumps(Identity.of(file).key)
            if key not in known:
                with file.open("rb") as stream:
                    new[key] = hashlib.file_digest(stream, "sha256").hexdigest()
                # If the file changed while it was read, the digest belongs to neither version.
                if json.dumps(Identity.of(file).key) != key:
                    found[file] = new.pop(key)
                    continue
            found[file] = known.get(key) or new[key]
        if new:
            self._keep(new)
        return found

    def together(self, files: Iterable[Path], folder: Path) -> str:
        """Return one short digest of files in `folder`, their names in it included; raises OSError."""
        found = self.of(sorted(files))
        whole = hashlib.sha256()
        for file in sorted(found):
            whole.update(spelled(file, folder) + f"\0{found[file]}\0".encode())
        return whole.hexdigest()[:_DIGITS]

    def _read(self) -> dict[str, str]:
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def _keep(self, new: dict[str, str]) -> None:
        with _LOCK:
            kept = list({**self._read(), **new}.items())[-_MOST:]
            try:
                paths.write_atomically(self._file, json.dumps(dict(kept)).encode())
            except OSError as error:
                _log.warning("digests of models are not kept: %s", error)


def content_id(folder: Path, digests: Digests) -> str:
    """Return a short name of the model in `folder`; it changes with the files that its answers depend on.

    Those are its weights, configuration, tokenizer, templates and own code. Raises OSError, or LoadFailed.
    """
    return digests.together({*model_folder.weight_files(folder), *model_folder.small_files(folder)}, folder)


def configuration(folder: Path) -> str:
    """Return a digest of the files that describe the structure of the model; it changes when one of them does."""
    digest = hashlib.sha256()
    for file in model_folder.small_files(folder):
        if file.name.endswith("config.json") or file.name in ("modules.json", "config_sentence_transformers.json"):
            digest.update(spelled(file, folder) + b"\0" + file.read_bytes())
    return digest.hexdigest()


def spelled(file: Path, folder: Path) -> bytes:
    """Return the path of `file` in `folder` as bytes, the same on every system; a name need not be text."""
    return os.fsencode(file.relative_to(folder).as_posix())
