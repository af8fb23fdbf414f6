"""The identity of a file, by which one stat detects a change before any page is touched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import printable

_HASH: Final = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
"""git's hash of a small file, SHA-256 of a large one."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A file as it was at one instant; a link counts as its target."""

    path: Path
    size: int
    modified_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: Path) -> Identity:
        """Return the identity of the file at `path` now; raises OSError."""
        status = path.stat()
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)

    @property
    def key(self) -> tuple[object, ...]:
        """The values that identify a conversion of this file.

        In a hub's cache the file is a link whose target is named by the hash of its content, which is used instead of
        the times.
        """
        target = self.path.resolve()
        if self.path.is_symlink() and target.parent.name == "blobs" and _HASH.fullmatch(target.name):
            return (target.name, self.size)
        return (str(target), self.size, self.modified_ns, self.inode)

    def changed(self) -> str | None:
        """Return the change of the file since in words; None if it is the same."""
        shown = printable(str(self.path))
        try:
            now = Identity.of(self.path)
        except FileNotFoundError:
            return f"{shown} was deleted"
        except OSError as error:
            return f"{shown} cannot be looked at: {error.strerror}"
        if now == self:
            return None
        if (now.inode, now.device) != (self.inode, self.device):
            return f"{shown} was replaced"
        return f"{shown} was changed"
