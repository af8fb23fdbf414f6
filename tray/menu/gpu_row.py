"""One GPU in the menu: a summary of its memory, and a submenu of a fixed number of rows."""

from __future__ import annotations

from typing import Final

from engine import DeviceReading
from engine.units import GIB
from tray import words
from tray.menu.item import Item, note

SUMMARY_ROOM: Final = len(" 123.4 / 123.4 GiB · ours 123 MiB")
"""Characters that a GPU's ordinary figures need after its name."""

DETAIL_ROOM: Final = len("Context, until Pilotlight ends: 123 MiB")
"""Characters that the submenu's ordinary rows need."""


def gpu_row(name: str, device: DeviceReading | None) -> Item:
    """Return the GPU's row with its submenu; `device` is None if its driver no longer answers."""
    return Item(f"{name} {_summary(device)}", children=_details(device), room=len(name) + SUMMARY_ROOM)


def _summary(device: DeviceReading | None) -> str:
    if device is None:
        return words.UNKNOWN
    parts = ["is the system's memory" if device.shares_ram else _used(device)]
    if device.allocated_vram:
        parts.append(f"ours {words.size(device.allocated_vram)}")
    return " · ".join(parts)


def _used(device: DeviceReading) -> str:
    if device.vram_used is None or device.vram_total is None:
        return words.UNKNOWN
    return f"{device.vram_used / GIB:.1f} / {device.vram_total / GIB:.1f} GiB"


def _details(device: DeviceReading | None) -> tuple[Item, ...]:
    ours = context = others = free = total = None
    if device is not None:
        ours, context, others = device.allocated_vram, device.context_bytes, device.others_vram
        free, total = device.vram_free, device.vram_total
    left = words.UNKNOWN if free is None else words.share(free, total, " of ")
    return (
        note(words.clipped(device.name) if device is not None else "No answer"),
        note(f"Ours: {words.known_size(ours)}", room=DETAIL_ROOM),
        note(f"Context, until Pilotlight ends: {words.known_size(context)}"),
        note(f"Other programs and the driver: {words.known_size(others)}"),
        note(f"Free: {left}"),
        note(_trouble(device)),
    )


def _trouble(device: DeviceReading | None) -> str:
    """Return which figures are missing, and why."""
    if device is None:
        return "Its driver does not answer now"
    if device.shares_ram:
        return "The GPU shares the system's memory"
    if device.vram_total is None or device.vram_free is None:
        return "Its driver does not say what is free"
    if device.process_vram is None:
        return "Its driver does not say who uses what"
    return "As its driver says"
