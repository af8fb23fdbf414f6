"""Errors of a library that makes a model, as the user reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.adapters.base.construction import checked_construction
from engine.errors import LoadFailed, Unavailable
from engine.settings.config import EncoderConfig


def raised(folder: Path, error: Exception) -> Exception:
    """The error that the user meets where a library raises `error` about a folder with modules."""
    (folder / "2_Normalize").mkdir()
    modules = [("", "Transformer"), ("2_Normalize", "Normalize")]
    listed = [{"path": path, "type": f"sentence_transformers.models.{name}"} for path, name in modules]
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(Exception) as caught, checked_construction(EncoderConfig("mine", "dense", str(folder)), folder):  # noqa: PT011
        raise error
    return caught.value


def test_a_damaged_file_that_is_part_of_the_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    error = raised(tmp_path, RuntimeError("expected value at line 1"))
    assert isinstance(error, LoadFailed)
    assert "tokenizer.json is damaged" in error.message


def test_a_damaged_file_that_no_library_reads_is_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("{", encoding="utf-8")
    error = RuntimeError("out of luck")
    assert raised(tmp_path, error) is error


def test_a_module_without_settings_is_not_blamed_for_lacking_a_file_of_them(tmp_path: Path) -> None:
    error = raised(tmp_path, TypeError("unsupported operand"))
    assert isinstance(error, Unavailable)
    assert "unsupported operand" in error.message
