"""An engine with two encoders over one folder, and readings of its weights files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from engine import Config, EncoderConfig, Engine, State

TEXTS = ["A pilot light is the small flame that stays lit.", "short", "two words"]


class Bench:
    """An engine with the encoder `small` over one folder, and `twin` over the same."""

    def __init__(self, folder: Path) -> None:
        # On a CPU both element types are float32; by their names alone the two share no copy of the weights.
        encoders = tuple(
            EncoderConfig(name, "dense", str(folder), device="cpu", dtype=dtype)
            for name, dtype in (("small", "auto"), ("twin", "float32"))
        )
        self.engine = Engine(Config(encoders=encoders))
        self.folder = folder

    def vectors(self, name: str = "small") -> np.ndarray:
        """What the encoder makes of TEXTS now."""
        return self.engine.call(name, lambda adapter: adapter.encode(TEXTS).vectors)

    def on(self, rung: State) -> None:
        """Use the encoder, then leave it on that rung."""
        self.vectors()
        if rung is State.IN_RAM:
            assert self.engine.offload("small").state is State.IN_RAM
        assert self.state is rung

    @property
    def state(self) -> State:
        """Where the encoder is."""
        return self.engine.view("small").state

    @property
    def loads(self) -> int:
        """How many times it was loaded."""
        return self.engine.view("small").loads


def expected(folder: Path) -> np.ndarray:
    """What sentence-transformers makes of TEXTS with the files as they are now, computing in float32."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"})
    return model.float().encode(TEXTS, batch_size=32, show_progress_bar=False)


def copied(model: Path, folder: Path) -> Path:
    return Path(shutil.copytree(model, folder))


def weights(folder: Path) -> Path:
    """The first weights file of a model."""
    return next(file for pattern in ("*.safetensors", "*.bin") for file in sorted(folder.glob(pattern)))


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text(encoding="utf-8")


def replace_file(old: Path, new: Path) -> None:
    arriving = shutil.copyfile(new, old.with_suffix(".arriving"))
    arriving.replace(old)


def rewrite_file(old: Path, new: Path) -> None:
    old.write_bytes(new.read_bytes())
