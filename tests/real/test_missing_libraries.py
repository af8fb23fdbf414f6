"""With a library uninstalled its encoders say so, with the line that installs it, and all others work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from expected import importing_root
from plugin_packages import EXAMPLE, install
from running import ROOT
from tag_models import trained

ENCODERS = {
    "dense": {"model": "builtin:all-MiniLM-L6-v2"},
    "sparse": {"model": "./nowhere"},
    "multi": {"model": "./nowhere"},
    "rerank": {"model": "./nowhere"},
    "classify": {"model": "./nowhere"},
    "image_text": {"model": "./nowhere"},
    "tag": {},
    "axes": {"base": "dense"},
    "plugin": {"model": "shouter"},
}
WORKING = {"dense", "tag", "axes", "plugin"}
"""The others have no model here: they get as far as its folder."""

ON_SENTENCE_TRANSFORMERS = {"dense", "sparse", "rerank", "axes"}
ON_TRANSFORMERS = {*ON_SENTENCE_TRANSFORMERS, "multi", "classify", "image_text.text", "image_text.image"}

SCRIPT = """\
import json, sys
from importlib.machinery import PathFinder

hidden, settings = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, sys.argv[3])


class Without(PathFinder):
    # Does not see one package and what is in it.
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == hidden else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Without
if sys.argv[4] == "packaged":
    sys.frozen = True

from engine import Engine, Unavailable, parse
from engine.operations.axes import EncodeAxes
from engine.operations.dense import Embed
from engine.operations.plugin import Call
from engine.operations.tag import Tag

uses = {"dense": Embed(["a"]), "axes": EncodeAxes(["a"]), "tag": Tag(["a"]), "plugin": Call("shout", {"texts": ["a"]})}
found = {}
with Engine(parse({"encoders": settings})) as engine:
    for view in engine.views():
        use = uses.get(view.name, lambda adapter: None)
        try:
            engine.call(view.name, use)
            found[view.name] = "works"
        except Unavailable as error:
            state = str(engine.view(view.name).state)
            found[view.name] = [error.message, error.next_step, state]
    alive = hidden in sys.modules
print(json.dumps([found, alive]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plug-in is installed, and the pipeline is."""
    site = tmp_path_factory.mktemp("site")
    install(site, "pilot_shouter", EXAMPLE, entry="shouter = pilot_shouter:Shouter")
    trained().to_disk(site / "pipeline")
    return site


def without(
    hidden: str, site: Path, encoders: Mapping[str, Mapping[str, str]], *, packaged: bool = False
) -> Mapping[str, object]:
    """What becomes of each encoder, named for its kind, where `hidden` is not installed."""
    settings = {kind: {"kind": kind, "device": "cpu", **more} for kind, more in encoders.items()}
    if "tag" in settings:
        settings["tag"]["model"] = str(site / "pipeline")
    arguments = [hidden, json.dumps(settings), str(site), "packaged" if packaged else "plain"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=importing_root(),
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, alive = json.loads(done.stdout.splitlines()[-1])
    assert not alive
    return dict(found)


@pytest.mark.parametrize(
    ("hidden", "package", "hit"),
    [
        ("sentence_transformers", "sentence-transformers", ON_SENTENCE_TRANSFORMERS),
        ("transformers", "transformers", ON_TRANSFORMERS),
        ("spacy", "spacy", {"tag"}),
    ],
)
def test_without_a_library_its_encoders_are_unavailable_and_the_others_work(
    hidden: str, package: str, hit: set[str], site: Path
) -> None:
    found = without(hidden, site, ENCODERS)
    assert {*ON_TRANSFORMERS, "tag", "plugin"} == set(found)
    for name, result in found.items():
        if name in hit:
            assert isinstance(result, list)
            message, step, state = result
            assert f"{package} is not installed" in message.replace("spaCy", "spacy"), name
            assert f"{sys.executable} -m pip install {package}" in step, name
            assert state == "unavailable"
        elif name in WORKING:
            assert result == "works", name
        else:
            assert isinstance(result, list)
            assert "nowhere does not exist" in result[0], name


def test_a_packaged_app_says_what_helps_there(site: Path) -> None:
    result = without("spacy", site, {"tag": {}}, packaged=True)["tag"]
    assert isinstance(result, list)
    assert "This build of Pilotlight comes without spaCy" in result[0]
    assert "pip install" not in result[1]


def test_without_open_clip_only_its_own_models_are_unavailable(site: Path) -> None:
    found = without("open_clip", site, {"image_text": {"model": "open-clip:ViT-B-32/openai"}, "tag": {}})
    for part in ("image_text.text", "image_text.image"):
        result = found[part]
        assert isinstance(result, list)
        assert "open-clip-torch is not installed" in result[0]
        assert f"{sys.executable} -m pip install open-clip-torch" in result[1]
    assert found["tag"] == "works"
