"""The interface of an engine for the endpoint, the tray, the command line and Python: plain data in, plain data out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Self, TypeVar

from engine.devices.readings import Reading
from engine.events import Events
from engine.operations.bundle import Bundle, EncodeBundle
from engine.operations.operation import Answer, Operation
from engine.proxies import Proxies
from engine.settings.config import Config
from engine.state import EncoderView, Outcome

T = TypeVar("T")


class EngineInterface(Proxies, ABC):
    """An engine, wherever it runs: operations, settings and names go in; answers, views and outcomes come out.

    No method takes or returns a function of the caller's or an object of the engine's inside, so that an engine may run
    in another process. `with engine:` starts it and closes it at the end.
    """

    events: Events
    """Changes of state, downloads and new settings."""
    clock: Callable[[], float]
    """The clock of all instants in views: monotonic, in seconds."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    @abstractmethod
    def config(self) -> Config:
        """The settings in force."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether requests are taken: from `start()` until `close()`; each encoder has its own state."""

    # Life

    @abstractmethod
    def start(self) -> None:
        """Start the offloader, and start bringing up the encoders that are not lazy: to their device or into RAM.

        Raises Closed after `close`.
        """

    @abstractmethod
    def apply(self, config: Config) -> None:
        """Put new settings in force: encoders that stay themselves keep their weights, others are replaced.

        Raises Closed after `close`.
        """

    @abstractmethod
    def stop_accepting(self, timeout: float) -> None:
        """Take no more requests; those that wait end with Closed after `timeout` seconds at the latest."""

    @abstractmethod
    def close(self, timeout: float = 5.0) -> bool:
        """Stop the offloader, refuse what waits, let what runs end for up to `timeout` seconds, drop all weights.

        Returns False when something was still at work at the end of that time.
        """

    @abstractmethod
    def suspend(self, timeout: float = 3.0) -> None:
        """Take all weights off devices that lose them when the computer sleeps, pinned ones too.

        Waits up to `timeout` seconds for encoders in use; `resume` takes those down that were not free in time.
        """

    @abstractmethod
    def resume(self, timeout: float = 30.0) -> None:
        """Take down the weights that were on a device during sleep, so that the next use brings fresh copies."""

    # Use

    @abstractmethod
    def ask(
        self,
        model: str | None,
        operation: Operation[T],
        used_by: str | None = None,
        keep_alive: float | None = None,
    ) -> Future[Answer[T]]:
        """Queue `operation` for the encoder called `model`, None for the default one, and return its answer's future.

        `used_by` names the app in status. `keep_alive` (seconds; 0 = unload afterwards, negative = stay) takes the
        place of the idle timeout until another use names one or the encoder steps down; `max_keep_alive_seconds` bounds
        it. An operation about no items is answered at once and loads nothing. Raises UnknownEncoder, InvalidInput,
        QueueFull or Closed; the future raises LoadFailed, Unavailable, or the operation's error.
        """

    @abstractmethod
    def submit_bundle(
        self, asked: EncodeBundle, used_by: str | None = None, keep_alive: float | None = None
    ) -> Future[Bundle]:
        """Queue the parts of a bundle, each for its encoder, and return the future of the whole; raises as `ask`."""

    def bundle(
        self,
        text: str,
        *,
        task: str | None = "query",
        top_k: int = 128,
        models: Mapping[str, str | None] | None = None,
        truncate: bool = True,
        keep_alive: float | None = None,
    ) -> Bundle:
        """Return one text as dense vector, sparse vector and coordinates along axes, as far as these are configured.

        `models` names encoders by part (`dense`, `sparse`, `axes`) in place of the default ones; `top_k` tokens are
        kept in the sparse vector; `task`, `truncate` and `keep_alive` are as in `DenseProxy.encode`, for all of them.
        Raises UnknownEncoder, InvalidInput, LoadFailed, Unavailable, QueueFull or Closed.
        """
        asked = EncodeBundle(text, task, top_k, models or {}, truncate)
        return self.submit_bundle(asked, keep_alive=keep_alive).result()

    # Looking: none of it loads, wakes or resets a clock

    @abstractmethod
    def view(self, name: str, *, measured: bool = False) -> EncoderView:
        """Return a snapshot of one encoder by name or alias; raises UnknownEncoder.

        Its bytes are those after its last move; `measured` asks the system for those of this instant, which takes
        some milliseconds for a large one.
        """

    @abstractmethod
    def views(self, *, measured: bool = False) -> tuple[EncoderView, ...]:
        """Return a snapshot of every encoder, in the order of the settings; `measured` as in `view`."""

    @abstractmethod
    def components(self, name: str) -> tuple[str, ...]:
        """Return the names of an encoder's parts, or its own where it has none; raises UnknownEncoder."""

    @abstractmethod
    def read_memory(self, *, detailed: bool = False) -> Reading:
        """Return a reading of the process, the system and the GPUs; `detailed` adds private bytes and swap."""

    # Control

    @abstractmethod
    def submit_load(self, name: str, *, retry: bool = False) -> Future[Outcome]:
        """Queue a load, or a retry, and return its future; raises as `ask`."""

    def load(self, name: str) -> Outcome:
        """Bring an encoder to its device and wait for it; raises LoadFailed or Unavailable."""
        return self.submit_load(name).result()

    def retry(self, name: str) -> Outcome:
        """Load again now, whatever delay a failed load has left; raises LoadFailed or Unavailable."""
        return self.submit_load(name, retry=True).result()

    @abstractmethod
    def offload(self, name: str) -> Outcome:
        """Take an encoder off its device now, unless it is in use or pinned."""

    @abstractmethod
    def unload(self, name: str) -> Outcome:
        """Drop an encoder's weights now, unless it is in use or pinned."""

    @abstractmethod
    def pin(self, name: str) -> Outcome:
        """Keep an encoder from stepping down until unpinned; loads nothing."""

    @abstractmethod
    def unpin(self, name: str) -> Outcome:
        """Let an encoder step down again; the outcome names the encoders whose pins still hold its weights."""

    @abstractmethod
    def load_all(self) -> tuple[Outcome, ...]:
        """Bring every encoder to its device and wait; one that fails answers `refused`, its view says why."""

    @abstractmethod
    def offload_all(self) -> tuple[Outcome, ...]:
        """Take every encoder off its device, unless in use or pinned."""

    @abstractmethod
    def unload_all(self) -> tuple[Outcome, ...]:
        """Drop every encoder's weights, unless in use or pinned."""
