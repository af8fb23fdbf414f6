"""The settings file as text: changed in place, so that comments, order, line ends and a byte order mark survive."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from engine.errors import SettingsError
from engine.settings.config import DEFAULT_ENCODER

Key = tuple[str, ...]
"""The path of a setting: `("hardware", "lazy_encoders")` or `("encoders", "minilm", "pin")`."""

_MARK: Final = "\ufeff"

_DEFAULT_TABLE: Final = {
    "kind": DEFAULT_ENCODER.kind,
    "model": DEFAULT_ENCODER.model,
    "aliases": list(DEFAULT_ENCODER.aliases),
}


def loads(text: str) -> dict[str, Any]:
    """Return what `text` says, as plain data; raises ValueError or RecursionError."""
    return tomllib.loads(text.removeprefix(_MARK).replace("\r\n", "\n"))


def with_changes(text: str, changes: Mapping[Key, Any]) -> str:
    """Return `text` with `changes`, of which a None takes the key out; raises TypeError or ValueError."""
    import tomlkit

    document = tomlkit.parse(text.removeprefix(_MARK))
    for key, value in changes.items():
        _set(document, key, value)
    changed = tomlkit.dumps(document)
    if "\n" in text and not re.search(r"(?<!\r)\n", text):
        changed = re.sub(r"(?<!\r)\n", "\r\n", changed)
    return _marked_as(text, changed)


def with_encoder(text: str, name: str, values: Mapping[str, Any]) -> str:
    """Return `text` with a new encoder's table, at its end where that can be.

    Raises TypeError or ValueError for values that TOML does not know, and SettingsError where no table can be added.
    """
    import tomlkit

    before = loads(text)
    there = before.get("encoders")
    # What a file without encoders means; one that names any means those alone.
    new = {name: dict(values)} if there is not None else {DEFAULT_ENCODER.name: _DEFAULT_TABLE, name: dict(values)}
    meant = {**before, "encoders": {**(there or {}), **new}}
    written = tomlkit.dumps({"encoders": new})
    if _says(appended := _below(text, written), meant):
        return appended
    # Below an inline table nothing may be added to it.
    inside = with_changes(text, {("encoders", name): dict(values)})
    if _says(inside, meant):
        return inside
    raise SettingsError(
        "The encoders are written in the settings file in a way that leaves no place for another, "
        "so nothing was changed.",
        next_step=f"Write them as tables of their own, [encoders.NAME], or add this by hand:\n{written}",
    )


def line_of(text: str, key: Key) -> int | None:
    """Return the line where a key, or failing that its table, is written; None where it is spelled some other way."""
    table: Key = ()
    header_line = None
    for number, line in enumerate(text.removeprefix(_MARK).splitlines(), 1):
        if header := re.match(r"\s*\[{1,2}([^\[\]]+)\]{1,2}", line):
            table = _split(header[1])
            if table == key[: len(table)] and (table == key or table == key[:-1]):
                header_line = header_line or number
        elif (assignment := re.match(r"\s*([^#=\[]+?)\s*=", line)) and (*table, *_split(assignment[1])) == key:
            return number
    return header_line


def _set(document: Any, key: Key, value: Any) -> None:
    if key[0] == "encoders" and "encoders" not in document:
        document["encoders"] = {DEFAULT_ENCODER.name: _DEFAULT_TABLE}
    table = document
    for part in key[:-1]:
        if part not in table:
            table[part] = {}
        table = table[part]
    if value is None:
        table.pop(key[-1], None)
    else:
        table[key[-1]] = value


def _below(text: str, written: str) -> str:
    """`text` and, with a blank line between them, `written`, in the line ends of the first line."""
    end = "\r\n" if text.partition("\n")[0].endswith("\r") else "\n"
    lines = text.removeprefix(_MARK).splitlines()
    between = "" if text.endswith("\n") or not lines else end
    between += end if lines and lines[-1].strip() else ""
    return text + between + written.replace("\n", end)


def _says(text: str, meant: Mapping[str, Any]) -> bool:
    try:
        return loads(text) == meant
    except ValueError:
        return False


def _marked_as(before: str, text: str) -> str:
    return _MARK + text if before.startswith(_MARK) else text


def _split(dotted: str) -> Key:
    """The parts of a dotted key, of which a quoted one may hold dots itself."""
    return tuple(part.strip("\"'") for part in re.findall(r""""[^"]*"|'[^']*'|[^\s."']+""", dotted))
