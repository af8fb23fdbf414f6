"""One encoder in the menu: a summary line, and a submenu of a fixed number of rows."""

from __future__ import annotations

from typing import Final

from engine import EncoderView, State
from engine.state import RESTING
from tray import words
from tray.menu.item import SEPARATOR, Item, LoadEncoder, OffloadEncoder, PinEncoder, UnloadEncoder, note

SUMMARY_ROOM: Final = len(" · idle · 123 / 123 MiB · steps down in 14 min 30 s")
"""Characters that an encoder's ordinary states need after its name."""

DETAIL_ROOM: Final = 48
"""Characters that the submenu's ordinary rows need."""

LONGEST_MODEL: Final = 48
"""Characters of a model's reference that fit between its kind and its device."""

LONGEST_TROUBLE: Final = 140
"""Characters for the reason of a failure, a sentence, and for the next step."""

SHORTEST_REASON: Final = 40
"""Minimum characters of the reason shown when a long command takes the rest, as a cut command cannot be typed."""

LONGEST_STEP: Final = 240
"""Characters for the next step, which may be a command with a path in it."""

_LOADED: Final = frozenset({State.ON_DEVICE, State.STEPPING_DOWN, State.IN_RAM})
_BROKEN: Final = frozenset({State.FAILED, State.UNAVAILABLE})
_NAMED_IMPORT_SECONDS: Final = 0.1


def encoder_row(view: EncoderView, now: float) -> Item:
    """Return the encoder's row with its submenu; `now` is on the view's clock."""
    return Item(_summary(view, now), children=_details(view, now), room=len(_name(view)) + SUMMARY_ROOM)


def _name(view: EncoderView) -> str:
    return words.clipped(view.name, words.LONGEST_NAME)


def _summary(view: EncoderView, now: float) -> str:
    parts = [_name(view), view.status if view.download is None else words.download(view.download)]
    if view.error is not None and view.state in _BROKEN:
        parts.append(words.clipped(view.error.message))
    held = _held(view)
    if view.state in _LOADED or (held and view.state is State.LOADING and view.download is None):
        parts.append("unknown" if held is None else words.share(held, view.bytes_total))
    elif held:
        parts.append(f"{words.size(held)} still in RAM")
    deadline = view.next_deadline(now)
    if view.pinned:
        parts.append("pinned")
    elif view.state is State.ON_DEVICE and _held_by_an_app(view):
        parts.append("held by an app")
    elif deadline is not None and not view.in_flight:
        parts.append(f"{_verb(view)} in {words.countdown(deadline - now)}")
    return " · ".join(parts)


def _details(view: EncoderView, now: float) -> tuple[Item, ...]:
    return (
        note(f"{view.kind} · {words.tail(view.model, LONGEST_MODEL)} · {view.device or 'no device yet'}"),
        note(_resident(view)),
        note(_loaded(view)),
        note(_took("Back", view.reload_seconds)),
        note(_took("First use after coming up", view.first_encode_seconds)),
        note(_stepped_down(view)),
        note(_timer(view, now), room=DETAIL_ROOM),
        note(_trouble(view)),
        SEPARATOR,
        Item(
            "Load now",
            LoadEncoder(view.name),
            enabled=view.state in RESTING and view.state is not State.ON_DEVICE,
        ),
        Item("Step down to RAM", OffloadEncoder(view.name), enabled=view.state is State.ON_DEVICE),
        Item("Unload", UnloadEncoder(view.name), enabled=view.state in (State.ON_DEVICE, State.IN_RAM)),
        Item("Pinned", PinEncoder(view.name, not view.pinned), checked=view.pinned),
    )


def _resident(view: EncoderView) -> str:
    held = _held(view)
    if held is None:
        return "Resident: unknown on this system"
    shared = f", shared with {words.clipped(', '.join(view.shared_with))}" if view.shared_with else ""
    if not held and view.bytes_total is None:
        return f"Nothing resident{shared}"
    return f"{words.share(held, view.bytes_total, ' of ')} resident{shared}"


def _loaded(view: EncoderView) -> str:
    text = _took("Loaded", view.load_seconds)
    if view.import_seconds is not None and view.import_seconds >= _NAMED_IMPORT_SECONDS:
        text += f", its library in {words.duration(view.import_seconds)}"
    return text


def _took(what: str, seconds: float | None) -> str:
    return f"{what}: not yet" if seconds is None else f"{what} in {words.duration(seconds)}"


def _stepped_down(view: EncoderView) -> str:
    if view.stepped_down_because is None:
        return _took("Stepped down", view.offload_seconds)
    took = "" if view.offload_seconds is None else f" in {words.duration(view.offload_seconds)}"
    return f"Stepped down{took}: {words.clipped(view.stepped_down_because)}"


def _timer(view: EncoderView, now: float) -> str:
    """Return the encoder's next move by itself, or why there is none."""
    match view.state:
        case State.LOADING:
            return "On its way up" if view.download is None else "Its model is being downloaded"
        case State.STEPPING_DOWN:
            return "On its way down"
        case State.UNAVAILABLE:
            return "Cannot be loaded"
        case State.FAILED:
            wait = view.error.retry_at - now if view.error is not None and view.error.retry_at is not None else 0.0
            return f"May load again in {words.countdown(wait)}" if wait > 0 else "Loads at its next use"
        case State.UNLOADED:
            return "Loads at its next use"
        case State.IN_RAM:
            return _timer_in_ram(view, now)
        case State.ON_DEVICE:
            return _timer_on_device(view, now)


def _timer_in_ram(view: EncoderView, now: float) -> str:
    if view.pinned:
        return "Stays in RAM: pinned"
    if (deadline := view.next_deadline(now)) is not None:
        return f"Unloads in {words.countdown(deadline - now)}"
    return "Stays in RAM: the unload timeout is off" if not view.unload_timeout_seconds else "Waits for its first use"


def _timer_on_device(view: EncoderView, now: float) -> str:
    if view.pinned:
        return "Stays: pinned"
    if _held_by_an_app(view):
        return "Stays: held by an app's keep_alive"
    if view.in_flight:
        in_use = "In use" if view.in_flight == 1 else f"In use, {view.in_flight} times"
        return f"{in_use}; unloads when that ends" if view.keep_alive_seconds == 0 else in_use
    if (deadline := view.next_deadline(now)) is None:
        return "Stays: the idle timeout is off"
    asked = "" if not view.keep_alive_seconds else ", by an app's keep_alive"
    return f"{_verb(view).capitalize()} in {words.countdown(deadline - now)}{asked}"


def _trouble(view: EncoderView) -> str:
    if view.error is not None and view.state in _BROKEN:
        step = words.clipped(view.error.next_step or "", LONGEST_STEP)
        reason = words.clipped(view.error.message, max(SHORTEST_REASON, LONGEST_TROUBLE - bool(step) - len(step)))
        return f"{reason} {step}" if step else reason
    ignored = ", ".join(option.partition(":")[0] for option in view.ignored_options)
    parts = (view.note, _cut(view), f"Without effect: {ignored}" if ignored else None)
    return words.clipped(" · ".join(filter(None, parts)), LONGEST_TROUBLE) or "No problems"


def _cut(view: EncoderView) -> str | None:
    """Return how many inputs were longer than the model reads, None for none."""
    count = view.truncated_inputs
    return f"{count:,} {'input was' if count == 1 else 'inputs were'} too long and cut" if count else None


def _held(view: EncoderView) -> int | None:
    """Return the resident bytes, None if the system does not report them."""
    if view.bytes_on_device is None or view.bytes_in_ram is None:
        return None
    return view.bytes_on_device + view.bytes_in_ram


def _held_by_an_app(view: EncoderView) -> bool:
    return view.keep_alive_seconds is not None and view.keep_alive_seconds < 0


def _verb(view: EncoderView) -> str:
    return "unloads" if view.state is State.IN_RAM or view.keep_alive_seconds == 0 else "steps down"
