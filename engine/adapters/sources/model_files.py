"""From a reference to files that a library can read: fetched, looked through, converted, and named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import paths
from engine.adapters.context import AdapterContext
from engine.adapters.sources import hub, model_folder
from engine.adapters.sources.content import Digests, content_id
from engine.adapters.sources.download import Progress
from engine.adapters.sources.linked_folder import LinkedFolder
from engine.adapters.sources.locate import Reference
from engine.errors import LoadFailed
from engine.state import Download
from engine.weights.files.store import Store


def fetch(reference: Reference, context: AdapterContext, note: Callable[[Download | None], None]) -> Path:
    """Return the folder of the model, from the hub's cache where it is a hub's; raises LoadFailed.

    `note` gets how far a download is, and None once there is none.
    """
    if reference.local:
        return Path(reference.source)

    def tell(download: Download) -> None:
        note(download)
        context.report_download(download)

    try:
        return hub.fetch(
            reference.source,
            reference.revision,
            offline=context.offline(),
            open_clip=reference.open_clip,
            progress=Progress(tell),
        )
    finally:
        note(None)


def open_folder(name: str, folder: Path, store: Store) -> LinkedFolder:
    """Return the folder of the model of encoder `name` as its library shall see it.

    Raises LoadFailed where files are missing or damaged, or cannot be converted.
    """
    with _named(name):
        model_folder.check(folder)
    return LinkedFolder(folder, store, paths.cache_folder() / "views")


def revision(name: str, reference: Reference, folder: Path) -> str | None:
    """Return the commit of a hub's model, the version of a built-in one, the content id of any other folder.

    Raises LoadFailed where a file cannot be read.
    """
    if not reference.local:
        return folder.name
    if reference.revision is not None:
        return reference.revision
    with _named(name):
        return content_id(folder, Digests(paths.cache_folder() / "digests.json"))


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say of errors within which encoder they hit."""
    try:
        yield
    except LoadFailed as error:
        raise LoadFailed(f"{name} could not be loaded: {error.message}", next_step=error.next_step) from error
    except OSError as error:
        raise LoadFailed(
            f"{name} could not be loaded: {error}.", next_step="Check that its files are there and readable."
        ) from error
