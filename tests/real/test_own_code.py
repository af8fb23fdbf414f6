"""Python code that comes with a model: what it computes, what it lacks, and that no hub is asked while it runs."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import engine_of
from small_models import bert

from engine import Engine, LoadFailed, State, Unavailable

TEXTS = ["a small flame", "x y z", "it stays lit"]

COMPUTING = """
import torch
from transformers import BertConfig, BertModel


class OwnConfig(BertConfig):
    model_type = "own"


class OwnModel(BertModel):
    config_class = OwnConfig

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        self.register_buffer("scale", torch.arange(64.0) / 64 + 0.5, persistent=False)
        self.plain = torch.linspace(0.5, 1.5, 64)
        self.step = torch.linspace(1.0, 3.0, 3)[1].item()

    def forward(self, *args, **kwargs):
        found = super().forward(*args, **kwargs)
        found.last_hidden_state = found.last_hidden_state * self.scale * self.plain * self.step
        return found
"""
LATE = """
from sentence_transformers.sentence_transformer.modules import Normalize
import torch


class Scaled(Normalize):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.register_buffer("scale", torch.arange(64.0) / 64 + 0.5, persistent=False)
        self.plain = torch.linspace(0.5, 1.5, 64)

    def forward(self, features):
        features["sentence_embedding"] = features["sentence_embedding"] * self.scale * self.plain
        return super().forward(features)
"""
NAMES = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}


@pytest.fixture(autouse=True)
def modules(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own for the code of models."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def own(folder: Path, code: str = COMPUTING, **names: str) -> Path:
    """A BERT whose class is code of its own."""
    bert(folder)
    edit(folder / "config.json", model_type="own", auto_map=NAMES | names)
    (folder / "own.py").write_text(code, encoding="utf-8")
    return folder


def trusting(folder: Path, device: str = "cpu") -> Engine:
    return engine_of("dense", x={"model": str(folder), "trust_remote_code": True, "device": device})


def scaled(folder: Path) -> Any:
    """The vectors that the class gives which is built by hand: those of the plain model, scaled before the pooling."""
    with engine_of("dense", x=bert(folder)) as engine:
        import torch

        model = engine.dense()
        model.warm()

        def scale(adapter: Any) -> Any:
            body = adapter._module[0].auto_model
            forward = body.forward

            def larger(*args: Any, **kwargs: Any) -> Any:
                found = forward(*args, **kwargs)
                factor = (torch.arange(64.0) / 64 + 0.5) * torch.linspace(0.5, 1.5, 64) * 2
                found.last_hidden_state = found.last_hidden_state * factor
                return found

            body.forward = larger

        engine.call("x", scale)
        return model.encode(TEXTS)


def litter() -> None:
    """Leave other numbers in the memory that is free."""
    import torch

    junk = [torch.full((64,), 1e6) for _ in range(2000)]
    del junk


def test_what_the_code_computes_is_as_if_built_by_hand_at_every_load(tmp_path: Path) -> None:
    wanted = scaled(tmp_path / "plain")
    with trusting(own(tmp_path / "own")) as engine:
        for _ in range(3):
            litter()
            assert np.abs(engine.dense().encode(TEXTS) - wanted).max() < 1e-5
            assert engine.offload("x").state is State.IN_RAM, "its weights are mapped from their file"
            assert np.abs(engine.dense().encode(TEXTS) - wanted).max() < 1e-5
            engine.unload("x")


def test_modules_of_its_own_compute_the_same_too(tmp_path: Path) -> None:
    folder = bert(tmp_path / "own")
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[-1]["type"] = "late.Scaled"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "late.py").write_text(LATE, encoding="utf-8")
    with engine_of("dense", x=bert(tmp_path / "plain")) as engine:
        plain = engine.dense().encode(TEXTS) * (np.arange(64) / 64 + 0.5) * np.linspace(0.5, 1.5, 64)
    with trusting(folder) as engine:
        litter()
        found = engine.dense().encode(TEXTS)
    assert np.abs(found - plain / np.linalg.norm(plain, axis=1, keepdims=True)).max() < 1e-5


def test_the_buffers_of_library_classes_are_as_if_built_by_hand(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

    from engine.adapters.base.construction import checked_construction
    from engine.settings.config import EncoderConfig

    config = ModernBertConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, pad_token_id=0
    )
    by_hand = ModernBertModel(config).eval()
    by_hand.save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, "a"))).save_pretrained(
        tmp_path
    )
    litter()
    with checked_construction(EncoderConfig("x", "dense", str(tmp_path)), tmp_path):
        AutoTokenizer.from_pretrained(tmp_path)
        read = ModernBertModel.from_pretrained(tmp_path)
    wanted = dict(by_hand.named_buffers())
    assert wanted
    assert {name: buffer.tolist() for name, buffer in read.named_buffers()} == {
        name: buffer.tolist() for name, buffer in wanted.items()
    }


GONE = "from transformers.modeling_utils import find_pruneable_heads_and_indices\n" + COMPUTING
NO_POST_INIT = """
from transformers import BertConfig, BertModel, PreTrainedModel


class OwnConfig(BertConfig):
    model_type = "own"


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config, **kwargs):
        super().__init__(config)
        self.inner = BertModel(config)
"""


@pytest.mark.parametrize(
    ("code", "names", "says"),
    [
        (GONE, {}, "no find_pruneable_heads_and_indices in transformers.modeling_utils of transformers 5"),
        (NO_POST_INIT, {}, "does not fit .*transformers 5.*AttributeError: 'OwnModel'"),
        ("import transformers.gone\n", {}, "no module transformers.gone in transformers 5"),
        (COMPUTING.replace("super().__init__(config, **kwargs)", "super().__init__(config, old=1)"), {}, "TypeError"),
        (COMPUTING.replace("torch.arange(64.0)", "frob"), {}, "NameError: name 'frob'"),
        ("def (\n", {}, "SyntaxError"),
        (COMPUTING, {"AutoModel": "own.Gone"}, "there is no Gone in own.py"),
        (COMPUTING, {"AutoModel": "gone.OwnModel"}, "there is no gone.py"),
        ("from .helper import x\n" + COMPUTING, {}, "there is no .*helper.py"),
        ("import not_there_a, not_there_b\n", {}, "packages not-there-a and not-there-b are not installed"),
        ("try:\n    import not_there\nexcept ImportError:\n    raise ImportError('more is needed')\n", {}, "not-there"),
    ],
)
def test_code_that_does_not_fit_is_told_and_run_once(
    code: str, names: dict[str, str], says: str, tmp_path: Path
) -> None:
    folder = own(tmp_path / "own", code, **names)
    with trusting(folder) as engine:
        loads = counted(engine)
        for _ in range(5):
            with pytest.raises(Unavailable, match=says) as caught:
                engine.dense().encode(["a"])
            assert caught.value.next_step
            assert engine.view("x").state is State.UNAVAILABLE
        assert len(loads) == 1
        with pytest.raises(Unavailable, match=says):
            engine.retry("x")
        assert len(loads) == 2
        (folder / "own.py").write_text(COMPUTING, encoding="utf-8")
        edit(folder / "config.json", auto_map=NAMES)
        assert engine.dense().encode(["a"]).shape == (1, 64), "and again once a file changed, without a retry"


def counted(engine: Engine) -> list[str | None]:
    """Every load of the encoder from now on."""
    adapter: Any = engine._encoders.find("x").slot._adapter  # type: ignore[attr-defined]
    loads: list[str | None] = []
    load = adapter.load

    def counting(on: str | None = None) -> Any:
        loads.append(on)
        return load(on)

    adapter.load = counting
    return loads


def test_a_package_that_is_installed_meanwhile_needs_no_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "other-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(site))
    with trusting(own(tmp_path / "own", "import not_there_yet\n" + COMPUTING)) as engine:
        with pytest.raises(Unavailable, match="not-there-yet is not installed"):
            engine.dense().encode(["a"])
        (site / "not_there_yet-1.0.dist-info").mkdir()
        (site / "not_there_yet.py").write_text("")
        assert engine.dense().encode(["a"]).shape == (1, 64)


ASKING = COMPUTING.replace(
    "super().__init__(config, **kwargs)\n",
    "super().__init__(config, **kwargs)\n"
    "        from huggingface_hub import hf_hub_download\n"
    "        hf_hub_download('someone/else', 'more.json')\n",
    1,
)


@pytest.mark.parametrize(
    ("code", "names", "says"),
    [
        (COMPUTING, {"AutoModel": "someone/else--own.OwnModel"}, "code of someone/else"),
        (COMPUTING, {"AutoConfig": "someone/else--own.OwnConfig"}, "code of someone/else"),
        (COMPUTING, {"AutoTokenizer": "someone/else--own.OwnTokenizer"}, "code of someone/else"),
        (ASKING, {}, "someone/else on the model hub|files that its folder lacks"),
    ],
)
def test_no_hub_is_asked_for_a_folder_whatever_its_files_name(
    code: str, names: dict[str, str], says: str, tmp_path: Path, asked: list[str]
) -> None:
    with trusting(own(tmp_path / "own", code, **names)) as engine, pytest.raises(Unavailable, match=says) as caught:
        engine.dense().encode(["a"])
    assert caught.value.next_step
    assert asked == []


def test_without_trust_both_things_to_do_are_named(tmp_path: Path, asked: list[str]) -> None:
    folder = own(tmp_path / "own", AutoConfig="someone/else--own.OwnConfig", AutoModel="someone/else--own.OwnModel")
    with engine_of("dense", x=folder) as engine, pytest.raises(Unavailable, match="from someone/else") as caught:
        engine.dense().encode(["a"])
    assert "trust_remote_code = true" in str(caught.value.next_step)
    assert "Copy own.py of someone/else" in str(caught.value.next_step)
    assert asked == []


def test_code_that_ends_the_program_ends_the_load_alone(tmp_path: Path) -> None:
    folder = own(tmp_path / "own", "import sys\nsys.exit(3)\n")
    with trusting(folder) as engine:
        with pytest.raises(LoadFailed, match="ends the program"):
            engine.dense().encode(["a"])
        (folder / "own.py").write_text(COMPUTING, encoding="utf-8")
        assert engine.dense().encode(["a"]).shape == (1, 64), "mended, it works at once"


def test_a_class_that_takes_the_place_of_the_models_own_is_told_in_the_row(tmp_path: Path) -> None:
    folder = bert(tmp_path / "own")
    edit(folder / "config.json", auto_map={"AutoModel": "own.OwnModel"})
    (folder / "own.py").write_text(COMPUTING, encoding="utf-8")
    with engine_of("dense", x=folder) as engine:
        engine.dense().encode(["a"])
        assert "own.OwnModel" in str(engine.view("x").note)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that the hub's library sends; none of them leaves this computer."""
    import httpx2

    found: list[str] = []

    def send(self: Any, request: Any) -> Any:
        found.append(str(request.url))
        raise httpx2.ConnectError("no network in tests")

    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", send)
    return found


def test_other_threads_may_ask_a_hub_meanwhile(tmp_path: Path, asked: list[str]) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    from engine.adapters.base.construction import checked_construction
    from engine.settings.config import EncoderConfig

    def ask() -> None:
        with pytest.raises(LocalEntryNotFoundError):
            hf_hub_download("org/small", "config.json", cache_dir=tmp_path)

    with checked_construction(EncoderConfig("x", "dense", str(tmp_path)), tmp_path):
        ask()
        assert asked == []
        other = threading.Thread(target=ask)
        other.start()
        other.join()
    assert asked
