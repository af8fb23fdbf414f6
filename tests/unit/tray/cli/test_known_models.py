"""The file of well-known models: without effect as shipped, and valid settings once uncommented."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from engine import Config, parse
from engine.paths import shipped
from tray.cli import known

TEXT = shipped(known.FILE).read_text(encoding="utf-8")
KINDS = {"dense", "sparse", "multi", "rerank", "classify", "image_text", "tag", "axes", "plugin"}


def test_as_it_is_it_changes_nothing() -> None:
    assert tomllib.loads(TEXT) == {}
    assert parse(tomllib.loads(TEXT)) == Config()


def test_all_blocks_put_in_force_together_are_valid_settings_of_every_kind() -> None:
    config = parse(tomllib.loads(known.settings(TEXT)))
    assert {encoder.kind for encoder in config.encoders} == KINDS
    assert len(config.encoders) == len(known.models())
    [siglip] = [encoder for encoder in config.encoders if encoder.name == "siglip"]
    assert [part.pin for part in siglip.components] == [True, False]


@pytest.mark.parametrize("block", re.findall(r"^#\[encoders\.[\w-]+\]$", TEXT, re.M))
def test_each_block_is_valid_by_itself_beside_the_built_in_encoder(block: str) -> None:
    name = block.removeprefix("#[encoders.").removesuffix("]")
    table = tomllib.loads(known.settings(TEXT))["encoders"][name]
    assert parse({"encoders": {"minilm": {"kind": "dense", "model": "a/b"}, name: table}})


def test_each_model_has_its_size_and_licence() -> None:
    for one in known.models():
        weighs_nothing = one.kind in ("axes", "plugin")
        assert weighs_nothing or re.search(r"\d [MG]B\)?, (MIT|Apache-2.0)", one.about), one


def test_a_model_is_known_in_any_revision_and_only_as_its_kind() -> None:
    one = known.find("multi", "BAAI/bge-m3@main")
    assert one is not None
    assert one.command == "pilotlight add bge-m3 multi BAAI/bge-m3"
    assert known.find("dense", "BAAI/bge-m3") is None


def test_the_list_fits_a_wide_terminal_and_says_how_to_add_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert known.show(as_json=False) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 150
    assert shown[0].split() == ["NAME", "KIND", "MODEL", "ABOUT"]
    assert "pilotlight add bge-small dense BAAI/bge-small-en-v1.5" in shown[-2]
    assert shown[-1].endswith(str(shipped(known.FILE)))


def test_what_a_command_cannot_add_as_it_is_described_is_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    known.show(as_json=True)
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["models"]}
    assert {one.name for one in known.models()} - set(listed) == {"moods", "mine"}
    assert listed["axes"].keys() == {"name", "kind", "model", "about"}
    for one in listed.values():
        values = {"base" if one["kind"] == "axes" else "model": one["model"], "kind": one["kind"]}
        assert tomllib.loads(known.settings(TEXT))["encoders"][one["name"]].items() >= values.items()


def test_the_list_is_there_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    known.show(as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["models"][0]["model"] == "builtin:all-MiniLM-L6-v2"
