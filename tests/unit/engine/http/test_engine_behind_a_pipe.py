"""The interface is plain data: operations and answers pickle, and an engine in another process serves the endpoint."""

from __future__ import annotations

import importlib
import multiprocessing
import pickle
import pkgutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import fields, is_dataclass
from io import BytesIO
from multiprocessing.connection import Connection
from typing import Any, get_args, get_origin

import numpy as np
import pytest
from http_fakes import Caller, FakeDense, unit
from PIL import Image

from engine import operations
from engine.engine import Engine
from engine.errors import LoadFailed, PilotlightError, UnknownEncoder
from engine.events import Events
from engine.http.app import create_app
from engine.interface import EngineInterface
from engine.operations.axes import BaseVectors, EmbedInBase, EncodeAxes, Projection
from engine.operations.bundle import Bundle, EncodeBundle
from engine.operations.classify import Classification, Classify, ZeroShot
from engine.operations.dense import Embed, Encoding
from engine.operations.describe import Describe
from engine.operations.image_text import EmbedForImages, EncodeImages
from engine.operations.multi import EncodeMulti, MultiEncoding
from engine.operations.operation import Answer, Operation
from engine.operations.plugin import Call
from engine.operations.rerank import Ranking, ReRank, Score, Scores, Splice, Spliced
from engine.operations.sparse import EncodeSparse, SparseEncoding, SparseVector
from engine.operations.tag import Entity, Tag, Tagged, Token
from engine.settings.parsing import parse
from engine.state import State


def picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    return file.getvalue()


FLOATS = np.asarray([[0.5, -1.0]], dtype=np.float32)
SPARSE = SparseVector(np.asarray([7], dtype=np.int32), FLOATS[0, :1], ("a",))
OPERATIONS = [
    Embed(["a"], task="query", dimensions=1, normalize=True),
    EmbedForImages(["a"]),
    EmbedInBase(["a"]),
    EncodeSparse([[1, 2]]),
    EncodeMulti(["a"], want=("dense",)),
    Score("a", ["b"]),
    ReRank("a", ["b"], 1),
    Splice("a", [["b"]]),
    Classify([("a", "b")]),
    ZeroShot(["a"], ["b"], "It is {}.", False),
    EncodeImages([picture()]),
    Tag(["a"]),
    EncodeAxes(["a"], top_k=1),
    Call("shout", {"texts": ["a"]}),
    Describe("dimension"),
]
RESULTS = [
    Encoding(FLOATS, 3),
    BaseVectors(FLOATS, "1", 3),
    SparseEncoding((SPARSE,), 3),
    MultiEncoding(FLOATS, (SPARSE,), (FLOATS,), 3),
    Scores(FLOATS[0], FLOATS[0], 3),
    Ranking(np.asarray([0]), FLOATS[0, :1], 3),
    Spliced(((0,),), (FLOATS[0],), 3),
    Classification(("a", "b"), FLOATS, FLOATS, 3),
    (Tagged((Token("a", 0, 1, "NOUN", "NN", None),), (Entity("a", "ORG", 0, 1),)),),
    Projection(FLOATS, ("a", "b"), 3),
    Bundle(FLOATS[0], SPARSE, FLOATS[0], ("a", "b"), {"dense": "x"}, {"dense": None}),
    {"any": ["plain data", 1.5, None]},
]


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal all the way down, arrays by dtype, shape and bytes."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if is_dataclass(one):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes


def every_operation() -> set[type]:
    for module in pkgutil.iter_modules(operations.__path__, "engine.operations."):
        importlib.import_module(module.name)
    found: set[type] = set()
    pending: list[type] = [Operation]
    while pending:
        found |= {*(below := pending.pop().__subclasses__())}
        pending += below
    # A dataclass with slots is made twice; only the second one is in its module.
    return {one for one in found if getattr(sys.modules[one.__module__], one.__name__, None) is one}


def test_every_operation_is_in_the_table() -> None:
    assert {type(operation) for operation in OPERATIONS} == every_operation()


def test_every_result_of_an_operation_is_in_the_table() -> None:
    found: list[Any] = [*every_operation()]
    bases = [base for operation in found for base in operation.__orig_bases__]
    results = {get_args(base)[0] for base in bases if get_origin(base) is Operation}
    assert {get_origin(result) or result for result in results} - {Any} <= {type(result) for result in RESULTS}


@pytest.mark.parametrize("operation", [*OPERATIONS, EncodeBundle("a")], ids=lambda value: type(value).__name__)
def test_every_operation_pickles(operation: Any) -> None:
    assert same(sent(operation), operation)


@pytest.mark.parametrize("result", RESULTS, ids=lambda value: type(value).__name__)
def test_every_answer_pickles(result: Any) -> None:
    answer = Answer(result, "x", "1+float32")
    assert same(sent(answer), answer)


def test_an_error_arrives_with_its_title_and_its_next_step() -> None:
    error = LoadFailed("The disk is on fire.", next_step="Put it out.", title="Fire", retry_in_seconds=5.0)
    there: Any = sent(error)
    assert type(there) is LoadFailed
    assert vars(there) == vars(error)


# An engine in another process


def serve(pipe: Connection, settings: dict[str, Any]) -> None:
    """The other process: calls the engine's methods by name until the pipe closes."""
    with Engine(parse(settings), adapter=FakeDense) as engine:
        while message := pipe.recv():
            name, arguments, named = message
            try:
                found = getattr(engine, name)
                found = found(*arguments, **named) if callable(found) else found
                pipe.send((True, found.result() if isinstance(found, Future) else found))
            except PilotlightError as error:
                pipe.send((False, error))


def remote(name: str) -> Any:
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        with self.lock:
            self.pipe.send((name, arguments, named))
            went_well, found = self.pipe.recv()
        future: Future[Any] = Future()
        future.set_result(found) if went_well else future.set_exception(found)
        return future if name in ("ask", "submit_bundle", "submit_load") else future.result()

    return property(call) if name in ("config", "ready") else call


PipeEngine: Any = type("PipeEngine", (EngineInterface,), {n: remote(n) for n in EngineInterface.__abstractmethods__})


@pytest.fixture
def engine() -> Iterator[EngineInterface]:
    settings = {"encoders": {n: {"kind": "dense", "model": f"./{n}"} for n in ("fake", "failing", "missing")}}
    spawn = multiprocessing.get_context("spawn")
    pipe, other_end = spawn.Pipe()
    process = spawn.Process(target=serve, args=(other_end, settings))
    process.start()
    engine = PipeEngine()
    engine.pipe, engine.lock, engine.events, engine.clock = pipe, threading.Lock(), Events(), time.monotonic
    yield engine
    pipe.send(None)
    process.join(30)
    assert process.exitcode == 0


def test_an_engine_behind_a_pipe_serves_proxies_and_the_endpoint(engine: EngineInterface) -> None:
    proxy = engine.dense("fake")
    assert not proxy.loaded
    np.testing.assert_array_equal(proxy.encode(["abc"]), [[3.0, 0.5, -2.0]])
    assert engine.view("fake").state is State.ON_DEVICE
    with pytest.raises(UnknownEncoder, match="no encoder 'other'"):
        engine.dense("other")
    caller = Caller(create_app(engine, host="127.0.0.1", token="t", version="1"), "t")  # type: ignore[arg-type]
    assert caller.embed(["abcd"], model="fake").json()["data"][0]["embedding"] == pytest.approx(unit([4.0, 0.5, -2.0]))
    native = caller.send("POST", "/encode/dense", json={"texts": ["abcd"], "model": "fake"}).json()
    assert native["vectors"] == [[4.0, 0.5, -2.0]]
    assert caller.embed(["a"], model="failing").status_code == 503
    [fake, *_] = caller.send("GET", "/admin/components").json()["components"]
    assert (fake["name"], fake["loaded"]) == ("fake", True)
    unloaded = caller.send("POST", "/admin/components/fake/unload", authorized=True).json()
    assert (unloaded["result"], unloaded["state"]) == ("done", "unloaded")
