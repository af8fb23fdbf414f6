"""The well-known models of each kind, as `assets/known-models.toml` describes them.

A line of that file which is a comment with a space after its `#` is words; without the space it is settings.
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
    """One well-known model, and what its line of words says of it; or an example, whose block one has to fill in."""

    name: str
    kind: str
    model: str
    about: str
    addable: bool = True
    """Whether its name, kind and model say all of it, and name something that anybody can have."""

    @property
    def command(self) -> str:
        """The command that adds it."""
        return f"pilotlight add {self.name} {self.kind} {self.model}"


def models() -> tuple[Known, ...]:
    """Return the models and examples that the file names, in its order."""
    return tuple(_models(shipped(FILE).read_text(encoding="utf-8")))


def settings(text: str) -> str:
    """Return `text` with every line of settings put in force."""
    return "\n".join(line[1:] if _is_settings(line) else line for line in text.splitlines())


def find(kind: str, model: str) -> Known | None:
    """Return what is known of `model`, whatever revision of it is asked for."""
    name = model.partition("@")[0]
    return next((one for one in models() if (one.kind, one.model) == (kind, name)), None)


def show(as_json: bool) -> int:
    """Print the models that a command can add, and the file that describes them and the rest."""
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
