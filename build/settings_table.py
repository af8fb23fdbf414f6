"""The table of engine/settings/README.md, from the checks in schema.py and the docstrings in config.py.

python build/settings_table.py     write it into the page
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine.kinds import PARTS
from engine.settings import config, schema

PAGE = Path(__file__).parent.parent / "engine" / "settings" / "README.md"
BEGIN, END = "<!-- made by build/settings_table.py -->", "<!-- end -->"


def table() -> str:
    """Return the table in Markdown, one row per setting."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for section, keys in (("hardware", schema.HARDWARE), ("server", schema.SERVER), ("hub", schema.HUB)):
        rows += _rows(section, getattr(config, section.title()), keys)
    rows += _rows("encoders.NAME", config.EncoderConfig, schema.OF_EVERY_KIND)
    for key in dict.fromkeys(key for keys in schema.OF_ONE_KIND.values() for key in keys):
        kinds = ", ".join(f"`{kind}`" for kind, keys in schema.OF_ONE_KIND.items() if key in keys)
        rows += _rows("encoders.NAME", config.EncoderConfig, [key], f"Only {kinds}. ")
    for kind, parts in PARTS.items():
        tables = ", ".join(f"`[encoders.NAME.{part}]`" for part in parts)
        own = ", ".join(f"`{key}`" for key in schema.LADDER_KEYS)
        rows.append(f"| {tables} | | Only `{kind}`. Tables of the parts; each may have {own}. |")
    return "\n".join(rows)


def page(text: str) -> str:
    """Return the page's text with the table as it must be."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


def _rows(section: str, owner: type, keys: Sequence[str] | Mapping[str, Any], note: str = "") -> Iterator[str]:
    meanings, known = _docstrings(owner), {field.name: field for field in fields(owner)}
    inherited = _docstrings(config.Hardware)
    for key in keys:
        shown = f"`{section}.{key}`"
        if key in meanings:
            yield f"| {shown} | {_default(known[key])} | {note}{_sentence(meanings[key])} |"
        elif key in inherited:
            yield f"| {shown} | that of `hardware` | For this encoder alone, as `hardware.{key}`. |"
        else:
            raise KeyError(f"{owner.__name__}.{key} has no docstring")


def _docstrings(owner: type) -> dict[str, str]:
    """Return the docstring below each field of a class."""
    body = next(node.body for node in ast.parse(inspect.getsource(owner)).body if isinstance(node, ast.ClassDef))
    found = {}
    for field, after in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(after.value)).split())
    return found


def _default(field: Field[Any]) -> str:
    """Return a default as the settings file spells it; nothing where there is none, or where it is the model's."""
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    if value is MISSING or value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{json.dumps(value)}`"


def _sentence(text: str) -> str:
    return (text if text.endswith(".") else f"{text}.").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
