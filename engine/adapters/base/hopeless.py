"""Errors of a library that no later try can mend: a package, a name, a class or a file is missing.

| the library raises, while it imports or makes a model                  | the user reads | because                    |
|------------------------------------------------------------------------|----------------|----------------------------|
| ImportError that names a package, or a command that installs one       | Unavailable    | it can be installed        |
| ImportError, AttributeError, NameError and the like, about any name    | Unavailable    | the code is for another    |
|                                                                        |                | version of the library     |
| FileNotFoundError, and OSError about a file that the folder lacks      | Unavailable    | it can be put there        |
| an attempt to ask a model hub, which is never made while constructing  | Unavailable    | the file can be put there  |
| TypeError, ValueError, LookupError, NotImplementedError and the like   | Unavailable    | the files say what the     |
|                                                                        |                | library cannot do          |
| the same from a parser of JSON or the like                             | LoadFailed     | a damaged or half-written  |
|                                                                        |                | file may be whole later    |
| any other OSError, RuntimeError, MemoryError, and all the rest         | LoadFailed     | a disk, a network, memory  |
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Collection, Iterator
from importlib import metadata
from importlib.util import find_spec
from typing import Final

from engine.adapters.packages import command, missing, name_for_pip, packaged
from engine.errors import Unavailable, first_line

_HOPELESS: Final = (
    ImportError,
    AttributeError,
    NameError,
    TypeError,
    ValueError,
    LookupError,
    SyntaxError,
    NotImplementedError,
    AssertionError,
    FileNotFoundError,
)
_PASSING: Final = re.compile(r"partially initialized module")
"""Another thread imports the same module at this instant."""
_PARSERS: Final = frozenset(("json", "srsly", "msgpack", "tomllib", "configparser"))
_NO_SUCH_FILE: Final = re.compile(r"(?:does not appear to have|have) (?:a file|files) named (\S+?)[.,]?(?:\s|$)")
_FROM_A_HUB: Final = re.compile(
    r"offline mode|couldn't connect to|not a local folder|outgoing traffic|local_files_only"
)
_ASKING: Final = ("OfflineModeIsEnabled", "LocalEntryNotFoundError")
"""Errors of the hub's library, which may not be imported."""
_ADDRESS: Final = re.compile(r"https?://[^/\s]+/(?:api/models/)?([\w.-]+/[\w.-]+)/(?:resolve|tree|revision)")
_MODULE: Final = re.compile(r"No module named '([\w.]+)'")
_NAME: Final = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")
_NOT_IN_FILE: Final = re.compile(r"module 'transformers_modules\.(?:\w+\.)*(\w+)' has no attribute '(\w+)'")
_NEW_TYPE: Final = re.compile(r"has model type `(\S+)` but Transformers does not recognize")
_PIP: Final = re.compile(r"pip install((?:\s+['\"]?[A-Za-z0-9-][\w.\-]*(?:\[[\w,\-]+\])?(?:[<>=!~]=?[\w.*]+)?['\"]?)+)")
_LIBRARY: Final = re.compile(r"requires? the (?:🤗 )?([A-Za-z][\w-]+) library|the package for (FlashAttention)2")
_PACKAGES: Final = {"flashattention": "flash-attn"}
_NO_PACKAGES: Final = frozenset(("and", "or", "then", "to", "with", "in", "for"))


def unavailable(
    what: str, error: BaseException, *, library: str = "", own_code: Collection[str] | None = None
) -> Unavailable | None:
    """Return an error that says what to install or write, by the table above; None where a later try may help.

    `what` is the encoder or model whose making raised `error`; `library` names the library with its version, and
    `own_code` the modules of Python code that come with the model, None where none of it runs.
    """
    if _PASSING.search(str(error)):
        return None
    if (asked := _asked_a_hub(what, error)) is not None:
        return asked
    if (file := _missing_file(error, own_code or ())) is not None:
        return Unavailable(
            f"{what} cannot be loaded, because there is no {file}.",
            next_step="Put all of the model's files there, or mend `model` in the settings.",
        )
    packages = _missing_packages(error)
    if packages:
        names = " and ".join(packages)
        are = "packages {} are" if len(packages) > 1 else "package {} is"
        return missing(
            " ".join(packages), f"{what} needs more: the {are.format(names)} not installed.".replace('"', "")
        )
    if not _is_hopeless(error) or _is_damage(error):
        return None
    return _misfit(what, error, library, own_code=own_code is not None)


def _misfit(what: str, error: BaseException, library: str, *, own_code: bool) -> Unavailable:
    """The error for code and files that the installed library has no name or no use for."""
    gone = _gone(error)
    said = gone or f"{type(error).__name__}: {first_line(error).rstrip('.')}"
    if newer := _NEW_TYPE.search(str(error)):
        step = "" if packaged() else f", or run: {command('pip', 'install', '--upgrade', 'transformers')}"
        return Unavailable(
            f"{what} is of type {newer.group(1)}, which {library} does not know.",
            next_step=f"Mend `model_type` in its config.json{step}",
        )
    if own_code:
        return Unavailable(
            f"The Python code of {what} does not fit {library}: {said}.",
            next_step=f"Get files that were made for {library}, or set `model` to another one.",
        )
    if gone is not None and not packaged():
        return Unavailable(
            f"{what} cannot be loaded, because installed packages do not fit each other: {said}.",
            next_step=f"Install versions that fit, as by: {command('pip', 'install', '--upgrade', *_involved(error))}",
        )
    return Unavailable(
        f"{what} cannot be made{f' by {library}' if library else ''} of these files: {said}.",
        next_step="Put the complete files of one model there that the library knows, or mend `model` in the settings.",
    )


def _missing_packages(error: BaseException) -> list[str]:
    """The names for pip of the packages that the error is about; empty where it is about none."""
    whole = isinstance(error, ImportError) and not _NAME.search(str(error))
    for one in _chain(error) if whole else (error,):
        text = str(one)
        if isinstance(one, ImportError) and (command_line := _PIP.search(text)):
            words = [word.strip("'\"`").rstrip(".,") for word in command_line.group(1).split()]
            named = [name_for_pip(word) for word in words if not word.startswith("-")]
            end = next((index for index, word in enumerate(named) if word.lower() in _NO_PACKAGES), len(named))
            if named[:end]:
                return [f'"{word}"' if re.search(r"[<>=\[]", word) else word for word in named[:end]]
        if found := _MODULE.search(text):
            root = found.group(1).partition(".")[0]
            if root != "transformers_modules" and not _is_installed(root):
                return [name_for_pip(root)]
        if isinstance(one, ImportError) and (found := _LIBRARY.search(text)):
            name = (found.group(1) or found.group(2)).lower()
            return [_PACKAGES.get(name, name)]
    return []


def _gone(error: BaseException) -> str | None:
    """A name of an installed library that it does not have, in words."""
    text = str(error)
    if found := _NAME.search(text):
        name, module = found.groups()
        return f"there is no {name} in {module} of {_version_of(module)}"
    if (found := _MODULE.search(text)) and "." in found.group(1):
        return f"there is no module {found.group(1)} in {_version_of(found.group(1))}"
    if found := _NOT_IN_FILE.search(text):
        return f"there is no {found.group(2)} in {found.group(1)}.py"
    return None


def _version_of(module: str) -> str:
    name = name_for_pip(module.partition(".")[0])
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return name


def _involved(error: BaseException) -> list[str]:
    """The installed packages whose code raised the error, and the one that lacks something."""
    roots = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    roots = [
        *roots[-1:],
        *(found.group(2) for found in [_NAME.search(str(error))] if found),
        getattr(error, "name", ""),
    ]
    known = (name_for_pip(root.partition(".")[0]) for root in roots if root and _is_installed(root.partition(".")[0]))
    return list(dict.fromkeys(known)) or ["transformers"]


def _missing_file(error: BaseException, own_modules: Collection[str]) -> str | None:
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return str(error.filename)
    if isinstance(error, OSError) and (found := _NO_SUCH_FILE.search(str(error))):
        return found.group(1)
    if found := _MODULE.search(str(error)):
        name = found.group(1)
        if name in own_modules or name.startswith("transformers_modules."):
            return f"{name.rpartition('.')[2]}.py"
    return None


def _asked_a_hub(what: str, error: BaseException) -> Unavailable | None:
    chain = list(_chain(error))
    if not isinstance(error, OSError) or not any(
        type(one).__name__ in _ASKING or _FROM_A_HUB.search(str(one)) for one in chain
    ):
        return None
    found = next(filter(None, (_ADDRESS.search(str(one)) for one in chain)), None)
    whose = f"files of {found.group(1)} on the model hub" if found else "files that its folder lacks"
    return Unavailable(
        f"{what} needs {whose}, and no hub is asked while a model is made.",
        next_step="Put them into its folder, or set `model` to a model that has all its files.",
    )


def _is_hopeless(error: BaseException) -> bool:
    # The base of what the hub's library finds wrong in a configuration; it is imported by then, if at all.
    return isinstance(error, _HOPELESS) or any(base.__name__ == "StrictDataclassError" for base in type(error).__mro__)


def _is_damage(error: BaseException) -> bool:
    """Whether a parser of files raised it."""
    frames = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, UnicodeError) or any(name.partition(".")[0] in _PARSERS for name in frames[-2:])


def _is_installed(root: str) -> bool:
    return root in sys.stdlib_module_names or find_spec(root) is not None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that led to it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
