"""Windows: the notices of suspend and resume for a program without a window.

Sources, by their titles at learn.microsoft.com: "PowerRegisterSuspendResumeNotification function (powerbase.h)",
"DEVICE_NOTIFY_SUBSCRIBE_PARAMETERS structure (powrprof.h)", "DEVICE_NOTIFY_CALLBACK_ROUTINE callback function
(powrprof.h)", "WM_POWERBROADCAST message", "PBT_APMRESUMEAUTOMATIC event", "PBT_APMRESUMESUSPEND event".
"""

from __future__ import annotations

import ctypes
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

_log = logging.getLogger(__name__)

_DEVICE_NOTIFY_CALLBACK: Final = 2
_SUSPEND: Final = 0x4  # PBT_APMSUSPEND
_RESUMES: Final = (0x7, 0x12)  # PBT_APMRESUMESUSPEND if a user is present; PBT_APMRESUMEAUTOMATIC always
_PATIENCE_SECONDS: Final = 2.0
"""Windows waits this long for a program before it suspends."""


class _Subscription(ctypes.Structure):
    """`DEVICE_NOTIFY_SUBSCRIBE_PARAMETERS`."""

    _fields_ = [("Callback", ctypes.c_void_p), ("Context", ctypes.c_void_p)]


class PowerEvents:
    """The notices of Windows, taken on a thread of the system and acted on by the thread in `follow`.

    `load` returns powrprof and the type of a `DEVICE_NOTIFY_CALLBACK_ROUTINE`; `patience` is in seconds.
    """

    def __init__(self, load: Callable[[], tuple[Any, Any]] | None = None, patience: float = _PATIENCE_SECONDS) -> None:
        self._load = load or _powrprof
        self._patience = patience
        self._notices: queue.SimpleQueue[tuple[int, threading.Event] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._woken_by: int | None = None

    def stop(self) -> None:
        """Make `follow` end; from any thread."""
        self._stopping.set()
        self._notices.put(None)

    def follow(self, on_sleep: Callable[[], None], on_wake: Callable[[], None]) -> None:
        """Call `on_sleep` while Windows waits for it, and `on_wake` once per resume, until `stop`."""
        try:
            powrprof, routine = self._load()
            # Windows keeps only the address: this name keeps the callback alive until it is unregistered.
            callback = routine(self._notice)
            subscription = _Subscription(ctypes.cast(callback, ctypes.c_void_p), None)
            handle = ctypes.c_void_p()
            code = powrprof.PowerRegisterSuspendResumeNotification(
                _DEVICE_NOTIFY_CALLBACK, ctypes.byref(subscription), ctypes.byref(handle)
            )
        except (OSError, AttributeError) as error:
            _log.info("Windows does not tell of the machine's sleep: %s", error)
            return
        if code:
            _log.info("Windows does not tell of the machine's sleep: error %d", code)
            return
        try:
            while (notice := self._notices.get()) is not None:
                kind, done = notice
                self._act(kind, on_sleep, on_wake)
                done.set()
        finally:
            self._stopping.set()
            powrprof.PowerUnregisterSuspendResumeNotification(handle)

    def _notice(self, context: int | None, kind: int, setting: int | None) -> int:
        """Pass one notice on, on a thread of the system; the machine sleeps once this has returned."""
        if not self._stopping.is_set():
            done = threading.Event()
            self._notices.put((kind, done))
            if kind == _SUSPEND:
                done.wait(self._patience)
        return 0

    def _act(self, kind: int, on_sleep: Callable[[], None], on_wake: Callable[[], None]) -> None:
        if kind == _SUSPEND:
            self._woken_by = None
            on_sleep()
        # One resume may bring a notice of each kind; a second one of a kind is about another resume, without a suspend.
        elif kind in _RESUMES and self._woken_by in (None, kind):
            self._woken_by = kind
            on_wake()


def _powrprof() -> tuple[Any, Any]:
    windll: Any = getattr(ctypes, "WinDLL")  # noqa: B009 - exists on Windows only, where mypy's Linux view ends
    functype: Any = getattr(ctypes, "WINFUNCTYPE")  # noqa: B009 - as above
    powrprof = windll("powrprof")
    pointer, dword = ctypes.c_void_p, ctypes.c_uint32
    powrprof.PowerRegisterSuspendResumeNotification.argtypes = [dword, pointer, pointer]
    powrprof.PowerRegisterSuspendResumeNotification.restype = dword
    powrprof.PowerUnregisterSuspendResumeNotification.argtypes = [pointer]
    powrprof.PowerUnregisterSuspendResumeNotification.restype = dword
    return powrprof, functype(dword, pointer, dword, pointer)
