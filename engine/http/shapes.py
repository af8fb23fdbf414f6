"""The shapes of status and control: components, outcomes, memory and settings as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from engine.devices.readings import Reading
from engine.errors import printable
from engine.settings.config import Config
from engine.settings.file import SettingsFile
from engine.state import EncoderView, Outcome


def components(views: Sequence[EncoderView], now: float, idle_threshold: float) -> dict[str, Any]:
    """Return every encoder as `/admin/components` spells it; `now` is on the engine's clock, times are seconds."""
    used = [view.last_used for view in views if view.last_used is not None]
    return {
        "components": [_component(view, now) for view in views],
        "count": len(views),
        "last_activity_s_ago": round(now - max(used), 3) if used else None,
        "idle_threshold_s": idle_threshold,
    }


def _component(view: EncoderView, now: float) -> dict[str, Any]:
    deadline = view.next_deadline(now)
    error = view.error
    return {
        "name": view.name,
        "encoder": view.name.removesuffix(f".{view.part}") if view.part else view.name,
        "part": view.part,
        "kind": view.kind,
        "model": printable(view.model),
        "aliases": view.aliases,
        "revision": view.revision,
        "state": view.state,
        "status": view.status,
        "loaded": view.awake,
        "device": view.device,
        "bytes_on_device": view.bytes_on_device,
        "bytes_in_ram": view.bytes_in_ram,
        "bytes_total": view.bytes_total,
        "shared_with": view.shared_with,
        "download": view.download and {"bytes_done": view.download.done, "bytes_total": view.download.total},
        "metadata": view.metadata,
        "last_used_by": view.last_used_by,
        "in_flight": view.in_flight,
        "queued": view.queued,
        "truncated_inputs": view.truncated_inputs,
        "truncated_tokens": view.truncated_tokens,
        "last_used_seconds_ago": None if view.last_used is None else round(now - view.last_used, 3),
        "steps_down_in_seconds": None if deadline is None else round(max(0.0, deadline - now), 3),
        "keep_alive_seconds": view.keep_alive_seconds,
        "pinned": view.pinned,
        "import_seconds": view.import_seconds,
        "load_seconds": view.load_seconds,
        "first_encode_seconds": view.first_encode_seconds,
        "reload_seconds": view.reload_seconds,
        "offload_seconds": view.offload_seconds,
        "stepped_down_because": view.stepped_down_because,
        "loads": view.loads,
        "error": error
        and {
            "title": error.title,
            "message": error.message,
            "next_step": error.next_step,
            "retry_in_seconds": None if error.retry_at is None else round(max(0.0, error.retry_at - now), 3),
        },
        "note": view.note and printable(view.note),
        "ignored_options": view.ignored_options,
    }


def outcome(outcome: Outcome) -> dict[str, Any]:
    """Return the result of a control verb on one encoder."""
    return {
        "name": outcome.name,
        "result": outcome.result,
        "state": outcome.state,
        "freed_bytes": outcome.freed_bytes,
        "seconds": round(outcome.seconds, 4),
        "reason": outcome.reason,
    }


def outcomes(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the results of a control verb on every encoder."""
    return {"results": [outcome(one) for one in outcomes]}


def memory(reading: Reading) -> dict[str, Any]:
    """Return a reading as `/admin/memory` and `/admin/events` spell it; bytes, null where unknown."""
    return {
        "process": {"rss": reading.rss, "private": reading.private, "swap": reading.swap},
        "system": {"ram_total": reading.ram_total, "ram_available": reading.ram_available},
        "devices": [asdict(device) for device in reading.devices],
    }


def settings(config: Config, file: SettingsFile | None) -> dict[str, Any]:
    """Return the settings in force, the path of their file, and the problem that keeps it out of force."""
    problem = file.problem if file else None
    return {
        **config.as_mapping(),
        "file": printable(str(file.path)) if file else None,
        "problem": str(problem) if problem else None,
    }
