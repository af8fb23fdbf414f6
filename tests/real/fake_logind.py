"""As much of logind as a program sees that delays sleep, and a stranger on the same bus that says the same."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

LOGIND = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"


@dataclass(frozen=True, slots=True)
class Inhibitor:
    """What a program asked for, and our end of the pipe whose other end it holds."""

    asked: tuple[str, ...]
    """What, who, why, mode."""
    program: str
    """Its unique name on the bus."""
    reading: int

    @property
    def held(self) -> bool:
        """Whether the other end is open at this instant."""
        poll = select.poll()
        poll.register(self.reading, select.POLLIN)
        return not poll.poll(0)


class Stranger:
    """A program on the bus; every call returns once the bus has passed on what it says."""

    def __init__(self, address: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-bus", daemon=True)
        self._thread.start()
        self._bus: Any = self._wait(self._connect(address))

    def prepare_for_sleep(self, start: bool, program: str | None = None) -> None:
        """Emit logind's signal: to all who listen, or straight to one program."""
        self._wait(
            self._send(
                Message(
                    message_type=MessageType.SIGNAL,
                    destination=program,
                    path=PATH,
                    interface=MANAGER,
                    member="PrepareForSleep",
                    signature="b",
                    body=[start],
                )
            )
        )
        self._bus_call("GetId")

    def close(self) -> None:
        """Leave the bus; safe to call again."""
        if self._loop.is_closed():
            return
        self._wait(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _bus_call(self, member: str, signature: str = "", *body: Any) -> None:
        bus = "org.freedesktop.DBus"
        message = Message(
            destination=bus,
            path="/org/freedesktop/DBus",
            interface=bus,
            member=member,
            signature=signature,
            body=list(body),
        )
        reply = self._wait(self._bus.call(message))
        assert reply.message_type is MessageType.METHOD_RETURN, reply.body

    def _wait(self, work: Awaitable[Any]) -> Any:
        async def within() -> Any:
            return await asyncio.wait_for(work, 10)

        return asyncio.run_coroutine_threadsafe(within(), self._loop).result(12)

    async def _send(self, message: Message) -> None:
        # Called on the loop's thread: two threads that write at once mix up the library's buffer.
        await self._bus.send(message)

    async def _connect(self, address: str) -> Any:
        return await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()

    async def _leave(self) -> None:
        self._bus.disconnect()
        try:
            await self._bus.wait_for_disconnect()
        except (EOFError, OSError):
            pass  # the bus was first


class FakeLogind(Stranger):
    """Owns logind's name and grants inhibitors, unless it `refuses`."""

    def __init__(self, address: str, *, refuses: bool = False) -> None:
        super().__init__(address)
        self.inhibitors: list[Inhibitor] = []
        self.refused = 0
        self._refuses = refuses
        self._answering: set[asyncio.Task[None]] = set()
        self._bus.add_message_handler(self._asked)
        self._bus_call("RequestName", "su", LOGIND, 0)

    @property
    def held(self) -> int:
        """How many inhibitors delay sleep at this instant."""
        return sum(inhibitor.held for inhibitor in self.inhibitors)

    def close(self) -> None:
        """Leave the bus and close the pipes."""
        super().close()
        for inhibitor in self.inhibitors:
            os.close(inhibitor.reading)
        self.inhibitors.clear()

    def _asked(self, message: Message) -> bool:
        ours = message.interface == MANAGER and message.member == "Inhibit"
        if ours:
            task = self._loop.create_task(self._answer(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        return ours

    async def _answer(self, message: Message) -> None:
        if self._refuses:
            await self._bus.send(Message.new_error(message, "org.freedesktop.DBus.Error.AccessDenied", "not you"))
            self.refused += 1
            return
        reading, writing = os.pipe()
        try:
            await self._bus.send(Message.new_method_return(message, "h", [0], [writing]))
        finally:
            os.close(writing)
        self.inhibitors.append(Inhibitor(tuple(message.body), message.sender or "", reading))
