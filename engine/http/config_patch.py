"""The body of `PATCH /admin/config` as changes of the settings file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.errors import SettingsError, SettingsForbidden
from engine.settings.config import Config
from engine.settings.file import Key
from engine.settings.naming import settings_key
from engine.settings.schema import LADDER_KEYS


def changes(body: Mapping[str, Any], config: Config) -> dict[Key, Any]:
    """Return the value of each key that `body` changes; None takes a key out.

    Raises SettingsForbidden for keys that can only be edited by hand, UnknownEncoder, and SettingsError for a body of
    another shape. The values themselves are checked by `SettingsFile.edit`.
    """
    _check_text(body)
    found: dict[Key, Any] = {}
    for section, table in body.items():
        if section not in ("hardware", "encoders"):
            raise SettingsForbidden(
                f"[{section}] cannot be changed here; [hardware] and [encoders.NAME] can.",
                next_step="Edit the settings file by hand.",
            )
        if not isinstance(table, Mapping):
            raise SettingsError(f"{section}: must be an object.")
        if section == "hardware":
            found |= {("hardware", key): value for key, value in table.items()}
            continue
        for name, values in table.items():
            found |= _encoder_changes(name, values, config)
    return found


def _check_text(body: Mapping[str, Any]) -> None:
    """Refuse lone surrogates, which neither the file nor an answer that names them can hold."""
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise SettingsError("The body holds text that cannot be written as UTF-8.") from error


def _encoder_changes(name: str, values: Any, config: Config) -> dict[Key, Any]:
    table = settings_key(config, name)
    if not isinstance(values, Mapping):
        raise SettingsError(f"encoders.{name}: must be an object.")
    for key in values:
        if key not in LADDER_KEYS:
            raise SettingsForbidden(
                f"encoders.{name}.{key} cannot be changed here; {', '.join(LADDER_KEYS)} can.",
                next_step="Edit the settings file by hand.",
            )
    return {(*table, key): value for key, value in values.items()}
