"""The contract of every route that runs an encoder: a table of the routes, and one test per thing that all of them do.

A route of a new dialect joins with a row, and a dialect whose errors have another shape with a reader of them.
"""

from __future__ import annotations

import io
import json
import re
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from http_fakes import LONGEST, Caller, FakeAny, caller_of
from PIL import Image

from engine.adapters.context import AdapterContext
from engine.adapters.kinds.axes import AxesAdapter
from engine.adapters.protocol import Adapter
from engine.engine import Engine
from engine.serving.worker import QUEUE_LIMIT
from engine.settings.config import EncoderConfig
from engine.settings.parsing import parse
from engine.state import State

SURROGATE = "\ud800"


@dataclass(frozen=True)
class Refused:
    """What an error says; `names` is where it names the field."""

    message: str
    names: str


def native(answer: httpx.Response) -> Refused:
    body = answer.json()
    assert set(body) == {"detail", "title", "next_step"}
    assert body["title"]
    return Refused(f"{body['detail']} {body['next_step'] or ''}", body["detail"])


def openai(answer: httpx.Response) -> Refused:
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    by_status = {404: "not_found_error", 429: "overloaded_error", 503: "api_error"}
    assert error["type"] == by_status.get(answer.status_code, "invalid_request_error")
    assert error["code"] == ("model_not_found" if answer.status_code == 404 else None)
    return Refused(error["message"], error["param"] or "")


@dataclass(frozen=True)
class Route:
    """One route: a request about one item, and how its answers and its errors are read."""

    path: str
    kind: str
    body: Mapping[str, Any]
    results: Callable[[Any], Any]
    """The results of an answer, one per item."""
    items: str | None = None
    """The field of the body that is a list of items; None where there is no such list."""
    empty: Mapping[str, Any] = field(default_factory=dict)
    """The fields of the answer about no items, beside model and revision."""
    surrogates: tuple[tuple[Mapping[str, Any], str], ...] = ()
    """Fields that hold a lone surrogate, and the name of the place that the error says."""
    surrogate_status: int = 400
    misshapen: tuple[tuple[Mapping[str, Any], str], ...] = ()
    """Fields of another type, and the start of the error, which is the field's name."""
    naming: Callable[[Any], Mapping[str, Any]] = lambda name: {"model": name}
    """The fields that name an encoder."""
    model_field: str = "model"
    part: str = ""
    """The end of the component's name, for an encoder that has parts."""
    counted: str = ""
    """The name of the items in the error about too many; that of the field, unless another is said."""
    kinds: str = ""
    """The kinds that can do it, as errors list them; the one kind, unless others are said."""
    also: str | None = None
    """Another path of the same route, which is in no schema."""
    errors: Callable[[httpx.Response], Refused] = native
    bad_body: int = 422
    long: Mapping[str, Any] = field(default_factory=dict)
    """Fields with one item that is longer than the encoder reads; none where none is too long."""
    long_name: str = ""
    """The name of this item in errors."""

    def __str__(self) -> str:
        fields = "+".join(name for name in self.body if name != "query")
        return f"{self.path} {fields}{' ids' if [[1]] in self.body.values() else ''}"

    def about(self, count: int) -> dict[str, Any]:
        """The body of a request about so many items."""
        assert self.items is not None
        return {**self.body, self.items: list(self.body[self.items]) * count}


def png() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    return b64encode(buffer.getvalue()).decode()


LONG = "a" * (LONGEST + 1)
LONG_TEXTS = {"long": {"texts": ["a", LONG]}, "long_name": "texts[1]"}
UNCUT = {"truncated": 0}
NO_VECTORS = {"vectors": [], "dim": None, **UNCUT}


def wrong(name: str, start: str, *values: object) -> tuple[tuple[Mapping[str, Any], str], ...]:
    """Values that a field cannot have, each with the start of the error."""
    return tuple(({name: value}, start) for value in values)


IN_TEXTS = (({"texts": [SURROGATE]}, "texts[0]"), ({"texts": ["a", f"b{SURROGATE}"]}, "texts[1]"))
IN_INPUT = (({"input": [SURROGATE]}, "input[0]"), ({"input": SURROGATE}, "input[0]"))
DENSE = "dense or multi or image_text (text)"
NO_TEXTS = wrong("texts", "texts: must be a list of texts.", "a", ["a", 3], [None], [["a"]], [[1]], {})
NO_TEXTS_NOR_NULL = (*NO_TEXTS, *wrong("texts", "texts: must be a list of texts.", None))
NO_PAIRS = wrong("pairs", "pairs: must be a list of pairs of texts.", "a", ["ab"], [["a"]], [["a", 1]], [["a"] * 3], {})
NO_LABELS = wrong("candidate_labels", "candidate_labels: must be a list of texts.", "x", [1])
NO_IMAGES = wrong("images", "images: must be a list of images, each a data URI or base64.", "a", None, [1], {})
NO_GROUPS = wrong("fragments", "fragments: must be a list of lists of texts.", ["a"], [["a"], [1]], {"a": []}, None)
NO_QUERY = wrong("query", "query: ", ["q"], None, 3)
NO_INPUT = wrong(
    "input", "input must be a text, a list of texts, a list of token ids, or a list of such lists.",
    None, 3, ["a", 3], [[1], "a"], [["a"]], [True], [1.5], {},
)  # fmt: skip
USAGE = {"prompt_tokens": 0, "total_tokens": 0, "truncated": 0, "truncated_tokens": 0}
DATA = {"object": "list", "data": [], "usage": USAGE, "dim": None}

ROUTES = (
    Route(
        "/v1/embeddings", "dense", {"input": ["a"]}, lambda answer: answer["data"], "input", DATA,
        surrogates=IN_INPUT, misshapen=NO_INPUT,
        kinds=DENSE, also="/embeddings", errors=openai, bad_body=400,
        long={"input": ["a", LONG]}, long_name="input[1]",
    ),
    Route(
        "/v1/embeddings", "dense", {"input": [[1]]}, lambda answer: answer["data"], "input", DATA,
        surrogates=IN_INPUT, misshapen=NO_INPUT, kinds=DENSE, also="/embeddings", errors=openai, bad_body=400,
        long={"input": [[1], [1] * len(LONG)]}, long_name="input[1]",
    ),
    Route(
        "/encode/dense", "dense", {"texts": ["a"]}, lambda answer: answer["vectors"], "texts", NO_VECTORS,
        surrogates=IN_TEXTS, misshapen=(*NO_TEXTS_NOR_NULL, *wrong("normalize", "normalize: ", 1, "true")), kinds=DENSE,
        **LONG_TEXTS,
    ),
    Route(
        "/encode/sparse", "sparse", {"texts": ["a"]}, lambda answer: answer["sparse"], "texts", {"sparse": [], **UNCUT},
        surrogates=IN_TEXTS, misshapen=NO_TEXTS_NOR_NULL, kinds="sparse or multi", also="/encode/splade", **LONG_TEXTS,
    ),
    Route(
        "/encode/axes", "axes", {"texts": ["a"]}, lambda answer: answer["vectors"], "texts", {**NO_VECTORS, "axes": []},
        surrogates=IN_TEXTS, misshapen=NO_TEXTS_NOR_NULL, also="/encode/sema", **LONG_TEXTS,
    ),
    Route(
        "/encode/multi", "multi", {"texts": ["a"]}, lambda answer: answer["dense"], "texts",
        {"dense": [], "sparse": [], "colbert": [], "dim": None, **UNCUT}, surrogates=IN_TEXTS,
        misshapen=NO_TEXTS_NOR_NULL, **LONG_TEXTS,
    ),
    Route(
        "/encode/rerank", "rerank", {"query": "q", "texts": ["a"]}, lambda answer: answer["scores"], "texts",
        {"scores": [], **UNCUT}, surrogates=(*IN_TEXTS, ({"query": SURROGATE}, "query")),
        misshapen=(*NO_TEXTS_NOR_NULL, *NO_QUERY), **LONG_TEXTS,
    ),
    Route(
        "/encode/splice", "rerank", {"query": "q", "fragments": [["a"]]}, lambda answer: answer["kept"], "fragments",
        {"kept": [], "scores": [], **UNCUT}, long={"fragments": [["a", LONG]]}, long_name="fragments[",
        surrogates=(({"fragments": [["a"], [SURROGATE]]}, "fragments[1][0]"), ({"query": SURROGATE}, "query")),
        misshapen=(*NO_GROUPS, *NO_QUERY),
    ),
    Route(
        "/encode/classify", "classify", {"texts": ["a"]}, lambda answer: answer["labels"], "texts",
        {"labels": [], **UNCUT}, surrogates=IN_TEXTS, misshapen=NO_TEXTS, **LONG_TEXTS,
    ),
    Route(
        "/encode/classify", "classify", {"pairs": [["a", "b"]]}, lambda answer: answer["labels"], "pairs",
        {"labels": [], **UNCUT}, long={"pairs": [["a", "b"], ["a", LONG]]}, long_name="pairs[1]",
        surrogates=(({"pairs": [["a", SURROGATE]]}, "pairs[0][1]"),), misshapen=NO_PAIRS,
    ),
    Route(
        "/encode/classify", "classify", {"texts": ["a"], "candidate_labels": ["x"]}, lambda answer: answer["labels"],
        "texts", {"labels": [], **UNCUT},
        surrogates=(*IN_TEXTS, ({"candidate_labels": [SURROGATE]}, "candidate_labels[0]")),
        misshapen=(*NO_TEXTS, *NO_LABELS),
        counted="texts x candidate_labels", long={"texts": ["a", LONG]}, long_name="texts",
    ),
    Route(
        "/encode/tag", "tag", {"texts": ["a"]}, lambda answer: answer["docs"], "texts", {"docs": []},
        surrogates=IN_TEXTS, misshapen=NO_TEXTS_NOR_NULL,
    ),
    Route(
        "/encode/image", "image_text", {"images": [png()]}, lambda answer: answer["vectors"], "images",
        {"vectors": [], "dim": None}, surrogates=(({"images": [SURROGATE]}, "images"),),
        surrogate_status=422, misshapen=NO_IMAGES, part=".image", kinds="image_text (image)",
    ),
    Route(
        "/encode/image_text", "image_text", {"texts": ["a"]}, lambda answer: answer["vectors"], "texts", NO_VECTORS,
        surrogates=IN_TEXTS, misshapen=NO_TEXTS_NOR_NULL, part=".text", kinds="image_text (text)",
        **LONG_TEXTS,
    ),
    Route(
        "/encode/plugin", "plugin", {"operation": "echo"}, lambda answer: [answer["result"]],
        surrogates=(({"arguments": {"texts": [SURROGATE]}}, "arguments.texts[0]"),),
        misshapen=(*wrong("operation", "operation: ", 3, None), *wrong("arguments", "arguments: ", [], "a")),
    ),
    Route(
        "/encode/bundle", "dense", {"text": "a"}, lambda answer: [answer["dense"]],
        surrogates=(({"text": SURROGATE}, "text"),), misshapen=wrong("text", "text: ", ["a"], None),
        naming=lambda name: {"models": {"dense": name}}, model_field="models", kinds=DENSE,
        long={"text": LONG}, long_name="text",
    ),
)  # fmt: skip
LISTS = [route for route in ROUTES if route.items]


def adapter(config: EncoderConfig, device: str, context: AdapterContext) -> Adapter:
    return (AxesAdapter if config.kind == "axes" else FakeAny)(config, device, context)


def encoders(kind: str) -> dict[str, dict[str, Any]]:
    """Three encoders of a kind (`first` serves, `failing` and `missing` do not load) and `other`, of another kind."""
    other = {"kind": "dense" if kind == "tag" else "tag", "model": "./words" if kind == "tag" else "words"}
    folder = "" if kind in ("tag", "plugin") else "./"
    tables = {name: {"kind": kind, "model": f"{folder}{name}"} for name in ("first", "failing", "missing")}
    if kind == "axes":
        bases = {f"base-{name}": {**table, "kind": "dense"} for name, table in tables.items()}
        axis = {"name": "one", "anchor": "a"}
        tables = bases | {name: {"kind": kind, "base": f"base-{name}", "axes": [axis]} for name in tables}
    tables["first"]["aliases"] = ["other-name"]  # type: ignore[assignment]
    return {**tables, "other": other}


@pytest.fixture(params=ROUTES, ids=str)
def route(request: pytest.FixtureRequest) -> Route:
    found: Route = request.param
    return found


@pytest.fixture
def engine(route: Route) -> Iterator[Engine]:
    settings = {"hardware": {"idle_timeout_seconds": 0}, "encoders": encoders(route.kind)}
    with Engine(parse(settings), adapter=adapter) as engine:
        yield engine


@pytest.fixture
def caller(engine: Engine) -> Caller:
    return caller_of(engine)


def post(caller: Caller, route: Route, *fields: Mapping[str, Any], path: str | None = None) -> httpx.Response:
    """Post the body of a route with `fields` over it, lone surrogates and all."""
    body = dict(route.body)
    for more in fields:
        body |= more
    return caller.raw(json.dumps(body).encode(), path or route.path)


def has_loaded(engine: Engine) -> bool:
    return any(view.state is not State.UNLOADED or view.loads for view in engine.views())


for_lists = pytest.mark.parametrize("route", LISTS, ids=str, indirect=True)


def test_an_answer_has_a_result_per_item_and_names_encoder_and_revision(route: Route, caller: Caller) -> None:
    answer = post(caller, route)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert len(route.results(body)) == 1
    assert body["model"] == f"first{route.part}", "the default one"
    assert body["revision"].startswith("7")
    assert post(caller, route, {"later": 1}).json() == body, "a field that is not known changes nothing"


def test_the_encoder_is_called_as_the_request_called_it(route: Route, caller: Caller) -> None:
    for name in ("first", "other-name", f"first{route.part}"):
        assert post(caller, route, route.naming(name)).json()["model"] == name


@for_lists
def test_no_items_load_nothing_and_set_no_timer(route: Route, caller: Caller, engine: Engine) -> None:
    answer = post(caller, route, route.about(0), {"keep_alive": -1})
    assert answer.json() == {**route.empty, "model": f"first{route.part}", "revision": None}
    assert not has_loaded(engine)
    view = engine.view(f"first{route.part}")
    assert (view.keep_alive_seconds, view.last_used) == (None, None)


@for_lists
def test_2049_items_are_422_and_2048_are_answered(route: Route, caller: Caller, engine: Engine) -> None:
    answer = post(caller, route, route.about(2049))
    assert answer.status_code == 422
    refused = route.errors(answer)
    name = route.counted or str(route.items)
    assert name in refused.names
    assert refused.message.replace(":", "").startswith(f"{name} has 2049 items; the limit is 2048.")
    assert refused.message.endswith("Send several requests.") or route.items == "images"
    assert not has_loaded(engine)
    assert len(route.results(post(caller, route, route.about(2048)).json())) == 2048


@for_lists
def test_of_too_many_items_for_an_unknown_encoder_the_encoder_is_named(route: Route, caller: Caller) -> None:
    answer = post(caller, route, route.about(2049), route.naming("nobody"))
    assert answer.status_code == (422 if route.items == "images" else 404), "images are counted before they are read"


def test_a_lone_surrogate_is_refused_by_its_place_and_loads_nothing(
    route: Route, caller: Caller, engine: Engine
) -> None:
    assert route.surrogates
    for fields, place in route.surrogates:
        answer = post(caller, route, fields)
        assert answer.status_code == route.surrogate_status, answer.text
        refused = route.errors(answer)
        assert re.split(r"\W", place)[0] in refused.names
        if route.items == "images":
            assert refused.message.startswith(place)
        else:
            assert refused.message.startswith(f"{place} is not a text that can be written as UTF-8.")
            assert refused.message.endswith("Send text without lone surrogates.")
        assert not has_loaded(engine)


def test_a_field_of_another_type_is_named_and_loads_nothing(route: Route, caller: Caller, engine: Engine) -> None:
    assert route.misshapen
    for fields, start in (*route.misshapen, (route.naming(3), route.model_field)):
        answer = post(caller, route, fields)
        assert answer.status_code == route.bad_body, answer.text
        refused = route.errors(answer)
        assert refused.message.startswith(start)
        assert refused.names.startswith(re.split(r"\W", start)[0])
        assert len(answer.text) < 500
    assert not has_loaded(engine)


def test_a_field_that_is_missing_is_named_and_loads_nothing(route: Route, caller: Caller, engine: Engine) -> None:
    for name in route.body:
        if name == "candidate_labels":
            continue  # without them it is the other request
        body = {key: value for key, value in route.body.items() if key != name}
        answer = caller.send("POST", route.path, json=body)
        assert answer.status_code == route.bad_body
        assert route.errors(answer).names.startswith("pairs" if route.path == "/encode/classify" else name)
    assert not has_loaded(engine)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "The body is not valid JSON"),
        (b"\xff", 400, "The body cannot be read as JSON"),
        (b'{"texts": ' + b"[" * 100_000, 400, "The body cannot be read as JSON"),
        (b"[]", None, "The body must be a JSON object, sent with Content-Type: application/json"),
    ],
    ids=["not JSON", "not UTF-8", "deeply nested", "a list"],
)
def test_a_body_that_is_no_json_object_is_refused(
    route: Route, caller: Caller, body: bytes, status: int | None, words: str
) -> None:
    answer = caller.raw(body, route.path)
    assert answer.status_code == (status or route.bad_body)
    assert words in route.errors(answer).message
    assert len(answer.text) < 500


def test_another_content_type_is_refused_with_the_one_to_send(route: Route, caller: Caller) -> None:
    answer = caller.raw(json.dumps(route.body).encode(), route.path, Content_Type="text/plain")
    assert answer.status_code == route.bad_body
    assert "Content-Type: application/json" in route.errors(answer).message


def test_an_encoder_of_another_kind_is_404_that_says_both(route: Route, caller: Caller, engine: Engine) -> None:
    other = f"other is an encoder of kind {engine.view('other').kind}"
    for fields in ({}, *([route.about(0)] if route.items else [])):
        answer = post(caller, route, fields, route.naming("other"))
        assert answer.status_code == 404
        assert route.errors(answer).message.startswith(f"{other}, not {route.kinds or route.kind}.")
    assert not has_loaded(engine)


@pytest.mark.parametrize("name", ["nobody", "m" * 100_000, SURROGATE], ids=["unknown", "long", "surrogate"])
def test_an_unknown_encoder_is_404_that_names_those_there_are(route: Route, caller: Caller, name: str) -> None:
    answer = post(caller, route, route.naming(name))
    assert answer.status_code == 404
    message = route.errors(answer).message
    assert "There is no encoder" in message
    assert "first, failing, missing, other." in message
    assert len(answer.text) < 1000


def test_without_a_configured_encoder_it_is_404_with_the_way_to_add_one(route: Route) -> None:
    with Engine(parse({"encoders": {}}), adapter=adapter) as engine:
        caller = caller_of(engine)
        answer = post(caller, route)
    assert answer.status_code == 404
    message = route.errors(answer).message
    bundle = "No encoder is configured that a bundle could be made with."
    assert message.startswith(bundle if route.path == "/encode/bundle" else f"No {route.kind} encoder is configured.")
    assert "pilotlight add" in message


def test_a_failed_load_is_503_with_retry_after_and_leaves_the_others_alone(route: Route, caller: Caller) -> None:
    answer = post(caller, route, route.naming("failing"))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) == 5
    assert "The disk is on fire. Put it out." in route.errors(answer).message
    assert route.errors is openai or answer.json()["title"] == "Load failed"
    assert post(caller, route).status_code == 200


def test_an_unavailable_encoder_is_503_without_retry_after_and_leaves_the_others_alone(
    route: Route, caller: Caller
) -> None:
    answer = post(caller, route, route.naming("missing"))
    assert answer.status_code == 503
    assert "Retry-After" not in answer.headers
    assert "The folder is missing. Put it there." in route.errors(answer).message
    assert post(caller, route).status_code == 200


@pytest.mark.parametrize(
    ("fields", "seconds"), [({"keep_alive": "10m"}, 600), ({"ttl": 90}, 90), ({"keep_alive": -1, "ttl": 90}, -1)]
)
def test_keep_alive_and_ttl_are_kept_until_another_request_says_one(
    route: Route, caller: Caller, engine: Engine, fields: dict[str, Any], seconds: float
) -> None:
    for more in (fields, {}, {"keep_alive": None}):
        assert post(caller, route, more).status_code == 200
        assert engine.view(f"first{route.part}").keep_alive_seconds == seconds


@pytest.mark.parametrize("name", ["keep_alive", "ttl"])
def test_a_keep_alive_that_is_none_is_named_and_loads_nothing(
    route: Route, caller: Caller, engine: Engine, name: str
) -> None:
    for value in ("soon", True, [], float("nan"), 10**400):
        answer = post(caller, route, {name: value})
        assert answer.status_code == route.bad_body
        assert route.errors(answer).names.startswith(name)
        assert f"{name}: must be " in route.errors(answer).message
    assert not has_loaded(engine)


for_texts = pytest.mark.parametrize("route", [route for route in ROUTES if route.long], ids=str, indirect=True)


def told(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    """What an answer says of inputs that were cut: in the body, and in the headers their number and their tokens."""
    body = answer.json()
    headers = answer.headers
    inputs = body["usage"]["truncated"] if "usage" in body else body["truncated"]
    return inputs, headers.get("x-truncated-inputs"), headers.get("x-truncated-tokens")


@for_texts
def test_what_is_cut_of_a_long_text_is_in_the_answer_and_in_the_row(
    route: Route, caller: Caller, engine: Engine
) -> None:
    for more in ({}, {"truncate": None}, {"truncate": True}):
        answer = post(caller, route, route.long, more)
        assert answer.status_code == 200, answer.text
        cut, tokens = 1, 2 if "pairs" in route.long else 1
        if "candidate_labels" in route.body:
            cut, tokens = 1, len("This example is x.") + 1
        assert told(answer) == (cut, str(cut), str(tokens))
    rows = caller.send("GET", "/admin/components").json()["components"]
    row = next(row for row in rows if row["name"] == f"first{route.part}")
    assert (row["truncated_inputs"], row["truncated_tokens"]) == (3 * cut, 3 * tokens)
    assert told(post(caller, route)) == (0, None, None)
    assert not engine.view("other").truncated_inputs


@for_texts
def test_truncate_false_refuses_a_long_text_by_its_name_with_both_lengths(route: Route, caller: Caller) -> None:
    assert post(caller, route, {"truncate": False}).status_code == 200
    answer = post(caller, route, route.long, {"truncate": False})
    assert answer.status_code == 400, answer.text
    refused = route.errors(answer)
    assert refused.message.startswith(route.long_name)
    assert re.split(r"\W", route.long_name)[0] in refused.names
    assert f"tokens; a fake reads {LONGEST}." in refused.message
    assert not {*answer.headers} & {"x-truncated-inputs", "x-truncated-tokens"}


@for_texts
def test_truncate_is_true_or_false_alone(route: Route, caller: Caller, engine: Engine) -> None:
    for value in (0, 1, "false", [], {}):
        answer = post(caller, route, {"truncate": value})
        assert answer.status_code == route.bad_body
        assert route.errors(answer).message.startswith("truncate: ")
    assert not has_loaded(engine)


def test_the_app_is_known_by_its_user_agent(route: Route, caller: Caller) -> None:
    caller.send("POST", route.path, json=dict(route.body), headers={"User-Agent": "notes/1"})
    components = caller.send("GET", "/admin/components").json()["components"]
    assert {one["name"]: one["last_used_by"] for one in components}[f"first{route.part}"] == "notes/1"


def test_a_full_queue_is_429_with_retry_after(route: Route, caller: Caller, engine: Engine) -> None:
    go, running = threading.Event(), threading.Event()

    def block(adapter: object) -> None:
        running.set()
        go.wait(30)

    name = f"first{route.part}"
    waiting = [engine.submit(name, block)]
    assert running.wait(30)
    waiting += [engine.submit(name, lambda adapter: None) for _ in range(QUEUE_LIMIT)]
    try:
        answer = post(caller, route)
    finally:
        go.set()
    for future in waiting:
        future.result(30)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert route.errors(answer).message


def test_a_closed_engine_answers_503_with_retry_after(route: Route, caller: Caller, engine: Engine) -> None:
    engine.close()
    answer = post(caller, route)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert route.errors(answer).message


def test_another_method_is_405_in_the_shape_of_the_dialect(route: Route, caller: Caller) -> None:
    answer = caller.send("GET", route.path)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert route.errors(answer).message


def test_a_foreign_host_is_403_in_the_shape_of_the_dialect(route: Route, caller: Caller) -> None:
    answer = caller.send("POST", route.path, json=dict(route.body), host="evil.example")
    assert answer.status_code == 403
    assert route.errors(answer).message


@pytest.mark.parametrize("route", [route for route in ROUTES if route.also], ids=str, indirect=True)
def test_another_path_answers_and_refuses_alike_and_is_in_no_schema(route: Route, caller: Caller) -> None:
    assert post(caller, route, path=route.also).json() == post(caller, route).json()
    nobody = route.naming("nobody")
    assert post(caller, route, nobody, path=route.also).text == post(caller, route, nobody).text
    assert caller.send("GET", str(route.also)).text == caller.send("GET", route.path).text
    paths = caller.send("GET", "/openapi.json").json()["paths"]
    assert (route.path in paths, route.also in paths) == (True, False)


def test_every_route_that_runs_an_encoder_is_in_the_table(bare_caller: Caller) -> None:
    paths = bare_caller.send("GET", "/openapi.json").json()["paths"]
    posted = {path for path, methods in paths.items() if "post" in methods and not path.startswith("/admin/")}
    assert posted == {route.path for route in ROUTES}
