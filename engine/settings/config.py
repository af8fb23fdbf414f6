"""Settings as one frozen value: defaults with unit and meaning; `engine/parsing.py` is the way to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from engine.kinds import PARTS

BUILTIN: Final = "builtin:all-MiniLM-L6-v2"
"""The encoder that ships with Pilotlight: all-MiniLM-L6-v2, 384 dimensions, English."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """`[hardware]`: where encoders compute and when they step down."""

    lazy_encoders: bool = True
    """Load each encoder on its first use; false brings every encoder to its device at start."""
    eager_load: bool = False
    """Read the weights into RAM at start and go up at the first use."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N | mps."""
    max_vram: str = "0"
    """GiB that all encoders together may hold on each GPU, or a list by device; as `Budget.parse` takes it."""
    stream_layers: bool = False
    """Run encoders that are larger than their budget block by block; on a CPU give each block back after it ran."""
    on_no_room: str = "stream"
    """What follows when an encoder does not fit: stream (where that is on and possible, else cpu) | cpu | error."""
    keep_free_vram: float = 512.0
    """MiB of each GPU that stay free for other programs: idle encoders step down for them; 0 = off."""
    minimum_residency_seconds: float = 5.0
    """Seconds after coming up in which an encoder steps down neither for other programs nor for a budget."""
    idle_timeout_seconds: float = 30.0
    """Seconds without use after which an encoder leaves its device; 0 = never."""
    unload_timeout_seconds: float = 900.0
    """Seconds in RAM after which an encoder is dropped; 0 = never."""
    max_keep_alive_seconds: float = 0.0
    """The longest that a request's keep_alive may hold an encoder on its device; 0 = as long as it asks for."""


@dataclass(frozen=True, slots=True)
class Server:
    """`[server]`: where the HTTP endpoint listens."""

    host: str = "127.0.0.1"
    """Address to listen on; 127.0.0.1 serves this computer alone."""
    port: int = 7458
    """TCP port; 0 takes any free one, a busy one gives way to the next free of ten."""


@dataclass(frozen=True, slots=True)
class Hub:
    """`[hub]`: the model hub that models named by hub id come from."""

    offline: bool = False
    """Never ask it anything; what its cache on this computer holds must do."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of meaning, of an encoder of kind axes: where `anchor`, a sentence, points."""

    name: str
    anchor: str


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """`[encoders.NAME]`: one encoder; what is None here comes from the key of that name in `[hardware]`."""

    name: str
    kind: str
    model: str
    """`builtin:...`, a local folder, or a hub id, which a revision may follow (`org/name@revision`); what else a kind
    understands stands in `references.py`."""
    aliases: tuple[str, ...] = ()
    """Other names that requests may use."""
    default: bool = False
    """Serve requests that name no model."""
    lazy_encoders: bool | None = None
    eager_load: bool | None = None
    device: str | None = None
    stream_layers: bool | None = None
    home: str = "mapped"
    """Where weights wait while they are off a GPU: mapped (their file) | pinned (a copy of ours) | disk (nowhere)."""
    dtype: str = "auto"
    """auto (the file's own on a GPU, float32 on a CPU) | float32 | float16 | bfloat16."""
    idle_timeout_seconds: float | None = None
    unload_timeout_seconds: float | None = None
    pin: bool = False
    """Never step down by itself; only before the computer sleeps, or when its files changed."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model; on for no encoder but one that says so itself."""
    base: str | None = None
    """axes: the encoder whose vectors are projected."""
    axes: tuple[Axis, ...] = ()
    """axes: the directions; none = those that ship with Pilotlight."""
    score_floor: float | None = None
    """image_text: the cosine below which an image and a text have nothing to do with each other; None = the model's."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """plugin: handed to it as they are."""
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    """Kinds with parts: part -> what its own table says over the encoder's, by the names of the fields here."""
    part: str | None = None
    """Which part of an encoder this is; None for a whole one."""

    @property
    def components(self) -> tuple[EncoderConfig, ...]:
        """The settings of each part, where the kind has parts; else these alone."""
        parts = PARTS.get(self.kind)
        return (self,) if parts is None or self.part else tuple(self._part(part) for part in parts)

    def _part(self, part: str) -> EncoderConfig:
        aliases = tuple(f"{alias}.{part}" for alias in self.aliases)
        own = self.parts.get(part, {})
        return replace(self, name=f"{self.name}.{part}", aliases=aliases, part=part, parts={}, **own)


DEFAULT_ENCODER: Final = EncoderConfig(
    name="minilm", kind="dense", model=BUILTIN, aliases=("all-minilm", "all-MiniLM-L6-v2")
)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings; build a new one and swap it, never change one."""

    hardware: Hardware = Hardware()
    server: Server = Server()
    hub: Hub = Hub()
    encoders: tuple[EncoderConfig, ...] = (DEFAULT_ENCODER,)

    def as_mapping(self) -> dict[str, Any]:
        """Return plain data of the same shape as the settings file."""
        encoders = {encoder.name: _plain_encoder(encoder) for encoder in self.encoders}
        sections = {"hardware": self.hardware, "server": self.server, "hub": self.hub}
        return {**{name: _plain(section) for name, section in sections.items()}, "encoders": encoders}


def _plain_encoder(encoder: EncoderConfig) -> dict[str, Any]:
    """An encoder's table as the settings file spells it: without what is of other kinds."""
    values = _plain(encoder)
    del values["name"], values["parts"]
    if encoder.kind == "axes":
        del values["model"]
    if encoder.kind != "plugin":
        del values["options"]
    values["axes"] = [_plain(axis) for axis in encoder.axes]
    if not encoder.axes:
        del values["axes"]
    return values | {part: dict(own) for part, own in encoder.parts.items()}


def _plain(value: Any) -> dict[str, Any]:
    """The fields of a frozen settings value, tuples as lists, without those that are None."""
    pairs = ((field.name, getattr(value, field.name)) for field in fields(value))
    return {key: list(v) if isinstance(v, tuple) else v for key, v in pairs if v is not None}
