"""Encoders from other packages: any Python object with a method `load`, found by its entry point."""

from __future__ import annotations

import inspect
import json
import logging
import re
import traceback
from collections.abc import Iterable, Mapping
from importlib import metadata
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from engine.adapters.base.hopeless import unavailable
from engine.adapters.base.python_object import ObjectAdapter
from engine.adapters.context import DETACHED, AdapterContext
from engine.adapters.packages import command, missing, packaged
from engine.devices.placement import CPU
from engine.errors import EncoderError, InvalidInput, LoadFailed, PilotlightError, Unavailable, clear_frames, first_line
from engine.settings.config import EncoderConfig

_log = logging.getLogger(__name__)

GROUP: Final = "pilotlight.adapters"
"""The entry points that plug-ins declare: name -> a class or function that makes the object, or the object."""
_OURS: Final = ("load", "unload")


class PluginAdapter(ObjectAdapter):
    """An object from an entry point, `load`ed before its first use.

    It may have `operations` (the names of the methods that callers may use; without it every public method of its
    class), `unload()`, and `nbytes`, `device`, `revision` and `metadata`, read once it is loaded.
    """

    cannot_rest = "Plug-ins cannot be offloaded to RAM, so an idle one is unloaded."

    def __init__(self, config: EncoderConfig, device: str, context: AdapterContext = DETACHED) -> None:
        """Keep the configuration; import nothing."""
        super().__init__(config, device, context)
        self._made_here = False

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the methods that callers may use."""
        return tuple(sorted(_operations(self._held)))

    def _find(self) -> None:
        self._entry_point()

    def _folders(self) -> Iterable[Path]:
        spec = find_spec(self._entry_point().module.partition(".")[0])
        places = [] if spec is None else list(spec.submodule_search_locations or filter(None, (spec.origin,)))
        return map(Path, places)

    def _load(self) -> Any:
        try:
            held = self._made()
            held.load()
        except ModuleNotFoundError as error:
            raise self._misses(error) from error
        except PilotlightError:
            raise
        except ImportError as error:
            final = unavailable(f"The plug-in {self._name}", error)
            if final is None:
                raise
            raise final from error
        except (Exception, SystemExit) as error:
            raise LoadFailed(
                f"The plug-in {self._name} could not be loaded: {type(error).__name__}: {first_line(error)}",
                next_step="Check its options in the settings; the log has the details.",
            ) from error
        return held

    def _made(self) -> Any:
        """The object, not loaded; a class or function makes it with the options of the settings."""
        found, options = self._found(), self._config.options
        self._made_here = _makes(found)
        if options and not self._made_here:
            raise Unavailable(f"The plug-in {self._name} takes no options.", next_step="Remove them from the settings.")
        if self._made_here:
            self._check_options(found)
        held = found(**options) if self._made_here else found
        if not callable(getattr(held, "load", None)):
            raise Unavailable(f"The plug-in {self._name} has no method load.", next_step="Its author must add one.")
        return held

    def _found(self) -> Any:
        """The object of the entry point."""
        try:
            return self._entry_point().load()
        except ModuleNotFoundError:
            raise
        except (ImportError, AttributeError) as error:
            raise Unavailable(
                f"The plug-in {self._name} is not what its entry point says: {type(error).__name__}: {error}.",
                next_step="Install its package anew, or a version that fits the other packages.",
            ) from error

    def _check_options(self, found: Any) -> None:
        """Raise Unavailable for options that the maker of the plug-in does not take."""
        try:
            signature = inspect.signature(found)
        except (TypeError, ValueError):  # written in C
            return
        try:
            signature.bind(**self._config.options)
        except TypeError as error:
            raise Unavailable(
                f"The plug-in {self._name} could not be made: {error}.",
                next_step=f"Mend its options in the settings; it takes {signature}.",
            ) from None

    def _device_of(self, held: Any) -> str:
        device = str(getattr(held, "device", CPU))
        if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
            raise Unavailable(
                f"The plug-in {self._name} says that it computes on {device!r}.",
                next_step="Its author must name it as torch does: cpu, cuda:N or mps.",
            )
        return "cuda:0" if device == "cuda" else device

    def _nbytes(self, held: Any) -> int | None:
        nbytes = getattr(held, "nbytes", None)
        return nbytes if isinstance(nbytes, int) and nbytes >= 0 else None

    def _revision_of(self, held: Any) -> str | None:
        revision = getattr(held, "revision", None)
        package = self._entry_point().dist
        return str(revision) if revision else f"{package.name}-{package.version}" if package else None

    def _metadata(self, held: Any) -> dict[str, Any]:
        own = getattr(held, "metadata", None) or {}
        try:
            plain = json.loads(json.dumps(dict(own), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise Unavailable(
                f"The metadata of the plug-in {self._name} are no plain data: {error}.",
                next_step="Its author must make them a mapping of texts, numbers and lists.",
            ) from error
        return {**plain, "operations": sorted(_operations(held))}

    def _close(self, held: Any) -> None:
        unload = getattr(held, "unload", None)
        if callable(unload):
            unload()

    def _dies(self, held: Any) -> bool:
        return self._made_here

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """Return the result of one of the plug-in's operations.

        Raises InvalidInput if there is none of that name, if it does not take these arguments, for its ValueError, and
        for a TypeError or AttributeError of its own code that is not about the plug-in itself, as from an argument of a
        type that it does not expect. Raises EncoderError for any other error of the plug-in.
        """
        if operation not in self.operations:
            raise InvalidInput(
                f"{self._config.name} has no operation {operation[:80]!r}.",
                param="operation",
                next_step=f"It has: {', '.join(self.operations) or 'none'}.",
            )
        self._check_arguments(operation, arguments)
        try:
            # Not in a variable, because a traceback would keep it, and the plug-in with it.
            return getattr(self._held, operation)(**arguments)
        except PilotlightError:
            raise
        except ValueError as error:
            clear_frames(error)
            raise InvalidInput(f"{operation}: {first_line(error)}", param="arguments") from error
        except (Exception, SystemExit) as error:
            _log.exception("%s failed in %s", self._config.name, operation)
            if isinstance(error, TypeError | AttributeError) and self._blames_arguments(error):
                clear_frames(error)
                raise InvalidInput(
                    f"{self._config.name} could not use these arguments: {first_line(error)}.",
                    param="arguments",
                    next_step=f"Look up what {operation} takes; the log has the details.",
                ) from error
            clear_frames(error)  # its frames refer to the plug-in, and callers may keep the error
            raise EncoderError(
                f"{self._config.name} failed in {operation}: {type(error).__name__}: {first_line(error)}",
                title="Plug-in failed",
                next_step="The log has the details, for the author of the plug-in.",
            ) from error

    def _blames_arguments(self, error: TypeError | AttributeError) -> bool:
        """Whether the plug-in's own code raised it, and it is not about the plug-in itself."""
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        module = str(frames[-1].f_globals.get("__name__", ""))
        own = self._entry_point().module.partition(".")[0]
        return module.partition(".")[0] == own and getattr(error, "obj", None) is not self._held

    def _check_arguments(self, operation: str, arguments: Mapping[str, Any]) -> None:
        try:
            signature = inspect.signature(getattr(self._held, operation))
        except (TypeError, ValueError):  # written in C
            return
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise InvalidInput(
                f"{operation}: {error}.", param="arguments", next_step=f"It takes {signature}."
            ) from None

    @property
    def _name(self) -> str:
        return self._config.model

    def _entry_point(self) -> EntryPoint:
        """The entry point of the plug-in; imports nothing. Raises Unavailable."""
        offered = metadata.entry_points(group=GROUP)
        found = {entry.value: entry for entry in offered if entry.name == self._name}
        if len(found) > 1:
            packages = " and ".join(sorted(entry.dist.name for entry in found.values() if entry.dist))
            raise Unavailable(
                f"There are several plug-ins {self._name}, in {packages}.", next_step="Remove all but one of them."
            )
        if found:
            return next(iter(found.values()))
        known = ", ".join(sorted(offered.names)) or "none"
        install = "" if packaged() else f" Install the package that has it: {command('pip', 'install', 'PACKAGE')}"
        raise Unavailable(
            f"No installed package has a plug-in {self._name}.", next_step=f"There are: {known}.{install}"
        )

    def _misses(self, error: ModuleNotFoundError) -> Unavailable:
        package = (error.name or "").partition(".")[0]
        if not package or package == self._entry_point().module.partition(".")[0]:
            return Unavailable(
                f"The plug-in {self._name} is not where its entry point says: {error}.",
                next_step="Install its package anew.",
            )
        return missing(package, f"The plug-in {self._name} needs the package {package}, which is not installed.")


def _makes(found: Any) -> bool:
    """Whether the object of an entry point makes the plug-in, or is the plug-in."""
    return isinstance(found, type) or (callable(found) and not hasattr(found, "load"))


def _operations(held: Any) -> set[str]:
    """The names of the methods that callers may use."""
    declared = getattr(held, "operations", None)
    if declared is not None and not callable(declared):
        return {str(name) for name in declared if callable(getattr(held, str(name), None))}
    if isinstance(held, ModuleType):
        # Functions that it imports are not its own.
        functions = inspect.getmembers(held, inspect.isfunction)
        return {name for name, one in functions if one.__module__ == held.__name__ and _is_public(name)}
    return {name for name in dir(type(held)) if _is_public(name) and _is_method(type(held), name)}


def _is_public(name: str) -> bool:
    return not name.startswith("_") and name not in _OURS


def _is_method(owner: type, name: str) -> bool:
    """Whether a class has a method of that name; a property does not count, and is not read."""
    found = inspect.getattr_static(owner, name)
    return isinstance(found, staticmethod | classmethod) or (callable(found) and not isinstance(found, type))
