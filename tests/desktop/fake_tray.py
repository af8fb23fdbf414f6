"""The tray over a fake engine: prints each call as a line of JSON, and reads orders from the lines of stdin.

Orders: `awake`, `asleep`, `failed`, `two` (encoders), `stop`.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from tray_fakes import MIB, FakeEngine, FakeSettings, a_view

from engine import Config, LoadFailed, Outcome, SettingsApplied, State, StateChanged
from engine.settings.config import DEFAULT_ENCODER
from engine.state import ErrorView
from tray.tray import Tray

SLEEPING = a_view(name="mini_lm & friends")


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class Settings(FakeSettings):
    """A settings file whose edits change the fake engine's settings."""

    def __init__(self, engine: FakeEngine) -> None:
        super().__init__()
        self._engine = engine

    def edit(self, changes: dict[tuple[str, ...], Any]) -> None:
        hardware = self._engine.config.hardware
        for path, value in changes.items():
            if path[0] == "hardware":
                hardware = replace(hardware, **{path[-1]: value})
            say(edit=".".join(path), value=value)
        self._engine.config = replace(self._engine.config, hardware=hardware)
        self._engine.events.publish(SettingsApplied())


class SpokenEngine(FakeEngine):
    """A fake engine that prints each call, and pins its encoder."""

    def submit_load(self, name: str, *, retry: bool = False) -> Future[Outcome]:
        say(asked="load", name=name)
        return super().submit_load(name, retry=retry)

    def _one(self, verb: str, name: str) -> Outcome:
        say(asked=verb, name=name)
        if verb in ("pin", "unpin"):
            self.encoders = tuple(replace(view, pinned=verb == "pin") for view in self.encoders)
        return super()._one(verb, name)

    def unload_all(self) -> tuple[Outcome, ...]:
        say(asked="unload_all")
        return super().unload_all()


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    config = Config(encoders=(replace(DEFAULT_ENCODER, name=SLEEPING.name),))
    engine = SpokenEngine(config=config, encoders=(SLEEPING,))
    tray = Tray(engine, Settings(engine), "http://127.0.0.1:7458", lambda: tray.stop())

    def on_signal(number: int, _frame: Any) -> None:
        say(signal=number)
        tray.stop()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)

    def obey() -> None:
        for line in sys.stdin:
            order = line.strip()
            state = {"awake": State.ON_DEVICE, "failed": State.FAILED}.get(order, State.UNLOADED)
            error = ErrorView("Load failed", "No <luck> & no joy.", None, None) if order == "failed" else None
            view = replace(
                SLEEPING,
                state=state,
                error=error,
                bytes_on_device=61 * MIB if state is State.ON_DEVICE else 0,
                bytes_total=87 * MIB,
                last_used=engine.clock(),
            )
            engine.encoders = (view, a_view("second")) if order == "two" else (view,)
            if order == "stop":
                tray.stop()
                return
            failure = LoadFailed("No <luck> & no joy.") if order == "failed" else None
            engine.events.publish(StateChanged(view.name, State.UNLOADED, state, error=failure))

    threading.Thread(target=obey, name="orders", daemon=True).start()
    tray.run(lambda: say(ready=threading.current_thread() is threading.main_thread()))
    say(ended=sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("tray-")))


if __name__ == "__main__":
    main()
