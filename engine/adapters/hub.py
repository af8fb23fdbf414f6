"""Models by hub id: fetched into the hub's own cache before anything is constructed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from engine.adapters.model_folder import module_folders
from engine.errors import LoadFailed, first_line

_OTHER_FORMATS: Final = (
    "onnx/*", "openvino/*", "coreml/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.tflite", "*.gguf", "*.tar.gz",
)  # fmt: skip
_PICKLED: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def be_quiet() -> None:
    """Tell the hub's library, before its import, to report nothing and to draw no progress bars."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def fetch(model: str) -> Path:
    """Return the folder of the hub's cache that holds `model`, downloading what is missing.

    Without a network, what the cache has must do. Pickled weights are fetched only where there are no safetensors.
    Raises LoadFailed.
    """
    be_quiet()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model, ignore_patterns=[*_OTHER_FORMATS, *_PICKLED]))
        wanted = _pickled_only(folder)
        if wanted:
            folder = Path(snapshot_download(model, allow_patterns=wanted, ignore_patterns=list(_OTHER_FORMATS)))
    except LocalEntryNotFoundError as error:
        raise LoadFailed(
            f"{model} is not on this computer, and the model hub cannot be reached.",
            title="Model not downloaded",
            next_step="Connect to the network and try again, or set `model` to a folder.",
        ) from error
    except Exception as error:
        raise LoadFailed(
            f"{model} could not be fetched from the model hub: {first_line(error)}",
            title="Model not downloaded",
            next_step="Check `model` in the settings, the network and the free disk space.",
        ) from error
    return folder


def _pickled_only(folder: Path) -> list[str]:
    """Patterns for the pickled weights of those modules that came without safetensors."""
    patterns = []
    for module in ("", *module_folders(folder)):
        if not any((folder / module).glob("*.safetensors")):
            patterns += [f"{module}/{pattern}" if module else pattern for pattern in _PICKLED]
    return patterns
