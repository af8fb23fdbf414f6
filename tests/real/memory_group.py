"""A control group of Linux that holds its processes to an amount of memory, the file cache they fill included."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")
_PATIENCE = 5.0
"""Seconds until a group whose last process has ended can be removed."""


@contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """Make a group of `limit` bytes and no swap; a process joins it by writing its id to `cgroup.procs` in it.

    Skips the test, with the reason, where this user may not make one. See cgroups(7).
    """
    refusals = []
    for parent, settings in _parents():
        group = parent / f"pilotlight-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            refusals.append(f"{parent}: {error.strerror}")
            continue
        try:
            try:
                (group / settings[0]).write_text(str(limit))
                (group / settings[1]).write_text("0")
            except OSError as error:
                refusals.append(f"{group}: {error.strerror}")
                continue
            yield group
            return
        finally:
            _remove(group)
    pytest.skip(f"no memory group can be made here ({'; '.join(refusals) or 'the system has none'})")


def _parents() -> Iterator[tuple[Path, tuple[str, str]]]:
    """Where a group may be made, best first, and the names of its limit and of its use of swap."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if "memory" in controllers.split(","):
            root = _ROOT / "memory"
            yield from ((path, ("memory.limit_in_bytes", "memory.swappiness")) for path in _here(root, own))
        elif not controllers:
            # In the second version a group that has processes has no groups with limits: its parent may.
            for path in _here(_ROOT, own):
                for parent in (path, path.parent) if path != _ROOT else (path,):
                    enabled = parent / "cgroup.subtree_control"
                    if enabled.exists() and "memory" in enabled.read_text(encoding="utf-8").split():
                        yield parent, ("memory.max", "memory.swap.max")


def _here(root: Path, own: str) -> list[Path]:
    """The own group; in a container its path may be the host's, and the root stands for it."""
    paths = (root / own.lstrip("/"), root)
    return [path for path in dict.fromkeys(paths) if path.is_dir()][:1]


def _remove(group: Path) -> None:
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            return
