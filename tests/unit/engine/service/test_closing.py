"""The steps that close the program."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.service.closing import Closing


def test_steps_run_in_reverse_and_those_that_left_something_at_work_are_named() -> None:
    ran: list[tuple[str, float]] = []

    def closes(name: str, result: object) -> Callable[[float], object]:
        return lambda timeout: (ran.append((name, timeout)), result)[1]

    with Closing() as closing:
        closing.step("engine", closes("engine", False), 1.0)
        closing.step("power", closes("power", True), 0.3)
        closing.step("server", closes("server", None), 1.5)
        assert closing.unfinished == []
    assert ran == [("server", 1.5), ("power", 0.3), ("engine", 1.0)]
    assert closing.unfinished == ["engine"]


def test_a_step_that_fails_does_not_skip_the_next() -> None:
    def fails(timeout: float) -> None:
        raise OSError("server")

    closing = Closing()
    closing.step("engine", lambda timeout: False, 1.0)
    closing.step("server", fails, 1.0)
    with pytest.raises(OSError, match="server"):
        closing.close()
    assert closing.unfinished == ["engine"]
