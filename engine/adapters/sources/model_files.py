"""The files behind a reference: fetched, checked, converted, and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import paths
from engine.adapters.context import AdapterContext
from engine.adapters.sources import hub
from engine.adapters.sources.content import Digests, content_id
from engine.adapters.sources.download import Progress
from engine.adapters.sources.folder_check import check
from engine.adapters.sources.linked_folder import LinkedFolder
from engine.adapters.sources.locate import Reference
from engine.errors import LoadFailed
from engine.state import Download
from engine.weights.files.store import Store


def fetch(reference: Reference, context: AdapterContext, note: Callable[[Download | None], None]) -> Path:
    """Return the folder of the model, in the hub's cache if the hub has it; raises LoadFailed or Unavailable.

    `note` gets the progress of a download, and None once there is none.
    """
    if reference.local:
        return Path(reference.source)

    def report(download: Download) -> None:
        note(download)
        context.report_download(download)

    try:
        return hub.fetch(
            reference.source,
            reference.revision,
            offline=context.offline(),
            open_clip=reference.open_clip,
            progress=Progress(report),
        )
    finally:
        note(None)


def place_of(reference: Reference) -> Path:
    """Return the folder that holds a model's files: its own, or all of the model in the hub's cache."""
    return Path(reference.source) if reference.local else hub.cached(reference.source)


def open_folder(name: str, reference: Reference, folder: Path, store: Store) -> LinkedFolder:
    """Return the folder of encoder `name` in a form that its library can read.

    Raises LoadFailed if files are damaged or cannot be converted, Unavailable if they are missing or quantised.
    """
    with _named(name):
        check(folder, open_clip=reference.open_clip)
    return LinkedFolder(folder, store, paths.cache_folder() / "views", open_clip=reference.open_clip)


def revision(name: str, reference: Reference, folder: Path) -> str | None:
    """Return the commit of a hub's model, the version of a built-in one, the content id of any other folder.

    Raises LoadFailed if a file cannot be read.
    """
    if not reference.local:
        return folder.name
    if reference.revision is not None:
        return reference.revision
    with _named(name):
        return content_id(folder, Digests(paths.cache_folder() / "digests.json"))


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Name the encoder in errors that are raised inside."""
    try:
        yield
    except LoadFailed as error:
        raise LoadFailed(f"{name} could not be loaded: {error.message}", next_step=error.next_step) from error
    except OSError as error:
        raise LoadFailed(
            f"{name} could not be loaded: {error}.", next_step="Check that its files are there and readable."
        ) from error
