"""The HTTP status of each error, the same in every dialect."""

from __future__ import annotations

from engine.errors import (
    Closed,
    InputTooLarge,
    InvalidInput,
    LoadFailed,
    PilotlightError,
    QueueFull,
    SettingsError,
    SettingsForbidden,
    Unavailable,
    UnknownEncoder,
)


def status_of(error: PilotlightError) -> tuple[int, float | None]:
    """Return the HTTP status for an error and the seconds for Retry-After, None if waiting does not help."""
    match error:
        case InputTooLarge():
            return 422, None
        case SettingsForbidden():
            return 403, None
        case SettingsError():
            return 422, None
        case InvalidInput():
            return 400, None
        case UnknownEncoder():
            return 404, None
        case QueueFull(retry_in_seconds=seconds):
            return 429, seconds
        case LoadFailed(retry_in_seconds=seconds):
            return 503, seconds or 1.0
        case Unavailable():
            return 503, None
        case Closed():
            return 503, 1.0
        case _:
            return 500, None
