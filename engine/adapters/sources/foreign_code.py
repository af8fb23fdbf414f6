"""Python code of a model that its files leave to another model on a hub."""

from __future__ import annotations

from pathlib import Path

from engine.adapters.sources import declared, hub
from engine.adapters.sources.own_code import Code
from engine.errors import Unavailable


def absent(folder: Path) -> list[Code]:
    """Return the classes of other models that the files in `folder` name and the hub's cache lacks."""
    return [code for code in declared.read(folder).code if code.repository and not _is_cached(code)]


def require(model: str, folder: Path, *, from_hub: bool, offline: bool) -> None:
    """Bring that code here where a hub may be asked for it: for a model `from_hub`, unless the settings forbid it.

    Raises Unavailable where it is missing and may not be fetched, and the errors of `hub.fetch`.
    """
    if from_hub and not offline:
        for repository in dict.fromkeys(code.repository for code in absent(folder)):
            hub.fetch_code(str(repository))
    if missing := absent(folder):
        raise unavailable(model, missing, from_hub=from_hub)


def unavailable(model: str, missing: list[Code], *, from_hub: bool) -> Unavailable:
    """Return the error for a model whose code is missing."""
    whose = " and ".join(dict.fromkeys(str(code.repository) for code in missing))
    return Unavailable(
        f"{model} needs Python code of {whose}, another model on the hub, which is not on this computer.",
        next_step="Set offline = false under [hub] in the settings file." if from_hub else remedy(missing[0]),
    )


def remedy(code: Code) -> str:
    """Return what to do for a folder: no hub is asked for a part of it."""
    module, _, name = code.reference.rpartition("--")[2].partition(".")
    return (
        f"Copy {module}.py of {code.repository} into its folder, with the files that it imports, and write "
        f'"{module}.{name}" for "{code.reference}" in {code.file}; or set `model` to its id on the hub.'
    )


def _is_cached(code: Code) -> bool:
    from huggingface_hub import try_to_load_from_cache

    module = code.reference.rpartition("--")[2].partition(".")[0]
    return isinstance(try_to_load_from_cache(str(code.repository), f"{module}.py"), str)
