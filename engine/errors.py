"""Every error that Pilotlight raises on purpose.

PilotlightError
    SettingsError        the settings file or a change to it is wrong
        SettingsForbidden    the setting may be changed by hand only
    InvalidInput         what a caller passed cannot be encoded
        InputTooLarge        more than one request may carry
    UnknownEncoder       no encoder has this name or alias
    EncoderError
        LoadFailed       a load was tried and failed; it may be tried again later
            FilesChanged     a file changed while it was read
            NoRoom           its device has no room for it now, and no encoder may step down for it
        Unavailable      trying cannot help until something is installed or put in place
        MoveFailed       weights could not be moved between rungs
            CannotRest       they would not survive in RAM, so they are dropped instead
        OutOfMemory          a device has no memory left; what was asked of it did not happen
        DeviceLost           a device no longer computes; weights on it have to be read again
        NotFinite            a model gave NaN or infinity, which is no answer
    QueueFull            too many requests wait for this encoder
    Closed               the engine, or this encoder, is shutting down

Each carries a `title` (a few words), a `message` (what happened) and a `next_step` (what to do), so that the
tray, the log and every HTTP dialect can show it without knowing its class.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Final


class PilotlightError(Exception):
    """Base of all errors below; `str()` gives the message and the next step."""

    title = "Something went wrong"

    def __init__(self, message: str, *, next_step: str | None = None, title: str | None = None) -> None:
        self.message = printable(message)
        self.next_step = next_step and printable(next_step)
        super().__init__(self.message)
        if title is not None:
            self.title = title

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}" if self.next_step else self.message


def printable(text: str) -> str:
    """Return `text` with lone surrogates spelled out: file names that are no UTF-8 have them, JSON and logs cannot."""
    return text.encode(errors="backslashreplace").decode()


def first_line(error: BaseException) -> str:
    """Return what a foreign error says first; its class, where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def clear_frames(error: BaseException) -> None:
    """Empty the frames that an error, and those that led to it, came through; what still runs keeps what it holds.

    They would keep half a model in memory, or tensors on a device, as long as the error is around.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            pending += [one.__cause__, one.__context__]


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong setting: its path (`("hardware", "port")`) and the mistake, with the valid choices."""

    path: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}: {self.text}" if self.path else self.text


class SettingsError(PilotlightError):
    """Settings are unknown, of the wrong type, or out of range; the running settings stay."""

    title = "Settings not accepted"

    def __init__(self, message: str, *, next_step: str | None = None, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message, next_step=next_step)
        self.problems = problems


class SettingsForbidden(SettingsError):
    """A setting that exists but may only be changed by hand in the settings file."""

    title = "Setting not changeable here"


class InvalidInput(PilotlightError):
    """The input of one request cannot be used; `param` names the field where the caller can mend it."""

    title = "Input not accepted"

    def __init__(self, message: str, *, param: str | None = None, next_step: str | None = None) -> None:
        super().__init__(message, next_step=next_step)
        self.param = param


class InputTooLarge(InvalidInput):
    """More input than one request may carry; the message names the limit."""

    title = "Input too large"


class UnknownEncoder(PilotlightError):
    """No configured encoder has this name or alias."""

    title = "No such encoder"


class EncoderError(PilotlightError):
    """An encoder could not do what was asked."""

    title = "Encoder failed"


class LoadFailed(EncoderError):
    """A load failed; `retry_in_seconds` says when the next use will try again."""

    title = "Load failed"

    def __init__(
        self,
        message: str,
        *,
        next_step: str | None = None,
        title: str | None = None,
        retry_in_seconds: float | None = None,
    ) -> None:
        super().__init__(message, next_step=next_step, title=title)
        self.retry_in_seconds = retry_in_seconds


class FilesChanged(LoadFailed):
    """A weights file changed while it was read; the next try may well find it whole."""


class NoRoom(LoadFailed):
    """The weights, or what a request computes, do not fit on the device now; the next use tries again at once."""

    title = "No room on the device"


class Unavailable(EncoderError):
    """A package or file is missing; no retry can help until it is there."""

    title = "Not available"


class MoveFailed(EncoderError):
    """Weights could not be moved between two rungs; the encoder was unloaded instead."""

    title = "Move failed"


class CannotRest(MoveFailed):
    """The weights would not survive a stay in RAM; the encoder is unloaded instead, which is no failure."""

    title = "Unloaded"


class OutOfMemory(EncoderError):
    """A device ran out of memory during a move or a batch; what was asked of it was rolled back whole."""

    title = "Out of device memory"


class DeviceLost(EncoderError):
    """A device stopped computing, as after a driver's reset; no weights on it can be used any more."""

    title = "Device lost"


class NotFinite(EncoderError):
    """A model gave NaN or infinity for an input, so its whole request has no answer."""

    title = "Result not finite"

    def __init__(
        self, message: str, *, next_step: str | None = None, title: str | None = None, encoder: str | None = None
    ) -> None:
        super().__init__(message, next_step=next_step, title=title)
        self.encoder = encoder
        """The encoder that the message names; None as long as it says `UNNAMED`."""

    def name_encoder(self, name: str) -> None:
        """Name the encoder in the message; the first name stays, which is that of the encoder that computed."""
        if self.encoder is None:
            self.encoder, self.message = name, self.message.replace(UNNAMED, name, 1)


UNNAMED: Final = "The model"
"""The encoder in an error that is raised where its name is not known, because several encoders share the weights."""


class QueueFull(PilotlightError):
    """More requests wait for one encoder than it accepts; try again in `retry_in_seconds`."""

    title = "Too many requests"

    def __init__(self, message: str, *, retry_in_seconds: float = 1.0) -> None:
        super().__init__(message, next_step="Send fewer requests at once, or try again in a moment.")
        self.retry_in_seconds = retry_in_seconds


class Closed(PilotlightError):
    """The engine or the encoder is closing and takes no new work."""

    title = "Closing"
