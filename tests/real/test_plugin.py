"""Plug-ins in packages of their own, found through their entry points."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from plugin_packages import EXAMPLE, install

from engine import EncoderError, Engine, InvalidInput, LoadFailed, State, Unavailable, parse

Start = Callable[..., Engine]

SHOUTER = "shouter = pilot_shouter:Shouter"
OPERATIONS = ("vectors", "fail", "refuse", "spread", "leave", "bare", "shape")
RICH = """\
import numpy as np

ended = []

class Rich:
    operations = ("vectors", "fail", "refuse", "spread", "leave", "bare", "shape")
    nbytes = 1000
    revision = "seven"
    metadata = {"dimension": 2}

    def load(self):
        self.weights = np.ones((2, 2))

    def unload(self):
        ended.append(self.weights.shape)

    def vectors(self, texts, *, scale=1.0):
        return {"vectors": scale * self.weights.T[:, :1], "pair": (1, "two")}

    def fail(self):
        raise KeyError("a secret key")

    def refuse(self, texts):
        raise ValueError(f"{len(texts)} texts are too many\\nand more")

    def spread(self):
        return {1, 2}

    def leave(self):
        raise SystemExit(3)

    def bare(self):
        return self.missing

    def shape(self, texts):
        return [text.upper() for text in texts], sum(texts, start="")

    def hidden(self):
        return "not declared"
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages; what was imported from it is forgotten at the end."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in [name for name in sys.modules if name.startswith("pilot_")]:
        del sys.modules[module]


def over(model: str, **options: Any) -> Engine:
    return Engine(parse({"encoders": {"mine": {"kind": "plugin", "model": model, "options": options}}}))


@pytest.fixture
def rich(site: Path) -> Iterator[Engine]:
    install(site, "pilot_rich", RICH, entry="rich = pilot_rich:Rich")
    with over("rich") as engine:
        yield engine


def test_the_example_of_the_readme_works(site: Path) -> None:
    readme = (Path(__file__).resolve().parents[2] / "engine" / "adapters" / "README.md").read_text(encoding="utf-8")
    assert f"```python\n{EXAMPLE}```" in readme
    install(site, "pilot_shouter", EXAMPLE, entry=SHOUTER)
    with over("shouter") as engine:
        assert engine.plugin("mine").call("shout", texts=["hello", "é"]) == ["HELLO!", "é!"]
        assert engine.plugin().operations == ("shout",)
        assert engine.view("mine").revision == "pilot_shouter-1.0"


def test_its_options_come_from_the_settings(site: Path) -> None:
    install(site, "pilot_shouter", EXAMPLE, entry=SHOUTER)
    with over("shouter", mark="?") as engine:
        assert engine.plugin().call("shout", texts=["who"]) == ["WHO?"]
    with over("shouter", volume=11) as engine:
        with pytest.raises(Unavailable, match="volume") as raised:
            engine.plugin().call("shout", texts=["who"])
        assert "options" in (raised.value.next_step or "")
        assert engine.view("mine").state is State.UNAVAILABLE


def test_nothing_is_imported_before_the_first_use(site: Path) -> None:
    install(site, "pilot_shouter", EXAMPLE, entry=SHOUTER)
    with over("shouter") as engine:
        assert engine.view("mine").state is State.UNLOADED
        assert "pilot_shouter" not in sys.modules
        engine.plugin().warm()
        assert "pilot_shouter" in sys.modules


def test_it_is_unloaded_when_it_steps_down_and_comes_back(rich: Engine) -> None:
    import pilot_rich  # type: ignore[import-not-found]

    before = rich.plugin().call("vectors", texts=["a"])["vectors"]
    view = rich.view("mine")
    assert (view.bytes_on_device, view.bytes_in_ram, view.revision) == (1000, 0, "seven")
    assert view.metadata == {"dimension": 2, "operations": sorted(OPERATIONS)}
    assert "unloaded" in (view.note or "")
    assert rich.offload("mine").result == "done"
    assert rich.view("mine").state is State.UNLOADED
    assert rich.view("mine").error is None
    assert pilot_rich.ended == [(2, 2)]
    assert (rich.plugin().call("vectors", texts=["a"])["vectors"] == before).all()


def test_eight_threads_that_race_load_once(rich: Engine) -> None:
    barrier, found = threading.Barrier(8), []

    def use() -> None:
        barrier.wait()
        found.append(rich.plugin().call("vectors", texts=[]))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert rich.view("mine").loads == 1


def test_what_is_not_declared_cannot_be_called(rich: Engine) -> None:
    for name in ("hidden", "load", "unload", "weights", "__class__", "nothing"):
        with pytest.raises(InvalidInput, match="no operation") as raised:
            rich.plugin().call(name)
        assert raised.value.next_step == f"It has: {', '.join(sorted(OPERATIONS))}."


def test_without_a_declaration_the_public_methods_are_the_operations(site: Path) -> None:
    code = (
        "class Plain:\n"
        "    class Inner: pass\n"
        "    def load(self): self.model = print\n"
        "    @property\n"
        "    def size(self): raise AssertionError('not to be read')\n"
        "    @staticmethod\n"
        "    def still(): return 1\n"
        "    def moving(self): return 2\n"
        "    def _own(self): return 3\n"
    )
    install(site, "pilot_plain", code, entry="plain = pilot_plain:Plain")
    with over("plain") as engine:
        assert engine.plugin().operations == ("moving", "still")
        assert engine.plugin().call("still") == 1


@pytest.mark.parametrize("arguments", [{}, {"text": []}, {"texts": [], "more": 1}])
def test_arguments_that_do_not_fit_are_the_callers_affair(rich: Engine, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="vectors: ") as raised:
        rich.plugin().call("vectors", **arguments)
    assert raised.value.next_step == "It takes (texts, *, scale=1.0)."


def test_its_value_error_is_the_callers_affair(rich: Engine) -> None:
    with pytest.raises(InvalidInput, match=r"refuse: 2 texts are too many$"):
        rich.plugin().call("refuse", texts=["a", "b"])


def test_its_failure_is_one_of_ours_and_harms_nothing(rich: Engine) -> None:
    with pytest.raises(EncoderError, match="mine failed in fail: KeyError") as raised:
        rich.plugin().call("fail")
    assert raised.value.title == "Plug-in failed"
    assert rich.view("mine").state is State.ON_DEVICE
    assert rich.unload("mine").result == "done"


def test_a_factory_makes_one_and_an_object_is_one(site: Path) -> None:
    code = EXAMPLE + "\ndef make(mark='.'):\n    return Shouter(mark)\n\nready = Shouter('#')\n"
    install(site, "pilot_shouter", code, entry="made = pilot_shouter:make\nready = pilot_shouter:ready")
    for model, options, expected in (("made", {"mark": "*"}, ["A*"]), ("ready", {}, ["A#"])):
        with over(model, **options) as engine:
            assert engine.plugin().call("shout", texts=["a"]) == expected
            assert engine.unload("mine").result == "done"
            assert engine.plugin().call("shout", texts=["a"]) == expected
    with over("ready", mark="*") as engine, pytest.raises(Unavailable, match="takes no options"):
        engine.plugin().warm()


def test_a_module_is_a_plugin_with_its_own_functions(site: Path) -> None:
    code = "from os.path import join\ndef load(): pass\ndef upper(text): return text.upper()\n"
    install(site, "pilot_module", code, entry="module = pilot_module")
    with over("module") as engine:
        assert engine.plugin().operations == ("upper",)
        assert engine.plugin().call("upper", text="a") == "A"


def test_one_that_somebody_keeps_is_not_said_to_be_gone(site: Path) -> None:
    code = "kept = []\nclass Kept:\n    nbytes = 5\n    def load(self): kept.append(self)\n"
    install(site, "pilot_kept", code, entry="kept = pilot_kept:Kept")
    with over("kept") as engine:
        engine.plugin().warm()
        assert engine.unload("mine").result == "refused"
        view = engine.view("mine")
        assert "not given back" in (view.note or "")
        assert (view.state, view.bytes_on_device) == (State.UNLOADED, 5)


def test_a_missing_entry_point_names_those_that_are_there(site: Path) -> None:
    install(site, "pilot_shouter", EXAMPLE, entry=SHOUTER)
    with over("whisperer") as engine:
        with pytest.raises(Unavailable, match="No installed package has a plug-in whisperer") as raised:
            engine.plugin().warm()
        assert "There are: shouter." in (raised.value.next_step or "")
        assert f"{sys.executable} -m pip install" in (raised.value.next_step or "")
        assert engine.view("mine").state is State.UNAVAILABLE
        install(site, "pilot_whisperer", EXAMPLE, entry="whisperer = pilot_whisperer:Shouter")
        assert engine.plugin().call("shout", texts=["a"]) == ["A!"]


def test_two_packages_with_the_same_name_are_told(site: Path) -> None:
    install(site, "pilot_shouter", EXAMPLE, entry=SHOUTER)
    install(site, "pilot_other", EXAMPLE, entry="shouter = pilot_other:Shouter")
    with over("shouter") as engine, pytest.raises(Unavailable, match="pilot_other and pilot_shouter"):
        engine.plugin().warm()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("class Bad:\n    def load(self): raise OSError('no such file: weights')\n", "OSError: no such file"),
        ("raise RuntimeError('at import')\n", "RuntimeError: at import"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("class Bad:\n    def load(self): raise SystemExit('no licence')\n", "SystemExit: no licence"),
        ("class Bad:\n    def load(self): raise ValueError('no answer')\n", "ValueError: no answer"),
    ],
)
def test_a_plugin_that_fails_may_work_later(site: Path, code: str, says: str) -> None:
    install(site, "pilot_bad", code, entry="bad = pilot_bad:Bad")
    with over("bad") as engine:
        with pytest.raises(LoadFailed, match=says) as raised:
            engine.plugin().warm()
        assert raised.value.next_step
        assert engine.view("mine").state is State.FAILED


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("class Bad: pass\n", "has no method load"),
        ("class Bad:\n    load = 3\n", "has no method load"),
        ("Other = 3\n", "AttributeError"),
        ("from os import not_there\n", "cannot import name 'not_there'"),
        ("class Bad:\n    def load(self):\n        from os import not_there\n", "no not_there in os"),
        ("class Bad:\n    device = 'tpu'\n    def load(self): pass\n", "computes on 'tpu'"),
        ("class Bad:\n    metadata = {'a': {1}}\n    def load(self): pass\n", "no plain data"),
    ],
)
def test_a_plugin_that_can_never_work_is_tried_once(site: Path, code: str, says: str) -> None:
    install(site, "pilot_bad", code, entry="bad = pilot_bad:Bad")
    with over("bad") as engine:
        loads = []
        slot = engine._encoders.find("mine").slot
        load = slot._adapter.load
        slot._adapter.load = lambda on=None: loads.append(on) or load(on)
        for _ in range(3):
            with pytest.raises(Unavailable, match=says) as raised:
                engine.plugin().call("shout")
            assert raised.value.next_step
            assert engine.view("mine").state is State.UNAVAILABLE
        assert len(loads) == 1
        (site / "pilot_bad.py").write_text("class Bad:\n    def load(self): pass\n    def shout(self): return 'A'\n")
        sys.modules.pop("pilot_bad", None)
        assert engine.plugin().call("shout") == "A", "and again once its code changed"


def test_what_a_plugin_needs_and_lacks_is_named(site: Path) -> None:
    install(site, "pilot_needy", "import not_a_package.deep\n", entry="needy = pilot_needy:Needy")
    with over("needy") as engine, pytest.raises(Unavailable, match="needs the package not_a_package") as raised:
        engine.plugin().warm()
    assert "pip install not_a_package" in (raised.value.next_step or "")
    install(site, "pilot_moved", "", entry="moved = pilot_moved_away:Moved")
    with over("moved") as engine, pytest.raises(Unavailable, match="not where its entry point says"):
        engine.plugin().warm()


@pytest.mark.parametrize("texts", [[1], [None], 3, ["a"]])
def test_arguments_of_the_wrong_type_are_the_callers_affair(rich: Engine, texts: Any) -> None:
    with pytest.raises(InvalidInput, match="mine could not use these arguments: ") as raised:
        rich.plugin().call("shape", texts=texts)
    assert raised.value.param == "arguments"
    assert rich.unload("mine").result == "done"


@pytest.mark.parametrize(("operation", "says"), [("leave", "SystemExit: 3"), ("bare", "AttributeError")])
def test_what_no_argument_is_to_blame_for_is_the_plugins_failure(rich: Engine, operation: str, says: str) -> None:
    with pytest.raises(EncoderError, match=f"mine failed in {operation}: {says}"):
        rich.plugin().call(operation)
    assert rich.view("mine").state is State.ON_DEVICE
    assert rich.plugin().call("spread") == {1, 2}


def test_what_it_does_not_say_of_its_size_is_unknown(site: Path) -> None:
    install(site, "pilot_shouter", EXAMPLE, entry=SHOUTER)
    with over("shouter") as engine:
        engine.plugin().warm()
        view = engine.view("mine")
        assert (view.bytes_on_device, view.bytes_in_ram, view.bytes_total) == (None, None, None)
        engine.unload("mine")
        view = engine.view("mine")
        assert (view.bytes_on_device, view.bytes_in_ram) == (0, 0)
