"""The settings as one frozen value: defaults with unit and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from engine.kinds import PARTS

TAKE_IDS: Final = ("dense", "multi")
"""Kinds whose models read token ids in place of texts."""
OPENAI_IDS: Final = "openai"
"""Token ids of OpenAI's embedding models."""
OWN_IDS: Final = "own"
"""Token ids of a model's own tokenizer."""

BUILTIN: Final = "builtin:all-MiniLM-L6-v2"
"""The encoder that ships with Pilotlight: all-MiniLM-L6-v2, 384 dimensions, English."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """`[hardware]`: where encoders compute and when they step down."""

    lazy_encoders: bool = True
    """Whether encoders load on their first use; false brings every encoder to its device at start."""
    eager_load: bool = False
    """Whether weights are read into RAM at start, unless `home` is "disk"; the first use brings them to the device."""
    device: str = "auto"
    """The device that computes: "auto" (a GPU where one works, else the CPU), "cpu", "cuda", "cuda:N" or "mps"."""
    max_vram: str = "0"
    """GiB that all encoders together may hold on each GPU. "0" is no budget; "6" or "1.5" is a cap; "-1" is the free
    memory less 1, looked up at each use. Or a list, "cuda:0=6,cuda:1=-1", in which `cuda=` means every GPU not listed
    itself and `cpu=` the RAM for streaming on the CPU."""
    stream_layers: bool = False
    """Whether an encoder larger than its budget runs block by block; on the CPU each block goes back after it ran."""
    on_no_room: str = "stream"
    """The way out when an encoder does not fit although others made room. "stream" streams it where `stream_layers` is
    on and its model allows it, and else computes on the CPU; "cpu" computes there at once; "error" answers with a clear
    error."""
    keep_free_vram: float = 512.0
    """MiB of each GPU that stay free for other programs; when less is free, idle encoders step down. 0 = off."""
    minimum_residency_seconds: float = 5.0
    """Seconds after coming up in which an encoder steps down neither for other programs nor for a budget; 0 = none."""
    idle_timeout_seconds: float = 30.0
    """Seconds without use until an encoder leaves its device; 0 = never."""
    unload_timeout_seconds: float = 900.0
    """Seconds from stepping down until an encoder is dropped; 0 = never."""
    max_keep_alive_seconds: float = 0.0
    """Seconds that a request's `keep_alive` may hold an encoder on its device at most; 0 = as long as it asks for."""


@dataclass(frozen=True, slots=True)
class Server:
    """`[server]`: where the HTTP endpoint listens."""

    host: str = "127.0.0.1"
    """Address to listen on; "127.0.0.1" serves this computer alone. A change needs a restart."""
    port: int = 7458
    """TCP port; 0 takes any free one, a busy one gives way to the next free of ten. A change needs a restart."""


@dataclass(frozen=True, slots=True)
class Hub:
    """`[hub]`: the model hub that models named by hub id come from."""

    offline: bool = False
    """Whether no model hub is ever asked; then only models in its cache on this computer can be used."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of meaning for an encoder of kind axes: the direction of the sentence `anchor`."""

    name: str
    anchor: str


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """`[encoders.NAME]`: one encoder; None means the key of that name in `[hardware]`."""

    name: str
    kind: str
    """The kind of encoder: "dense", "sparse", "multi", "rerank", "classify", "image_text", "tag", "axes", "plugin"."""
    model: str
    """The model: "builtin:NAME", a folder, or a hub id, "org/name" or "org/name@revision". For "tag" a pipeline, for
    "plugin" an entry point; "axes" have none."""
    aliases: tuple[str, ...] = ()
    """Other names that requests may use."""
    default: bool = False
    """Whether it serves requests of its kind that name no model, rather than the first of its kind."""
    lazy_encoders: bool | None = None
    eager_load: bool | None = None
    device: str | None = None
    stream_layers: bool | None = None
    home: str = "mapped"
    """The place of weights that are off a GPU. "mapped" is their file, which the system caches; "pinned" is a copy in
    RAM that goes up faster; "disk" keeps nothing of it in RAM."""
    dtype: str = "auto"
    """The type of the weights: "auto" (the file's own on a GPU, float32 on a CPU), "float32", "float16", "bfloat16"."""
    idle_timeout_seconds: float | None = None
    unload_timeout_seconds: float | None = None
    pin: bool = False
    """Whether it never steps down, except before the computer sleeps, or when its files changed."""
    max_tokens: int | None = None
    """Tokens that it reads of one input at most, as far as its model can; without it those that the model names, or
    8192 where it names none."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the model runs; for this encoder alone."""
    base: str | None = None
    """The encoder whose vectors are projected."""
    axes: tuple[Axis, ...] = ()
    """The directions, `[[encoders.NAME.axes]]` tables of `name` and `anchor`; without any, 20 universal ones."""
    token_ids: str = OPENAI_IDS
    """The tokenizer of token ids in OpenAI's dialect: "openai" decodes them to text with tiktoken; "own" is the model's
    own."""
    score_floor: float | None = None
    """The cosine below which an image and a text have nothing to do with each other; without it the model's own."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The keyword arguments of the plug-in, passed on as they are."""
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    """Part -> the settings of its own table, which come before the encoder's; only for kinds with parts."""
    part: str | None = None
    """The part of an encoder that this is; None for a whole one."""

    @property
    def components(self) -> tuple[EncoderConfig, ...]:
        """The settings of each part, if the kind has parts; else these alone."""
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
    """Return an encoder's table as the settings file spells it, without the keys of other kinds."""
    values = _plain(encoder)
    del values["name"], values["parts"]
    if encoder.kind == "axes":
        del values["model"]
    if encoder.kind != "plugin":
        del values["options"]
    if encoder.kind not in TAKE_IDS:
        del values["token_ids"]
    values["axes"] = [_plain(axis) for axis in encoder.axes]
    if not encoder.axes:
        del values["axes"]
    return values | {part: dict(own) for part, own in encoder.parts.items()}


def _plain(value: Any) -> dict[str, Any]:
    """Return the fields of a frozen settings value, tuples as lists, without those that are None."""
    pairs = ((field.name, getattr(value, field.name)) for field in fields(value))
    return {key: list(v) if isinstance(v, tuple) else v for key, v in pairs if v is not None}
