"""The proxy of plug-ins: the operations that they declare."""

from __future__ import annotations

from typing import Any

from engine.operations.plugin import Call
from engine.proxies.proxy import Proxy


class PluginProxy(Proxy):
    """An object from another package."""

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of its operations; asking loads it."""
        names: tuple[str, ...] = self._fact("operations")
        return names

    def call(self, operation: str, /, *, keep_alive: float | None = None, **arguments: Any) -> Any:
        """Return the result of one of its operations for `arguments`.

        `keep_alive` is as in `DenseProxy.encode`. Raises InvalidInput, EncoderError when the plug-in fails, LoadFailed,
        Unavailable, QueueFull or Closed.
        """
        return self._run(Call(operation, arguments), keep_alive)
