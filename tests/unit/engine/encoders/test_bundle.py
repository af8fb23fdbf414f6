"""One text in every form: what is asked of whom, in which order, and what comes back where something is not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from engine_fakes import LIMIT, FakeAdapter, FakeReader, failure, started

from engine import Closed, Engine, InvalidInput, LoadFailed, UnknownEncoder, parse
from engine.adapters.context import AdapterContext
from engine.adapters.kinds.axes import AxesAdapter
from engine.adapters.protocol import Adapter, Loaded
from engine.operations.bundle import EncodeBundle
from engine.operations.dense import Encoding
from engine.operations.multi import MultiEncoding
from engine.operations.sparse import SparseEncoding, SparseVector
from engine.settings.config import EncoderConfig

DENSE = {"kind": "dense", "model": "org/words"}
SPARSE = {"kind": "sparse", "model": "org/words"}
AXES = {"kind": "axes", "base": "minilm", "axes": [{"name": "a", "anchor": "1 2"}, {"name": "b", "anchor": "2 3"}]}
MULTI = {"kind": "multi", "model": "org/words"}


class FakeReaderOfNumbers(FakeAdapter):
    """A text is numbers, which are its token ids; `asked` holds what each use was given."""

    def __init__(self, config: EncoderConfig, device: str, log: list[tuple[str, str, Any]]) -> None:
        super().__init__(config, "cpu" if device == "auto" else device)
        self.name = config.name
        self.log = log
        self.prompts: dict[str | None, str] = {}
        self.tokenizer_key: str | None = config.model

    def load(self, on: str | None = None) -> Loaded:
        super().load(on)
        return Loaded(self.stands_on, f"{self.name}-1", 0.0, 0.0)

    @property
    def revision(self) -> str | None:
        return f"{self.name}-1"

    def prompt(self, task: str | None = None) -> str:
        return self.prompts.get(task, "")

    def tokenize(self, text: str, task: str | None = None) -> list[int]:
        self.log.append((self.name, "tokenize", text))
        return [int(number) for number in text.split()]

    def encode(
        self, inputs: Sequence[Any], *, task: str | None = None, dimensions: int | None = None, truncate: bool = True
    ) -> Any:
        self.log.append((self.name, "encode", inputs[0]))
        self._run("encode")
        return Encoding(np.stack([self._vector(one) for one in inputs]), 0)

    def encode_sparse(
        self, inputs: Sequence[Any], *, task: str | None = None, top_k: int = 128, truncate: bool = True
    ) -> Any:
        self.log.append((self.name, "encode_sparse", inputs[0]))
        self._run("encode_sparse")
        return SparseEncoding(tuple(self._sparse(one, top_k) for one in inputs), 0)

    def encode_multi(
        self, texts: Sequence[str], *, want: Any, top_k: int | None = None, truncate: bool = True
    ) -> MultiEncoding:
        self.log.append((self.name, "encode_multi", tuple(sorted(want))))
        dense = np.stack([self._vector(one) for one in texts])
        return MultiEncoding(dense, tuple(self._sparse(one, top_k) for one in texts), None, 0)

    def _sparse(self, one: Any, top_k: int | None) -> SparseVector:
        ids = self._ids(one)[:top_k]
        return SparseVector(np.asarray(ids, np.int32), np.ones(len(ids), np.float32), tuple(map(str, ids)))

    def _vector(self, one: Any) -> Any:
        ids = self._ids(one)
        return np.asarray([sum(ids), len(ids), 1.0], dtype=np.float32)

    def _ids(self, one: Any) -> list[int]:
        return [int(number) for number in one.split()] if isinstance(one, str) else list(one)


class Bench:
    def __init__(self, **encoders: dict[str, Any]) -> None:
        self.log: list[tuple[str, str, Any]] = []
        self.built: dict[str, Any] = {}
        self.engine = Engine(parse({"encoders": encoders}), adapter=self._build, reader=FakeReader())

    def _build(self, config: EncoderConfig, device: str, context: AdapterContext) -> Adapter:
        if config.kind == "axes":
            made: Any = AxesAdapter(config, device, context)
        else:
            made = FakeReaderOfNumbers(config, device, self.log)
        self.built[config.name] = made
        return made  # type: ignore[no-any-return]

    def calls(self, call: str) -> list[tuple[str, Any]]:
        return [(name, what) for name, done, what in self.log if done == call]


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    found: list[Bench] = []
    yield found
    for bench in found:
        bench.engine.close()


@pytest.fixture
def bench(benches: list[Bench]) -> Bench:
    benches.append(Bench(minilm=DENSE, splade=SPARSE, sema=AXES))
    return benches[-1]


def test_a_bundle_holds_what_separate_calls_give(bench: Bench) -> None:
    engine = bench.engine
    found = engine.bundle("7 8 9", top_k=2)
    assert found.dense is not None
    assert found.axes is not None
    assert found.sparse is not None
    assert np.array_equal(found.dense, engine.dense().encode(["7 8 9"])[0])
    assert np.array_equal(found.axes, engine.axes().encode(["7 8 9"])[0])
    assert found.sparse.tokens == ("7", "8")
    assert found.axis_names == ("a", "b")
    assert found.encoders == {"dense": "minilm", "sparse": "splade", "axes": "sema"}
    assert found.revisions["dense"] == "minilm-1"
    assert found.revisions["sparse"] == "splade-1"
    assert str(found.revisions["axes"]).startswith("minilm-1+axes.")


def test_equal_tokenizers_read_the_text_once(bench: Bench) -> None:
    bench.engine.bundle("7 8 9")
    assert bench.calls("tokenize") == [("minilm", "7 8 9")]
    assert ("minilm", [7, 8, 9]) in bench.calls("encode")
    assert bench.calls("encode_sparse") == [("splade", [7, 8, 9])]


def test_axes_take_the_dense_vector_and_ask_their_base_for_anchors_alone(bench: Bench) -> None:
    bench.engine.bundle("7 8 9")
    bench.engine.bundle("4 5")
    assert bench.calls("encode") == [("minilm", [7, 8, 9]), ("minilm", "1 2"), ("minilm", [4, 5])]


@pytest.mark.parametrize("name", ["minilm", "splade"])
def test_behind_a_prompt_no_tokens_are_shared(bench: Bench, name: str) -> None:
    bench.built[name].prompts = {"query": "query: "}
    bench.engine.bundle("7 8 9")
    assert bench.calls("encode_sparse") == [("splade", "7 8 9")]
    bench.log.clear()
    bench.engine.bundle("7 8 9", task="passage")
    assert bench.calls("encode_sparse") == [("splade", [7, 8, 9])]


@pytest.mark.parametrize("key", ["another", None])
def test_other_tokenizers_read_the_text_themselves(bench: Bench, key: str | None) -> None:
    bench.built["splade"].tokenizer_key = key
    bench.engine.bundle("7 8 9")
    assert bench.calls("encode_sparse") == [("splade", "7 8 9")]


def test_an_encoder_without_a_known_tokenizer_reads_the_text_itself(bench: Bench) -> None:
    bench.built["minilm"].tokenizer_key = None
    bench.engine.bundle("7 8 9")
    assert bench.calls("tokenize") == []
    assert bench.calls("encode_sparse") == [("splade", "7 8 9")]


def test_of_a_text_that_one_does_not_read_to_its_end_the_other_reads_more_itself(bench: Bench) -> None:
    bench.built["minilm"].max_tokens = 2
    bench.engine.bundle("7 8 9")
    assert bench.calls("encode_sparse") == [("splade", "7 8 9")]


def test_an_empty_text_has_no_tokens_to_share(bench: Bench) -> None:
    found = bench.engine.bundle("")
    assert bench.calls("encode")[0] == ("minilm", "")
    assert bench.calls("encode_sparse") == [("splade", "")]
    assert found.sparse is not None
    assert len(found.sparse) == 0


def test_kinds_that_are_not_configured_are_left_out(benches: list[Bench]) -> None:
    bench = Bench(minilm=DENSE, sema=AXES)
    benches.append(bench)
    found = bench.engine.bundle("7")
    assert found.sparse is None
    assert set(found.encoders) == set(found.revisions) == {"dense", "axes"}
    assert bench.calls("tokenize") == []


def test_sparse_alone_is_a_bundle_too(benches: list[Bench]) -> None:
    bench = Bench(splade=SPARSE)
    benches.append(bench)
    found = bench.engine.bundle("7")
    assert (found.dense, found.axes, found.axis_names) == (None, None, ())
    assert found.sparse is not None


def test_an_encoder_of_many_forms_is_asked_once_for_both(benches: list[Bench]) -> None:
    bench = Bench(m3=MULTI, sema={**AXES, "base": "m3"})
    benches.append(bench)
    found = bench.engine.bundle("7 8")
    assert bench.calls("encode_multi") == [("m3", ("dense", "sparse"))]
    assert bench.calls("encode") == [("m3", "1 2")]
    assert bench.calls("encode_sparse") == []
    assert found.encoders == {"dense": "m3", "sparse": "m3", "axes": "sema"}
    assert found.axes is not None
    np.testing.assert_allclose(found.axes, bench.engine.axes().encode(["7 8"])[0], atol=1e-6)


def test_axes_on_another_base_ask_that_one(benches: list[Bench]) -> None:
    bench = Bench(other=DENSE, minilm=DENSE | {"model": "org/more"}, sema=AXES)
    benches.append(bench)
    found = bench.engine.bundle("7 8", models={"dense": "other"})
    assert bench.calls("encode") == [("other", "7 8"), ("minilm", "1 2"), ("minilm", "7 8")]
    assert found.encoders["dense"] == "other"


def test_an_alias_of_the_base_is_the_base(benches: list[Bench]) -> None:
    bench = Bench(minilm=DENSE | {"aliases": ["small"]}, sema=AXES | {"base": "small"})
    benches.append(bench)
    bench.engine.bundle("7 8", models={"dense": "small"})
    assert bench.calls("encode") == [("minilm", "7 8"), ("minilm", "1 2")]


def test_encoders_on_one_device_compute_one_after_the_other(bench: Bench) -> None:
    bench.engine.load_all()
    gate = bench.built["minilm"].hold("encode")
    whole = started(lambda: bench.engine.bundle("7"))
    gate.reached()
    assert bench.engine.view("splade").in_flight == bench.engine.view("splade").queued == 0
    gate.open()
    assert whole.result(LIMIT).sparse is not None


def test_encoders_on_two_devices_compute_together_and_still_share_tokens(benches: list[Bench]) -> None:
    bench = Bench(minilm=DENSE | {"device": "cuda:0"}, splade=SPARSE | {"device": "cpu"}, sema=AXES)
    benches.append(bench)
    bench.engine.load_all()
    bench.log.clear()
    gates = bench.built["minilm"].hold("encode"), bench.built["splade"].hold("encode_sparse")
    whole = started(lambda: bench.engine.bundle("7"))
    for gate in gates:
        gate.reached()
    for gate in gates:
        gate.open()
    whole.result(LIMIT)
    assert bench.calls("encode_sparse") == [("splade", [7])]


def test_nobody_on_another_device_waits_until_the_dense_encoder_has_loaded(benches: list[Bench]) -> None:
    bench = Bench(minilm=DENSE | {"device": "cuda:0"}, splade=SPARSE | {"device": "cpu"}, sema=AXES)
    benches.append(bench)
    bench.engine.load_all()
    bench.engine.unload("minilm")
    load, encode = bench.built["minilm"].hold("load"), bench.built["splade"].hold("encode_sparse")
    whole = started(lambda: bench.engine.bundle("7"))
    load.reached()
    encode.reached()
    load.open()
    encode.open()
    assert whole.result(LIMIT).sparse is not None


def test_a_part_that_fails_fails_the_bundle_and_spares_those_behind_it(bench: Bench) -> None:
    bench.built["minilm"].fail("load", LoadFailed("The disk is on fire."))
    with pytest.raises(LoadFailed, match="on fire"):
        bench.engine.bundle("7")
    assert bench.built["splade"].calls == []


def test_a_part_that_fails_beside_the_others_fails_the_bundle(bench: Bench) -> None:
    bench.built["splade"].fail("encode_sparse", ZeroDivisionError("no"))
    with pytest.raises(ZeroDivisionError):
        bench.engine.bundle("7")
    assert bench.engine.bundle("7").sparse is not None


def test_closing_ends_a_bundle_that_waits(bench: Bench) -> None:
    bench.engine.load_all()
    gate = bench.built["minilm"].hold("encode")
    whole = started(lambda: bench.engine.bundle("7"))
    gate.reached()
    closing = started(lambda: bench.engine.close(LIMIT))
    gate.open()
    assert closing.result(LIMIT) is True
    assert isinstance(failure(whole), Closed | None)


def test_a_keep_alive_is_for_every_encoder(bench: Bench) -> None:
    bench.engine.bundle("7", keep_alive=-1.0)
    assert {bench.engine.view(name).keep_alive_seconds for name in ("minilm", "splade", "sema")} == {-1.0}


def test_the_caller_is_known_to_every_encoder(bench: Bench) -> None:
    bench.engine.load_all()
    bench.engine.submit_bundle(EncodeBundle("7"), "an app").result(LIMIT)
    assert {bench.engine.view(name).last_used_by for name in ("minilm", "splade", "sema")} == {"an app"}


@pytest.mark.parametrize("models", [{"dense": "nobody"}, {"sparse": "minilm"}, {"axes": "splade"}])
def test_an_encoder_that_is_not_there_or_of_another_kind_is_refused(bench: Bench, models: dict[str, str]) -> None:
    with pytest.raises(UnknownEncoder):
        bench.engine.bundle("7", models=models)
    assert bench.log == []


def test_without_any_encoder_there_is_no_bundle(benches: list[Bench]) -> None:
    benches.append(Bench())
    with pytest.raises(UnknownEncoder, match="No encoder is configured"):
        benches[0].engine.bundle("7")


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"text": "\ud800"}, "text"),
        ({"text": ["7"]}, "text"),
        ({"text": "7", "task": "document"}, "task"),
        ({"text": "7", "top_k": 0}, "top_k"),
        ({"text": "7", "models": {"sema": "sema"}}, "models"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(bench: Bench, arguments: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        bench.engine.bundle(**arguments)
    assert refused.value.param == param
    assert bench.log == []
