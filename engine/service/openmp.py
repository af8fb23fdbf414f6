"""Threads of OpenMP, with which torch computes, in the app's own process."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final

WAIT_POLICY: Final = "OMP_WAIT_POLICY"
_CHOICES: Final = (WAIT_POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""The variables with which a user chooses how threads wait: the standard's, and those of GNU's and Intel's runtimes."""


def let_threads_sleep(environment: MutableMapping[str, str]) -> None:
    """Make waiting threads sleep, unless the user chose; the runtime reads it when torch is imported.

    By default GNU's runtime (torch on Linux) waits in a loop. While another program keeps a core busy, a thread that
    is waited for has no core until its time comes, and every layer of a model takes a hundred times as long.
    """
    if not any(choice in environment for choice in _CHOICES):
        environment[WAIT_POLICY] = "passive"
