"""Who listens to events and does not read them."""

from __future__ import annotations

import asyncio

from http_fakes import FakeDense

from engine.engine import Engine
from engine.events import SettingsApplied
from engine.http import events


def test_a_listener_that_lost_events_is_let_go_instead_of_going_on_as_if_it_had_heard_all() -> None:
    async def heard(engine: Engine, missed: int) -> list[bytes]:
        stream = events._stream(engine)
        first = await anext(stream)
        assert first.startswith(b"event: reading")
        for _ in range(missed):
            engine.events.publish(SettingsApplied())
        await asyncio.sleep(0)  # the loop takes them
        rest = []
        async for event in stream:
            rest.append(event)
            if len(rest) == 5:
                break
        await stream.aclose()
        return rest

    with Engine(adapter=FakeDense) as engine:
        assert len(asyncio.run(heard(engine, events._MOST_WAITING))) == 5
        assert len(asyncio.run(heard(engine, events._MOST_WAITING + 1))) < 5
