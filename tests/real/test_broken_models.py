"""Models that are missing or damaged, and how they come back."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from expected import Reference
from running import Home, Running
from small_models import bert

from engine.adapters.kinds.dense import DenseAdapter
from engine.devices.placement import CPU, Placement
from engine.errors import EncoderError, LoadFailed, Unavailable
from engine.settings.config import EncoderConfig

SETTINGS = """\
[hardware]
device = "cpu"
idle_timeout_seconds = 0

[encoders.gone]
kind = "dense"
model = "{folder}/gone"

[encoders.torn]
kind = "dense"
model = "{folder}/torn"
"""


def test_a_missing_and_a_damaged_model_are_told_apart_and_come_back_when_repaired(
    start: Callable[..., Running], home: Home, reference: Reference
) -> None:
    weights = Path(reference.weights)
    torn = home.folder / "torn"
    shutil.copytree(weights.parent, torn)
    with (torn / weights.name).open("r+b") as file:
        file.truncate(1_000_000)
    running = start(settings=SETTINGS.format(folder=home.folder))

    missing = running.embed("x", model="gone")
    assert missing.status_code == 503
    assert "Retry-After" not in missing.headers
    assert missing.json()["error"]["type"] == "api_error"
    component = running.component("gone")
    assert component["state"] == component["status"] == "unavailable"
    assert str(home.folder / "gone") in component["error"]["message"]
    assert component["error"]["next_step"]
    assert component["error"]["retry_in_seconds"] is None
    assert running.maps("libtorch") == [], "a missing folder is found without torch"

    failed = running.embed("x", model="torn")
    assert failed.status_code == 503
    assert 1 <= int(failed.headers["Retry-After"]) <= 5
    component = running.component("torn")
    assert component["state"] == component["status"] == "failed"
    assert component["loads"] == 0
    assert component["bytes_on_device"] == component["bytes_in_ram"] == 0
    assert component["error"]["title"] == "Load failed"
    assert "torn could not be loaded" in component["error"]["message"]
    assert component["error"]["next_step"]
    assert 0 < component["error"]["retry_in_seconds"] <= 5
    assert running.maps(str(torn)) == []

    waiting = running.embed("x", model="torn")
    assert waiting.status_code == 503
    assert running.printed.count("torn could not be brought up") == 1, "no retry within the delay"

    again = running.control("components/torn/retry")
    assert again.status_code == 503
    assert running.component("torn")["error"]["retry_in_seconds"] > 5, "the delay grows"

    shutil.copyfile(weights, torn / weights.name)
    mended = running.control("components/torn/retry")
    assert mended.status_code == 200
    assert mended.json()["result"] == "done"
    component = running.component("torn")
    assert (component["state"], component["error"], component["loads"]) == ("on_device", None, 1)
    vectors = running.embed(reference.texts, model="torn").json()["data"]
    assert reference.agrees([item["embedding"] for item in vectors])

    shutil.copytree(weights.parent, home.folder / "gone")
    assert running.embed("x", model="gone").status_code == 200, "what was missing is there now"


@pytest.fixture
def load(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., DenseAdapter]]:
    """Loads a folder as a dense encoder; our cache is the test's own, and standard input fails the test."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "stdin", None)
    adapters: list[DenseAdapter] = []

    def begin(folder: Path, **settings: Any) -> DenseAdapter:
        adapters.append(DenseAdapter(EncoderConfig("small", "dense", str(folder), **settings), CPU))
        adapters[-1].probe()
        adapters[-1].load()
        return adapters[-1]

    yield begin
    for adapter in adapters:
        adapter.unload()


def _without_config(folder: Path) -> None:
    for name in ("config.json", "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "1_Pooling")
    (folder / "tokenizer_config.json").unlink()


def _without_a_shard(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def _with_a_corrupt_header(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.write((200).to_bytes(8, "little") + b"{not json" * 30)


def _with_weights_of_another_shape(folder: Path) -> None:
    _edit(folder / "config.json", intermediate_size=128)


def _with_fewer_layers_than_configured(folder: Path) -> None:
    _edit(folder / "config.json", num_hidden_layers=3)


def _with_a_module_of_another_shape(folder: Path) -> None:
    _edit(folder / "2_Dense" / "config.json", out_features=16)


def _without_the_configuration_of_the_body(folder: Path) -> None:
    (folder / "config.json").unlink()


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "tf_model.h5")


def _without_anything(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _without_a_vocabulary(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _without_any_file_of_the_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def _with_a_tokenizer_of_sentencepiece_and_no_file_of_it(folder: Path) -> None:
    _edit(folder / "tokenizer_config.json", tokenizer_class="T5Tokenizer")
    (folder / "tokenizer.json").unlink()


def _with_a_tokenizer_that_no_library_has(folder: Path) -> None:
    _edit(folder / "tokenizer_config.json", tokenizer_class="FrobTokenizer")
    (folder / "tokenizer.json").unlink()


def _without_the_configuration_of_a_module(folder: Path) -> None:
    shutil.rmtree(folder / "1_Pooling")


def _of_a_type_that_nobody_knows(folder: Path) -> None:
    _edit(folder / "config.json", model_type="frobnicator")


def _with_a_module_that_nobody_knows(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[1]["type"] = "sentence_transformers.models.Foo"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")


def _with_an_activation_that_nobody_knows(folder: Path) -> None:
    _edit(folder / "config.json", hidden_act="frobu")


def _with_a_width_that_no_heads_share(folder: Path) -> None:
    _edit(folder / "config.json", hidden_size=30)


def _with_a_word_for_a_number(folder: Path) -> None:
    _edit(folder / "config.json", hidden_size="wide")


def _quantised(folder: Path) -> None:
    _edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def _with_flash_attention(folder: Path) -> None:
    _edit(folder / "config.json", attn_implementation="flash_attention_2")


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "how", "said"),
    [
        (_with_a_corrupt_header, {}, "its header is not JSON"),
        (_with_weights_of_another_shape, {}, "another shape than the configuration says"),
        (_with_a_module_of_another_shape, {"dense": True}, "another shape than the configuration says"),
        (_with_fewer_layers_than_configured, {}, "lack encoder.layer.2"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_folder_says_what_is_wrong_and_what_to_do(
    damage: Callable[[Path], None],
    how: dict[str, Any],
    said: str,
    load: Callable[..., DenseAdapter],
    tmp_path: Path,
) -> None:
    folder = bert(tmp_path / "model", **how)
    damage(folder)
    with pytest.raises(LoadFailed, match=said) as caught:
        load(folder)
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without_a_shard, "lacks model-00002-of-"),
        (_without_weights, "no weights, only tf_model.h5"),
        (_without_anything, "is empty"),
        (_without_config, "no config.json"),
        (_without_the_configuration_of_the_body, "lacks config.json"),
        (_without_a_vocabulary, "lacks the files of its tokenizer"),
        (_without_any_file_of_the_tokenizer, "lacks the files of its tokenizer"),
        (_with_a_tokenizer_of_sentencepiece_and_no_file_of_it, "lacks the files of its tokenizer"),
        (_with_a_tokenizer_that_no_library_has, "lacks the files of its tokenizer"),
        (_without_the_configuration_of_a_module, "lacks 1_Pooling/config.json"),
        (_of_a_type_that_nobody_knows, "type frobnicator, which .*transformers 5"),
        (_with_a_module_that_nobody_knows, 'does not define a "Foo"'),
        (_with_an_activation_that_nobody_knows, "KeyError: 'frobu'"),
        (_with_a_width_that_no_heads_share, "not a multiple"),
        (_with_a_word_for_a_number, "hidden_size"),
        (_quantised, "quantised .bitsandbytes., which is not supported"),
        (_with_flash_attention, "needs more: the package flash-attn is not installed"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_folder_that_lacks_a_file_or_names_what_nobody_has_is_unavailable(
    damage: Callable[[Path], None], said: str, load: Callable[..., DenseAdapter], tmp_path: Path
) -> None:
    folder = bert(tmp_path / "model", layout="sharded" if damage is _without_a_shard else "safetensors")
    damage(folder)
    with pytest.raises(Unavailable, match=said) as caught:
        load(folder)
    assert caught.value.next_step


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "1_Pooling/config.json"])
def test_a_small_file_that_is_half_there_may_be_whole_later(
    name: str, load: Callable[..., DenseAdapter], tmp_path: Path
) -> None:
    folder = bert(tmp_path / "model")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises((LoadFailed, Unavailable), match=f"{name} (is damaged|cannot be read)"):
        load(folder)
    (folder / name).write_bytes(whole)
    load(folder)


def test_a_file_where_a_folder_should_be_says_so(load: Callable[..., DenseAdapter], tmp_path: Path) -> None:
    folder = bert(tmp_path / "model")
    with pytest.raises(Unavailable, match="is a file") as caught:
        load(folder / "model.safetensors")
    assert "folder" in str(caught.value.next_step)


def test_a_pooler_that_nothing_reads_may_be_missing(load: Callable[..., DenseAdapter], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = bert(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    body = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler.")}
    assert len(body) < len(weights)
    save_file(body, folder / "model.safetensors", {"format": "pt"})
    adapter = load(folder)
    adapter.resume(Placement(CPU))
    assert adapter.encode(["a"]).vectors.shape == (1, 64)


@pytest.mark.parametrize("wanted", ["AutoModelForSequenceClassification", "AutoModelForMaskedLM"])
def test_a_head_that_the_files_lack_is_never_made_up(wanted: str, tmp_path: Path) -> None:
    import transformers

    from engine.adapters.base.construction import checked_construction

    folder = bert(tmp_path / "model")
    config = EncoderConfig("judge", "classify", str(folder))
    with pytest.raises(Unavailable, match="no weights for the head") as caught, checked_construction(config, folder):
        getattr(transformers, wanted).from_pretrained(folder)
    assert "classify" in str(caught.value.next_step)
    again = getattr(transformers, wanted).from_pretrained(folder)
    assert again is not None, "outside, the library does as it always did"


def test_the_key_that_trusts_a_model_belongs_to_the_entry_and_not_to_a_part_of_it(tmp_path: Path) -> None:
    from engine.adapters.base.construction import checked_construction

    encoder = EncoderConfig("p", "image_text", str(tmp_path))
    for config in (encoder, *encoder.components):
        with pytest.raises(Unavailable) as caught, checked_construction(config, tmp_path):
            raise ValueError("Please pass the argument `trust_remote_code=True`")
        assert "trust_remote_code = true under [encoders.p] in" in str(caught.value.next_step)


def test_the_code_of_a_model_runs_only_where_the_settings_trust_it_and_nobody_is_asked(
    load: Callable[..., DenseAdapter], tmp_path: Path
) -> None:
    folder = bert(tmp_path / "model")
    _edit(
        folder / "config.json",
        model_type="own",
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"},
    )
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(
        f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
        "from transformers import BertConfig, BertModel\n\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own'\n\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n",
        encoding="utf-8",
    )
    with pytest.raises(EncoderError, match="needs Python code of its own") as caught:
        load(folder)
    assert "trust_remote_code = true" in str(caught.value.next_step)
    assert not ran.exists()
    adapter = load(folder, trust_remote_code=True)
    adapter.resume(Placement(CPU))
    assert adapter.encode(["a"]).vectors.shape == (1, 64)
    assert ran.exists()
