"""JSON answers: numpy of every layout, the same bytes as in one piece, and no piece that holds others up."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from engine.errors import LoadFailed
from engine.http.responses import _pieces, json_response, json_response_off_loop
from engine.weights.files.identity import Identity

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3) / 4


@pytest.mark.parametrize(
    "content",
    [
        None,
        "text",
        {},
        [],
        {"a": {}, "b": [], 3: None, "ü": [[], {}]},
        {"rows": ROWS, "one": ROWS[0], "scalar": ROWS[0, 1], "none": ROWS[:0], "flat": ROWS[:, :0]},
        [{"index": index, "embedding": row} for index, row in enumerate(ROWS)],
        {"many": list(range(20_000)), "pairs": [(index, str(index)) for index in range(5_000)]},
        {f"key {index}": index for index in range(5_000)},
    ],
)
def test_an_answer_is_what_it_would_be_in_one_piece(content: Any) -> None:
    whole = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    assert json_response(content).body == whole


@pytest.mark.parametrize("place", [lambda array: array, lambda array: {"a": [{"b": array}]}, lambda array: [array]])
def test_arrays_of_every_layout_are_written(place: Any) -> None:
    for array in (ROWS.T, ROWS[::2], ROWS[::-1], ROWS.astype(">f4"), np.asfortranarray(ROWS), np.array(2.5)):
        assert json.loads(json_response(place(array)).body) == place(array.tolist())


@pytest.mark.parametrize("wrong", [{1}, [object()], {"a": np.array([object()])}, np.array(["a"]), {"a": 1j}])
def test_what_json_does_not_know_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError):
        json_response(wrong)


def test_an_error_and_a_change_of_a_file_name_it_in_text(tmp_path: Path) -> None:
    error = LoadFailed("/r\udce9 is cut short.", next_step="Copy /r\udce9 again.")
    assert (error.message, error.next_step) == ("/r\\udce9 is cut short.", "Copy /r\\udce9 again.")
    assert str(error).encode()
    file = tmp_path / "model.safetensors"
    file.touch()
    gone = replace(Identity.of(file), path=tmp_path / "r\udce9")
    assert str(gone.changed()).endswith("r\\udce9 was deleted")


def test_no_piece_of_a_large_answer_is_large() -> None:
    vectors = np.ones((20_000, 16), dtype=np.float32)
    content = {"vectors": vectors, "data": [{"embedding": row} for row in vectors], "docs": [{"tokens": [vectors]}]}
    assert max(map(len, _pieces(content))) < 1000


def test_an_answer_is_built_beside_the_event_loop() -> None:
    threads = []

    def build() -> dict[str, int]:
        threads.append(threading.get_ident())
        return {"a": 1}

    assert asyncio.run(json_response_off_loop(build)).body == b'{"a":1}'
    assert threads != [threading.get_ident()]
