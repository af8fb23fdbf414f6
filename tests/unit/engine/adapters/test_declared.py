"""What is read of a model's folder before anything is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.sources import declared
from engine.adapters.sources.declared import Declared
from engine.encoders.availability import missing
from engine.settings.config import EncoderConfig

LIBRARY = "sentence_transformers.models"


def put(folder: Path, **files: Any) -> Path:
    """Write JSON files; in a keyword `__` is a dot and `_in_` a slash."""
    for name, value in files.items():
        file = folder / f"{name.replace('_in_', '/').replace('__', '.')}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return folder


def listed(*modules: tuple[str, str]) -> list[dict[str, str]]:
    return [{"idx": str(index), "name": name, "path": name, "type": kind} for index, (name, kind) in enumerate(modules)]


def test_an_empty_folder_states_nothing_and_a_missing_one_neither(tmp_path: Path) -> None:
    assert declared.read(tmp_path) == Declared()
    assert declared.read(tmp_path / "nowhere") == Declared()


def test_the_facts_of_a_configuration(tmp_path: Path) -> None:
    said = {"architectures": ["AForB"], "model_type": "a", "id2label": {"0": "x", "1": "y"}, "vision_config": {}}
    found = declared.read(put(tmp_path, config__json=said | {"problem_type": "regression", "is_encoder_decoder": True}))
    assert (found.configured, found.architecture, found.model_type, found.labels) == (True, "AForB", "a", ("x", "y"))
    assert (found.problem_type, found.encoder_decoder, found.vision) == ("regression", True, True)


@pytest.mark.parametrize("text", ["{", "[]", "null", "\x00"])
@pytest.mark.parametrize("name", ["config.json", "modules.json", "config_sentence_transformers.json"])
def test_a_file_that_is_no_object_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = declared.read(tmp_path)
    assert found.unreadable == name or (found.modules == () and text == "[]")


@pytest.mark.parametrize(
    ("files", "there"),
    [
        (["tokenizer.json"], True),
        (["vocab.txt"], True),
        (["vocab.json", "merges.txt"], True),
        (["sentencepiece.bpe.model"], True),
        (["spiece.model"], True),
        (["qwen.tiktoken"], True),
        (["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"], False),
        ([], False),
    ],
)
def test_a_vocabulary_is_known_by_the_name_of_its_file(tmp_path: Path, files: list[str], there: bool) -> None:
    put(tmp_path, config__json={"architectures": ["A"]})
    for name in files:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    assert declared.read(tmp_path).vocabulary is there


def test_each_body_needs_a_vocabulary_and_a_table_of_vectors_has_its_own(tmp_path: Path) -> None:
    bodies = listed(("q", f"{LIBRARY}.Transformer"), ("d", f"{LIBRARY}.Transformer"))
    put(tmp_path / "two", modules__json=bodies, q_in_tokenizer__json={})
    assert not declared.read(tmp_path / "two").vocabulary
    assert declared.read(put(tmp_path / "two", d_in_tokenizer__json={})).vocabulary
    assert declared.read(put(tmp_path / "table", modules__json=listed(("t", f"{LIBRARY}.StaticEmbedding")))).vocabulary


@pytest.mark.parametrize(
    "said", [{"tokenizer_class": "ByT5Tokenizer"}, {"auto_map": {"AutoTokenizer": ["own.T", None]}}]
)
def test_some_tokenizers_need_no_vocabulary_or_read_it_their_own_way(tmp_path: Path, said: dict[str, Any]) -> None:
    assert declared.read(put(tmp_path, tokenizer_config__json=said)).vocabulary


def test_the_body_of_modules_may_be_in_a_folder_of_its_own(tmp_path: Path) -> None:
    put(
        tmp_path,
        modules__json=listed(("0_Transformer", f"{LIBRARY}.Transformer"), ("1_Pooling", f"{LIBRARY}.Pooling")),
        **{"0_Transformer_in_config__json": {"architectures": ["BertModel"]}, "1_Pooling_in_config__json": {}},
    )
    found = declared.read(tmp_path)
    assert found.architecture == "BertModel"
    assert found.modules is not None
    assert [module.lacks for module in found.modules] == [None, None]
    assert not found.vocabulary
    put(tmp_path, **{"0_Transformer_in_tokenizer__json": {}})
    assert declared.read(tmp_path).vocabulary


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("Transformer", "config.json"),
        ("Pooling", "config.json"),
        ("SpladePooling", "config.json"),
        ("Dense", "config.json"),
        ("StaticEmbedding", "tokenizer.json"),
        ("LSTM", "lstm_config.json"),
        ("Router", "router_config.json"),
        ("Normalize", None),
        ("Dropout", None),
    ],
)
def test_a_module_lacks_the_file_that_its_class_reads(tmp_path: Path, kind: str, file: str | None) -> None:
    found = declared.read(put(tmp_path, modules__json=listed(("place", f"{LIBRARY}.{kind}"))))
    assert found.modules is not None
    assert found.modules[0].lacks == (file and f"place/{file}")


def test_a_dense_needs_its_weights_in_one_of_two_forms(tmp_path: Path) -> None:
    put(tmp_path, modules__json=listed(("d", f"{LIBRARY}.Dense")), d_in_config__json={"out_features": 3})
    assert (declared.read(tmp_path).modules or ())[0].lacks == "d/model.safetensors"
    (tmp_path / "d" / "pytorch_model.bin").touch()
    dense = (declared.read(tmp_path).modules or ())[0]
    assert (dense.lacks, dense.width) == (None, 3)


@pytest.mark.parametrize("path", ["../other", "/etc", "a/../../b"])
def test_a_module_outside_of_the_folder_counts_as_missing(tmp_path: Path, path: str) -> None:
    found = declared.read(put(tmp_path, modules__json=[{"path": path, "type": f"{LIBRARY}.Normalize"}]))
    assert (found.modules or ())[0].lacks == path


def test_the_modules_of_a_router_count_and_one_that_names_itself_ends(tmp_path: Path) -> None:
    types = {"": f"{LIBRARY}.Router", "q": f"{LIBRARY}.SparseStaticEmbedding", "d": "own.Thing"}
    put(tmp_path, modules__json=[{"path": "", "type": f"{LIBRARY}.Router"}], router_config__json={"types": types})
    found = declared.read(tmp_path)
    assert [(module.name, module.path, module.is_own) for module in found.modules or ()] == [
        ("Router", "", False),
        ("Router", "", False),
        ("SparseStaticEmbedding", "q", False),
        ("Thing", "d", True),
    ]


def test_foreign_code_is_found_wherever_it_is_named(tmp_path: Path) -> None:
    put(
        tmp_path,
        config__json={
            "auto_map": {"AutoModel": "z/config--own.Model", "AutoConfig": "own.Config"},
            "text_config": {"auto_map": {"AutoConfig": "y/part--own.Config"}},
        },
        tokenizer_config__json={"auto_map": {"AutoTokenizer": ["x/tokenizer--own.Slow", None]}},
        modules__json=listed(("m", "w/module--own.Thing")),
        m_in_preprocessor_config__json={"auto_map": {"AutoProcessor": "v/processor--own.Processor"}},
        m_in_router_config__json={"types": {"q": "u/route--own.Way"}},
    )
    found = declared.read(tmp_path)
    repositories = {code.repository for code in found.code if code.repository}
    assert repositories == {"u/route", "v/processor", "w/module", "x/tokenizer", "y/part", "z/config"}
    assert {code.reference for code in found.code if code.repository is None} == {"own.Config"}


def test_a_stray_configuration_names_no_code(tmp_path: Path) -> None:
    stray = {"auto_map": {"AutoModel": "someone/else--own.Model"}}
    put(tmp_path, config__json={"model_type": "bert"}, config__old__json=stray, my_config_backup__json=stray)
    assert declared.read(tmp_path).code == ()


def test_code_in_the_folder_itself_is_of_no_repository(tmp_path: Path) -> None:
    found = declared.read(put(tmp_path, config__json={"auto_map": {"AutoModel": "modeling.Own"}}))
    assert [code.repository for code in found.code] == [None]


def test_weights_are_asked_for_their_names_only_without_an_architecture(tmp_path: Path) -> None:
    index = {"weight_map": {"bert.encoder.layer.0.weight": "a", "classifier.weight": "a"}}
    put(tmp_path, config__json={"model_type": "bert"}, model__safetensors__index__json=index)
    assert declared.read(tmp_path).tensors == {"bert.encoder", "classifier.weight"}
    put(tmp_path, config__json={"architectures": ["BertModel"]})
    assert declared.read(tmp_path).tensors == frozenset()


def test_an_adapter_names_its_base_wherever_it_is(tmp_path: Path) -> None:
    said = {"base_model_name_or_path": "org/base"}
    assert declared.read(put(tmp_path / "a", adapter_config__json=said)).adapter == "org/base"
    assert declared.read(put(tmp_path / "b", adapter_config__json="{")).adapter == ""
    nested = put(tmp_path / "c", modules__json=listed(("0", f"{LIBRARY}.Transformer")))
    assert declared.read(put(nested, **{"0_in_adapter_config__json": said})).adapter == "org/base"


@pytest.mark.parametrize("kind", ["dense", "sparse", "multi", "image_text", "tag"])
def test_the_row_of_an_encoder_names_the_right_kind_before_its_first_use(tmp_path: Path, kind: str) -> None:
    put(tmp_path, config__json={"architectures": ["BertForSequenceClassification"]}, tokenizer__json={})
    error = missing(EncoderConfig("one", kind, str(tmp_path)))
    assert error is not None
    assert 'kind = "classify"' in str(error.next_step)


def test_reading_imports_no_heavy_library() -> None:
    code = (
        "import sys; from engine.adapters.sources import declared, fit;"
        "print([m for m in ('torch', 'transformers', 'numpy', 'safetensors', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
