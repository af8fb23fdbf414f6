"""Linux: logind's signals on the system bus, and an inhibitor that delays sleep until the work before it is done.

Sources: org.freedesktop.login1(5), "Inhibitor Locks" at systemd.io, "D-Bus Specification" at dbus.freedesktop.org.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

_log = logging.getLogger(__name__)

_LOGIND: Final = "org.freedesktop.login1"
_PATH: Final = "/org/freedesktop/login1"
_MANAGER: Final = "org.freedesktop.login1.Manager"
_BUS: Final = "org.freedesktop.DBus"
_LOCK: Final = ("sleep", "Pilotlight", "Weights leave the GPU", "delay")
"""The arguments of Inhibit: operation, program, reason and mode."""

_ANSWER_SECONDS: Final = 5.0
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0


class PowerEvents:
    """The events of logind, through a new connection whenever the bus went away.

    DBUS_SYSTEM_BUS_ADDRESS names another bus. Without a bus it tries again, after pauses that grow to a minute.
    """

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._asleep = False

    def stop(self) -> None:
        """Make `follow` end and release the inhibitor; from any thread."""
        with self._lock:
            self._stopping.set()
            if self._socket is not None:
                # This wakes the thread that reads from it, which then closes it.
                _shut(self._socket)

    def follow(self, on_sleep: Callable[[], None], on_wake: Callable[[], None]) -> None:
        """Call `on_sleep` while the machine waits for it, and `on_wake` once it is awake, until `stop`."""
        from jeepney import DBusErrorResponse

        def slept() -> None:
            self._asleep = True
            on_sleep()

        def woke() -> None:
            self._asleep = False
            on_wake()

        pause, level = _FIRST_PAUSE_SECONDS, logging.INFO
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._connect(slept, woke)
            except (OSError, RuntimeError, ValueError, DBusErrorResponse) as error:
                if not self._stopping.is_set():
                    _log.log(level, "no system bus tells of the machine's sleep: %s", error)
            if time.monotonic() - began > _LONGEST_PAUSE_SECONDS:
                pause, level = _FIRST_PAUSE_SECONDS, logging.INFO
            else:
                level = logging.DEBUG
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _connect(self, on_sleep: Callable[[], None], on_wake: Callable[[], None]) -> None:
        """Follow logind through one connection until that ends, which raises OSError."""
        from jeepney.io.blocking import open_dbus_connection

        with open_dbus_connection(bus="SYSTEM", enable_fds=True) as connection:
            with self._lock:
                if self._stopping.is_set():
                    return
                self._socket = connection.sock
            logind = _Logind(connection, on_sleep, on_wake)
            try:
                logind.find()
                if self._asleep:
                    on_wake()  # the bus went away meanwhile, and took the signal with it
                logind.follow()
            finally:
                with self._lock:
                    self._socket = None
                logind.release()


class _Logind:
    """Logind on one connection: its present owner on the bus, and the inhibitor that it granted."""

    def __init__(self, connection: Any, on_sleep: Callable[[], None], on_wake: Callable[[], None]) -> None:
        self._connection = connection
        self._on_sleep = on_sleep
        self._on_wake = on_wake
        self._signals: deque[Any] = deque()
        self._owner = ""
        self._inhibitor: Any = None

    def find(self) -> None:
        """Subscribe to its signals, then take the inhibitor if logind runs; raises OSError, DBusErrorResponse."""
        from jeepney import DBusErrorResponse, MatchRule, message_bus
        from jeepney.io.blocking import Proxy

        bus = Proxy(message_bus, self._connection, timeout=_ANSWER_SECONDS)
        owners = MatchRule(type="signal", sender=_BUS, interface=_BUS, member="NameOwnerChanged")
        owners.add_arg_condition(0, _LOGIND)
        sleeps = {"type": "signal", "interface": _MANAGER, "member": "PrepareForSleep", "path": _PATH}
        # A signal carries its sender's unique name, so `_act` compares that.
        for subscribed, kept in ((owners, owners), (MatchRule(sender=_LOGIND, **sleeps), MatchRule(**sleeps))):
            self._connection.filter(kept, queue=self._signals)
            bus.AddMatch(subscribed)
        try:
            (self._owner,) = bus.GetNameOwner(_LOGIND)
        except DBusErrorResponse:
            _log.info("no logind tells of the machine's sleep")
            return
        self._inhibit()

    def follow(self) -> None:
        """Act on every signal; raises OSError at the end of the connection."""
        while True:
            self._act(self._connection.recv_until_filtered(self._signals))

    def release(self) -> None:
        """Let the machine sleep."""
        if self._inhibitor is not None:
            self._inhibitor.close()
            self._inhibitor = None

    def _act(self, signal: Any) -> None:
        from jeepney import HeaderFields

        fields = signal.header.fields
        if fields[HeaderFields.member] == "NameOwnerChanged":
            self.release()
            self._owner = signal.body[2]
            if self._owner:
                self._inhibit()
        # Any program may send a signal of this name straight to us.
        elif self._owner and fields.get(HeaderFields.sender) == self._owner:
            if signal.body[0]:
                try:
                    self._on_sleep()
                finally:
                    self.release()
            else:
                self._on_wake()
                self._inhibit()

    def _inhibit(self) -> None:
        """Take the inhibitor; without it sleep is still followed, but does not wait for us."""
        from jeepney import DBusAddress, DBusErrorResponse, new_method_call
        from jeepney.wrappers import unwrap_msg

        self.release()
        manager = DBusAddress(_PATH, bus_name=_LOGIND, interface=_MANAGER)
        call = new_method_call(manager, "Inhibit", "ssss", _LOCK)
        try:
            (self._inhibitor,) = unwrap_msg(self._connection.send_and_get_reply(call, timeout=_ANSWER_SECONDS))
        except DBusErrorResponse as error:
            _log.info("logind will not wait for us before the machine sleeps: %s", error)
            return
        # A program that we start must not inherit it.
        os.set_inheritable(self._inhibitor.fileno(), False)


def _shut(connected: socket.socket) -> None:
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other end closed it first
