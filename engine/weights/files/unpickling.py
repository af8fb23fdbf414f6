"""The conversion of pickled state dicts to safetensors, once, in a child process.

The process has no other task than the files of one model, so the damage that a broken or hostile file does to its
memory ends with it. It uses only torch's restricted unpickler, which creates tensors and plain containers and calls
nothing else.
"""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from engine.errors import LoadFailed
from engine.weights.files import layout
from engine.weights.files.identity import Identity
from engine.weights.files.mapping import TORCH_NAMES
from engine.weights.files.store import Store

_FORMAT: Final = 1
"""The version of converted files, raised when they are written differently."""
_AT_ONCE: Final = 16 << 20  # bytes
_PATIENCE_SECONDS: Final = 120.0
_SLOWEST: Final = 5 << 20
"""Bytes per second that the slowest disk reads and writes."""
_CODE, _NO_WEIGHTS, _MEMORY, _DISK, _DIED, _OTHER = "code", "no weights", "memory", "disk", "died", "other"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DONE: Final = "done"
_MAIN: Final = threading.Lock()

_CONVERTED_REPOSITORIES: Final = {
    "ViT-B-32.pt": "openai/clip-vit-base-patch32",
    "ViT-B-16.pt": "openai/clip-vit-base-patch16",
    "ViT-L-14.pt": "openai/clip-vit-large-patch14",
    "ViT-L-14-336px.pt": "openai/clip-vit-large-patch14-336",
}
"""OpenAI's own archives of CLIP, which contain programs -> a repository with the same weights as plain tensors."""


class Unreadable(LoadFailed):
    """A pickled file that needs its own code, holds no weights or is damaged; its code is never run."""

    title = "Weights not read"


class Unpickler:
    """The child process that converts files one after another, from the first `convert` to `close`."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._ours: Any = None
        """Our end of the pipe to the process; its type differs on Windows."""

    def __enter__(self) -> Unpickler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def convert(self, source: Identity, store: Store) -> Path:
        """Return the safetensors file in `store` with the tensors of a pickled state dict, and count a use of it.

        Tensors that share memory are written once each. An earlier conversion of the same file is reused. Raises
        Unreadable, or LoadFailed if the file cannot be read or the result cannot be kept.
        """
        identity = json.dumps(["state dict", _FORMAT, source.key])
        key = hashlib.sha256(identity.encode()).hexdigest()
        try:
            return store.provide_written(key, source.size, lambda target: self._convert(source, target))
        except OSError as error:
            raise LoadFailed(
                f"{source.path.name} cannot be kept as safetensors: {(error.strerror or str(error)).rstrip('.')}.",
                title="Weights not converted",
                next_step="Make room on the disk, or put safetensors files into the model's folder.",
            ) from error

    def close(self) -> None:
        """Kill the process, which has no state worth saving; safe to call twice."""
        process, ours = self._process, self._ours
        self._process = self._ours = None
        if ours is not None:
            ours.close()
        if process is not None:
            process.kill()
            process.join()

    def _convert(self, source: Identity, target: Path) -> None:
        """Let the process write `target`; raises LoadFailed, or OSError if the disk is full."""
        how, detail = self._answer(source, target)
        if how in (_MEMORY, _DIED):
            self.close()
        if how == _DISK:
            raise OSError(errno.ENOSPC, detail)
        if how != _DONE:
            raise _failed(source.path, how, detail)

    def _answer(self, source: Identity, target: Path) -> tuple[str, str]:
        """Return the result of the process for one file, or its own end as one."""
        process, ours = self._started()
        patience = _PATIENCE_SECONDS + source.size / _SLOWEST
        try:
            ours.send((str(source.path), str(target)))
            if not ours.poll(patience):
                return _DIED, f"it took longer than {patience:.0f} seconds"
            how, detail = ours.recv()
        except (EOFError, ConnectionError):  # it ended without an answer
            process.join(5.0)
            return _DIED, _ended(process.exitcode)
        return how, detail

    def _started(self) -> tuple[BaseProcess, Any]:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs,), name="unpickling", daemon=True)
            with theirs, _without_main():
                process.start()
            self._process = process
        return self._process, self._ours


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep a new process from importing the program's main module, which may be a script that works at import."""
    with _MAIN:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the system ended the process that read it (signal {-code}), as it does when memory runs out"
    return f"the process that read it ended with status {code}"


def _failed(path: Path, how: str, detail: str) -> LoadFailed:
    elsewhere = _CONVERTED_REPOSITORIES.get(path.name)
    instead = f'Set `model` to "{elsewhere}".' if elsewhere else "Use a repository of the model with safetensors files."
    if how == _CODE:
        return Unreadable(f"{path} cannot be read without running code that it carries: {detail}.", next_step=instead)
    if how == _NO_WEIGHTS:
        return Unreadable(f"{path} is not a state dict: {detail}.", next_step=instead)
    if how in (_MEMORY, _DIED):
        return LoadFailed(
            f"There was not enough memory to read {path}." if how == _MEMORY else f"{path} was not read: {detail}.",
            next_step="Close other programs and try again, or use a model with safetensors files.",
        )
    return Unreadable(
        f"{path} cannot be read: {detail}.",
        next_step="Download or copy the file again, or use a model with safetensors files.",
    )


def work(orders: Any) -> None:
    """Write one file after another as `orders` says, and send the result of each; runs in the child process."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    # The parent may have ended.
    with suppress(EOFError, ConnectionError):
        while True:
            source, target = orders.recv()
            orders.send(convert_file(source, target))


def _end_with_parent() -> None:
    """End this process once its parent has ended for any reason, because the file is no longer needed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def convert_file(source: str, target: str) -> tuple[str, str]:
    """Write the tensors of `source` to `target`; return the result and a detail for the message."""
    try:
        _write(Path(target), _tensors(_load(source)))
    except _Refused as error:
        return error.how, str(error)
    except MemoryError:
        return _MEMORY, ""
    except OSError as error:
        return (_DISK if error.errno in _FULL else _OTHER), error.strerror or str(error)
    except Exception as error:  # noqa: BLE001 - the edge of the process: the other side raises
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return (_MEMORY if "can't allocate memory" in str(error) else _OTHER), lines[0].rstrip(".")
    return _DONE, ""


class _Refused(Exception):
    """The reason why a file is not converted."""

    def __init__(self, how: str, reason: str) -> None:
        super().__init__(reason)
        self.how = how


def _load(source: str) -> Any:
    import pickle

    import torch

    def load(**how: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about archives that are refused below
            return torch.load(source, map_location="cpu", weights_only=True, **how)

    try:
        try:
            return load(mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return load()  # the format before torch 1.6 cannot be mapped
    except pickle.UnpicklingError as error:
        raise _Refused(_CODE, _why(str(error))) from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise _Refused(_CODE, "it is a TorchScript archive") from error
        raise


def _why(text: str) -> str:
    """Return the cause from torch's long message."""
    _, separator, cause = text.partition("WeightsUnpickler error:")
    lines = (cause if separator else text).strip().splitlines() or ["torch's safe unpickler refuses it"]
    return lines[0].rstrip(".")


def _tensors(loaded: Any) -> dict[str, Any]:
    """Return the tensors by name; a training checkpoint has them in its `state_dict`, perhaps prefixed `module.`."""
    import torch

    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise _Refused(_NO_WEIGHTS, f"it holds a {type(loaded).__name__}")
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise _Refused(_NO_WEIGHTS, "it holds no tensors")
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or _spelled(tensor) is None:
            raise _Refused(_NO_WEIGHTS, f"{name} is of type {tensor.dtype}, which no safetensors file can hold")
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _spelled(tensor: Any) -> str | None:
    return next((ours for ours, theirs in TORCH_NAMES.items() if f"torch.{theirs}" == str(tensor.dtype)), None)


def _write(target: Path, tensors: dict[str, Any]) -> None:
    """Write the tensors in C order, widest elements first, so that each is aligned to its elements."""
    import torch

    ordered = sorted(tensors.items(), key=lambda item: item[1].element_size(), reverse=True)
    entries = [(name, _spelled(tensor) or "", tuple(tensor.shape)) for name, tensor in ordered]
    with target.open("wb", buffering=0) as file:
        _write_all(file, memoryview(layout.header(entries, {"format": "pt"})))
        for _, tensor in ordered:
            flat = tensor.detach().contiguous().reshape(-1)
            step = max(1, _AT_ONCE // flat.element_size())
            for begin in range(0, flat.numel(), step):
                part = flat[begin : begin + step].view(torch.uint8)
                _write_all(file, memoryview(part.numpy()))
        os.fsync(file.fileno())


def _write_all(file: Any, view: memoryview) -> None:
    while view:  # one call writes no more than 2 GiB
        view = view[file.write(view) or 0 :]
