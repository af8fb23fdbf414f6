"""The commands that ask encoders: the same lines from a running Pilotlight and from an engine in this process."""

from __future__ import annotations

import base64
import io
import json
import sys
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Answer, Config, EncodeAxes, Projection, SparseVector
from engine.events import Events
from tray.cli import access, asking, embed, main as cli

PROBABILITIES = np.array([[0.25, 0.75]], dtype=np.float32)


@dataclass(frozen=True)
class Token:
    text: str
    start: int
    lemma: str | None = None


@dataclass(frozen=True)
class Doc:
    tokens: tuple[Token, ...]


class Found:
    labels = ("no", "yes")

    def __init__(self, count: int = 1) -> None:
        self.probabilities: Any = np.repeat(PROBABILITIES, count, axis=0)
        self.logits = self.probabilities * 8


class FakeProxy:
    """The proxies of all kinds in one class, which answers all texts alike and keeps its arguments in `asked`."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def encode(self, texts: list[str], **fields: Any) -> Any:
        self.asked.append((texts, fields))
        if "top_k" in fields:
            return (SparseVector(np.array([7], np.int32), np.array([0.5], np.float32), ("flame",)),) * len(texts)
        return np.full((len(texts), 2), 1.0 if fields.get("normalize") else 0.5, np.float32)

    def encode_images(self, images: list[bytes]) -> Any:
        self.asked.append(images)
        return np.full((len(images), 2), 0.5, np.float32)

    def score(self, query: str, texts: list[str]) -> Any:
        self.asked.append((query, texts))
        return np.array([0.25, 0.75, 0.5][: len(texts)], np.float32)

    def classify(self, inputs: list[Any]) -> Found:
        self.asked.append(inputs)
        return Found()

    def zero_shot(self, texts: list[str], labels: list[str]) -> Found:
        self.asked.append((texts, labels))
        return Found(len(texts))

    def tag(self, texts: list[str]) -> list[Doc]:
        return [Doc((Token("a", 0),)) for _ in texts]


class FakeEngine:
    """An engine in this process with one proxy for all kinds."""

    proxy: FakeProxy
    closed: list[float]

    def __init__(self, config: Config) -> None:
        self.events = Events()

    def ask(self, name: str | None, operation: EncodeAxes) -> Future[Answer[Projection]]:
        assert name == "x"
        FakeEngine.proxy.asked.append(operation)
        vectors = np.array([[0.25, 0.5]] * operation.size, np.float32)
        answer: Future[Answer[Projection]] = Future()
        answer.set_result(Answer(Projection(vectors, ("worry", "warmth"), 1), "the axes", None))
        return answer

    def __getattr__(self, kind: str) -> Any:
        def found(name: str | None) -> FakeProxy:
            assert name == "x"
            return FakeEngine.proxy

        return found

    def close(self, timeout: float) -> bool:
        FakeEngine.closed.append(timeout)
        return True


class FakeClient:
    """A client of a running Pilotlight, which answers as the routes do."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def encode(self, what: str, **fields: Any) -> dict[str, Any]:
        self.asked.append((what, fields))
        count = len(fields.get("texts", ()))
        answers: dict[str, dict[str, Any]] = {
            "dense": {"vectors": [[1.0, 1.0] if fields.get("normalize") else [0.5, 0.5]]},
            "image": {"vectors": [[0.5, 0.5]] * len(fields.get("images", ()))},
            "rerank": {"scores": [0.25, 0.75, 0.5]},
            "classify": {"labels": [{"no": 0.25, "yes": 0.75}] * len(fields.get("texts", "a"))},
            "tag": {"docs": [{"tokens": [{"text": "a", "start": 0}]}]},
            "sparse": {"sparse": [{"flame": 0.5}]},
            "axes": {"signatures": [[{"axis": "warmth", "weight": 0.5}, {"axis": "worry", "weight": 0.25}]] * count},
        }
        return answers[what]


@pytest.fixture(params=["running", "in-process"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeClient | None:
    """A client while Pilotlight runs, and None while it does not."""
    client = FakeClient() if request.param == "running" else None
    FakeEngine.proxy, FakeEngine.closed = FakeProxy(), []
    monkeypatch.setattr("engine.Engine", FakeEngine)
    monkeypatch.setattr(access, "running", lambda: client)
    return client


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert cli.main([*arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("embed", "a", "--task", "query"), {"text": "a", "embedding": [0.5, 0.5]}),
        (("embed", "a", "--normalize"), {"text": "a", "embedding": [1.0, 1.0]}),
        (("classify", "a"), {"text": "a", "labels": {"yes": 0.75, "no": 0.25}}),
        (("tag", "a"), {"text": "a", "tokens": [{"text": "a", "start": 0}]}),
        (("sparse", "a", "--top", "9"), {"text": "a", "weights": {"flame": 0.5}}),
        (("axes", "a"), {"text": "a", "weights": {"warmth": 0.5, "worry": 0.25}}),
    ],
)
def test_each_text_is_answered_with_one_json_line(
    client: FakeClient | None, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], line: dict[str, Any]
) -> None:
    assert lines(capsys, *arguments, "--encoder", "x") == [line]
    assert FakeEngine.closed == ([] if client else [1.0])


def test_texts_come_back_by_relevance_with_their_place(
    client: FakeClient | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines(capsys, "rerank", "--encoder", "x", "query", "a", "b", "c") == [
        {"index": 1, "score": 0.75, "text": "b"},
        {"index": 2, "score": 0.5, "text": "c"},
        {"index": 0, "score": 0.25, "text": "a"},
    ]


def test_more_texts_than_can_be_compared_are_refused(
    client: FakeClient | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["rerank", "--encoder", "x", "query", *["a"] * 2049]) == 1
    assert "2049 texts are too many" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "asked", "fields"),
    [
        (("--hypothesis", "b"), [("a", "b")], {"pairs": [("a", "b")]}),
        (
            ("--label", "no", "--label", "yes"),
            (["a"], ["no", "yes"]),
            {"texts": ["a"], "candidate_labels": ["no", "yes"]},
        ),
    ],
)
def test_texts_are_judged_beside_another_or_by_labels_of_ones_own(
    client: FakeClient | None,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    asked: Any,
    fields: dict[str, Any],
) -> None:
    assert lines(capsys, "classify", "--encoder", "x", *options, "a")[0]["labels"] == {"yes": 0.75, "no": 0.25}
    if client is None:
        assert FakeEngine.proxy.asked == [asked]
    else:
        assert client.asked == [("classify", {"model": "x", **fields})]


def test_the_numbers_of_a_regression_are_shown_as_values(
    client: FakeClient | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    regression = Found()
    regression.probabilities = None
    monkeypatch.setattr(FakeProxy, "classify", lambda self, inputs: regression)
    monkeypatch.setattr(FakeClient, "encode", lambda self, what, **fields: {"values": [{"no": 2.0, "yes": 6.0}]})
    assert lines(capsys, "classify", "--encoder", "x", "a") == [{"text": "a", "values": {"yes": 6.0, "no": 2.0}}]


@pytest.mark.parametrize(("labels", "sizes"), [(2, [256, 44]), (9, [227, 73]), (3000, [1] * 300)])
def test_no_batch_has_more_texts_times_labels_than_a_request_may(
    client: FakeClient | None, capsys: pytest.CaptureFixture[str], labels: int, sizes: list[int]
) -> None:
    options = [option for number in range(labels) for option in ("--label", str(number))]
    assert len(lines(capsys, "classify", "--encoder", "x", *options, *["a"] * 300)) == 300
    texts = FakeEngine.proxy.asked if client is None else [tuple(fields.values()) for _, fields in client.asked]
    assert [max(len(part) for part in asked if "a" in part) for asked in texts] == sizes


def test_axes_are_asked_about_a_whole_batch_at_once(
    client: FakeClient | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [line["text"] for line in lines(capsys, "axes", "--encoder", "x", "--top", "2", "a", "b", "c")] == [*"abc"]
    if client is None:
        assert FakeEngine.proxy.asked == [EncodeAxes(["a", "b", "c"], top_k=2)]
    else:
        assert client.asked == [("axes", {"texts": ["a", "b", "c"], "model": "x", "top_k": 2})]


def test_pictures_are_read_here_and_sent_whole(
    client: FakeClient | None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG")
    assert lines(capsys, "embed-image", "--encoder", "x", str(file)) == [{"image": str(file), "embedding": [0.5, 0.5]}]
    if client is None:
        assert FakeEngine.proxy.asked == [[b"\x89PNG"]]
    else:
        assert client.asked == [("image", {"images": [base64.b64encode(b"\x89PNG").decode()], "model": "x"})]


def test_pictures_that_are_too_many_for_one_request_are_sent_in_several(
    client: FakeClient | None, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "_REQUEST_BYTES", 10)
    for name, size in (("a", 6), ("b", 4), ("c", 40), ("d", 1)):
        (tmp_path / name).write_bytes(b"x" * size)
    files = [str(tmp_path / name) for name in "abcd"]
    assert [line["image"] for line in lines(capsys, "embed-image", "--encoder", "x", *files)] == files
    if client is not None:
        assert [len(fields["images"]) for _, fields in client.asked] == [2, 1, 1]


def test_a_picture_that_is_not_there_is_named(
    client: FakeClient | None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["embed-image", "--encoder", "x", str(tmp_path / "none.png")]) == 1
    assert "none.png could not be read: No such file or directory." in capsys.readouterr().err


def test_texts_of_standard_input_are_asked_about_in_batches(
    client: FakeClient | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "BATCH", 1)
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\nb\r\n"))
    assert [line["text"] for line in lines(capsys, "embed", "--encoder", "x")] == ["a", "b"]
