"""Ways in which a model's folder is broken, and what a person is told of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from engine import Engine, LoadFailed, State, Unavailable


def without_config(folder: Path) -> None:
    for name in ("config.json", "modules.json"):
        (folder / name).unlink(missing_ok=True)


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def with_a_torn_header(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(8)
        file.write(b"not JSON")


def with_a_missing_shard(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    whole = folder / "model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    index = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(names)}
    for shard in set(index.values()):
        save_file({name: tensors[name] for name in names if index[name] == shard}, folder / shard, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "model-00002-of-00002.safetensors").unlink()
    whole.unlink()


def with_other_shapes(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    shorter = {name: tensor[..., :-1].contiguous() for name, tensor in load_file(file).items()}
    save_file(shorter, file, {"format": "pt"})


WAYS: Final[dict[str, Callable[[Path], None]]] = {
    "no configuration": without_config,
    "no weights": without_weights,
    "a torn header": with_a_torn_header,
    "a missing shard": with_a_missing_shard,
    "weights of another shape": with_other_shapes,
}


def check(engine: Engine, name: str, use: Callable[[], object], mended: Path, folder: Path) -> None:
    """Use a broken encoder: it fails with a next step, holds nothing, and works once its folder is whole again."""
    with pytest.raises((LoadFailed, Unavailable)) as caught:
        use()
    view = engine.view(name)
    assert view.state is (State.FAILED if isinstance(caught.value, LoadFailed) else State.UNAVAILABLE)
    assert view.error is not None
    assert view.error.next_step
    assert caught.value.next_step
    assert name in view.error.message or str(folder) in view.error.message
    assert (view.bytes_on_device, view.bytes_in_ram) == (0, 0)
    shutil.rmtree(folder)
    shutil.copytree(mended, folder)
    use()
