"""The well-known models of each kind, as `assets/known-models.toml` describes them.

In that file a comment with a space after its `#` is prose; one without the space is settings.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

from engine.paths import shipped
from tray import words

FILE = "known-models.toml"


@dataclass(frozen=True, slots=True)
class Known:
    """One well-known model with its line of prose, or an example whose block has to be filled in."""

    name: str
    kind: str
    model: str
    about: str
    addable: bool = True
    """Whether name, kind and model are enough to add it, and the model can be had by any user."""

    @property
    def command(self) -> str:
        """The command that adds the model."""
        return f"pilotlight add {self.name} {self.kind} {self.model}"


def models() -> tuple[Known, ...]:
    """Return the models and examples of the file, in its order."""
    return tuple(_models(shipped(FILE).read_text(encoding="utf-8")))


def settings(text: str) -> str:
    """Return `text` with every line of settings uncommented."""
    return "\n".join(line[1:] if _is_settings(line) else line for line in text.splitlines())


def find(kind: str, model: str) -> Known | None:
    """Return the entry of `model`, without regard to its revision, or None."""
    name = model.partition("@")[0]
    return next((one for one in models() if (one.kind, one.model) == (kind, name)), None)


def show(as_json: bool) -> int:
    """Print the models that `pilotlight add` can add, and the path of the file that describes all."""
    found = [one for one in models() if one.addable]
    if as_json:
        print(json.dumps({"file": str(shipped(FILE)), "models": [_plain(one) for one in found]}, indent=2))
        return 0
    rows = [("NAME", "KIND", "MODEL", "ABOUT"), *((one.name, one.kind, one.model, one.about) for one in found)]
    for line in words.aligned(rows):
        print(line)
    example = next(one for one in found if not one.model.startswith("builtin:"))
    print(f"\nAdd one with its name, kind and model, such as: {example.command}")
    print(f"With more words, and as blocks for the settings file: {shipped(FILE)}")
    return 0


def _models(text: str) -> Iterator[Known]:
    about, before = "", ""
    abouts = []
    for line in text.splitlines():
        if line.startswith("#[encoders.") and line.count(".") == 1:
            abouts.append(about)
        elif line.startswith("# ") and not before.startswith("# "):
            about = line.removeprefix("# ")
        before = line
    tables = tomllib.loads(settings(text))["encoders"]
    for (name, table), words_of_it in zip(tables.items(), abouts, strict=True):
        addable = table["kind"] != "plugin" and "axes" not in table
        yield Known(name, table["kind"], table.get("model") or table["base"], words_of_it, addable)


def _plain(one: Known) -> dict[str, str]:
    return {"name": one.name, "kind": one.kind, "model": one.model, "about": one.about}


def _is_settings(line: str) -> bool:
    return line.startswith("#") and line[1:2] not in ("", " ", "#")
