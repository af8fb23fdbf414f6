"""The options of an encoder that have no effect on it, and the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from engine.devices.placement import CPU
from engine.settings.budget import Budget
from engine.settings.config import EncoderConfig, Hardware
from engine.settings.effective import Effective

_DEFAULTS: Final = Hardware()

_HELD: Final = {
    "tag": "spaCy computes on the CPU, in its own way",
    "axes": "axes are a small matrix; their base has the weights",
    "plugin": "a plug-in decides that itself",
}
"""Kinds without torch weights of ours, and the reason why options of such weights change nothing for them."""
_OF_WEIGHTS: Final = ("device", "dtype", "home", "stream_layers")
_OF_SHARED_WEIGHTS: Final = ("home", "stream_layers")


def ignored_options(
    encoder: EncoderConfig,
    hardware: Hardware,
    *,
    device: str | None,
    streamable: bool | None,
    leader: EncoderConfig | None = None,
) -> tuple[str, ...]:
    """Return a text `OPTION: WHY` for each option that differs from its default and changes nothing.

    `device` is the one that was chosen for the encoder (torch's name), even if lack of room sent it to another since;
    `streamable` whether its model can run block by block. None means that this is not known before a load; then only
    reasons that need no load are given. `leader` is the encoder whose weights serve this one too.
    """
    effective = Effective.of(encoder, hardware)
    if encoder.kind in _HELD:
        return _spelled(_held(encoder, hardware, effective))
    if effective.device == CPU:
        device = CPU
    why = {
        "eager_load": _eager_load(encoder, effective),
        "max_vram": _max_vram(hardware, effective, streamable) if device == CPU else None,
        "stream_layers": _stream_layers(hardware, effective, device, streamable),
        **(_for_gpus(hardware) if device == CPU else {}),
        "home": _home(encoder, device),
        "idle_timeout_seconds": _idle_timeout(encoder, hardware, effective),
        "unload_timeout_seconds": _unload_timeout(encoder, hardware, effective, device),
        **(_of_the_leader(encoder, leader) if leader is not None else {}),
    }
    return _spelled(why)


def _spelled(why: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(f"{option}: {text}" for option, text in why.items() if text)


def _held(encoder: EncoderConfig, hardware: Hardware, effective: Effective) -> dict[str, str | None]:
    default = EncoderConfig("", "", "", stream_layers=False)
    in_force = replace(encoder, stream_layers=effective.stream_layers)
    said = [option for option in _OF_WEIGHTS if getattr(in_force, option) != getattr(default, option)]
    why: dict[str, str | None] = {
        option: _HELD[encoder.kind] for option in said if (option, encoder.device) != ("device", CPU)
    }
    if encoder.kind == "axes" and effective.eager_load:
        why["eager_load"] = "reading the anchors would bring their base all the way up"
    if encoder.max_tokens is not None:
        why["max_tokens"] = "it reads no tokens of a model of ours"
    if encoder.trust_remote_code:
        why["trust_remote_code"] = "no code comes with it"
    why["idle_timeout_seconds"] = _idle_timeout(encoder, hardware, effective)
    if encoder.unload_timeout_seconds is not None:
        why["unload_timeout_seconds"] = "it has no rest in RAM: it is unloaded when its idle timeout has passed"
    return why


def _of_the_leader(encoder: EncoderConfig, leader: EncoderConfig) -> dict[str, str]:
    differs = (option for option in _OF_SHARED_WEIGHTS if getattr(encoder, option) != getattr(leader, option))
    return {option: f"it shares the weights of {leader.name}, whose {option} counts" for option in differs}


def _eager_load(encoder: EncoderConfig, effective: Effective) -> str | None:
    if not effective.eager_load:
        return None
    if not effective.lazy_encoders:
        return "lazy_encoders is false, which brings the weights all the way to the device at start"
    return "its home is the disk, so nothing of it waits in RAM" if encoder.home == "disk" else None


def _max_vram(hardware: Hardware, effective: Effective, streamable: bool | None) -> str | None:
    """The reason for an encoder that computes on the CPU."""
    budget = Budget.parse(hardware.max_vram)
    if budget == Budget():
        return None
    if budget.allowance(CPU, 0, 0) is None:
        return 'it computes on the CPU, where only "cpu=N" limits anything'
    if effective.stream_layers and streamable is not False:
        return None
    return "on the CPU it bounds streaming only, and this encoder is not streamed"


def _stream_layers(hardware: Hardware, effective: Effective, device: str | None, streamable: bool | None) -> str | None:
    if not effective.stream_layers:
        return None
    if streamable is False:
        return "this model cannot be run block by block"
    if device not in (None, CPU) and hardware.on_no_room != "stream":
        return f'on_no_room is "{hardware.on_no_room}", so nothing is streamed on a GPU'
    return None


def _for_gpus(hardware: Hardware) -> dict[str, str]:
    """Options without effect on an encoder that computes on the CPU, where they differ from 0 and the default."""
    why = {
        "on_no_room": "a CPU is never without room",
        "keep_free_vram": "it computes on the CPU and holds no VRAM",
        "minimum_residency_seconds": "it computes on the CPU, where nobody has to make room",
    }
    return {option: text for option, text in why.items() if getattr(hardware, option) not in (0, _default(option))}


def _home(encoder: EncoderConfig, device: str | None) -> str | None:
    if encoder.home == "disk" and encoder.pin:
        return "it is pinned and never steps down"
    if encoder.home == "pinned" and device == CPU:
        return "it computes on the CPU, where weights always wait in their file"
    return None


def _idle_timeout(encoder: EncoderConfig, hardware: Hardware, effective: Effective) -> str | None:
    if encoder.pin and _asks("idle_timeout_seconds", encoder, hardware, effective):
        return "it is pinned and never steps down"
    return None


def _unload_timeout(encoder: EncoderConfig, hardware: Hardware, effective: Effective, device: str | None) -> str | None:
    if not _asks("unload_timeout_seconds", encoder, hardware, effective):
        return None
    if encoder.pin:
        return "it is pinned and never steps down"
    if encoder.home == "disk":
        return 'home is "disk", so nothing of it waits in RAM'
    # On a GPU it may still step down to make room for another, and then this timeout counts.
    if device == CPU and effective.timeouts.idle_timeout_seconds == 0:
        return "it counts from stepping down, which never comes with idle_timeout_seconds = 0"
    return None


def _asks(timeout: str, encoder: EncoderConfig, hardware: Hardware, effective: Effective) -> bool:
    """Whether a timeout was set, and to more than 0, which means never."""
    said = getattr(encoder, timeout) is not None or getattr(hardware, timeout) != _default(timeout)
    return bool(said and getattr(effective.timeouts, timeout) > 0)


def _default(option: str) -> Any:
    return getattr(_DEFAULTS, option)
