"""The part of a CUDA runtime that pins memory, for the fake accelerator, which has none of its own."""

from __future__ import annotations

import pytest
from fake_device import BACKEND


class Runtime:
    """What is registered with it: address -> bytes."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.registered: dict[int, int] = {}
        self.refuses = False
        """Whether it registers nothing from now on."""

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
        """Return 0, or the number of an error."""
        assert flags == 1
        if self.refuses:
            return 2
        self.registered[address] = size
        return 0

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        """Return 0, or the number of an error where nothing is registered there."""
        return 0 if self.registered.pop(address, None) else 1

    @staticmethod
    def check_error(code: int) -> None:
        """Raise RuntimeError for the number of an error."""
        if code:
            raise RuntimeError(f"CUDA error {code}")


def installed(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Give `fakegpu` a runtime for one test."""
    runtime = Runtime()
    monkeypatch.setattr(BACKEND, "cudart", lambda: runtime, raising=False)
    monkeypatch.setattr(BACKEND, "check_error", runtime.check_error, raising=False)
    return runtime
