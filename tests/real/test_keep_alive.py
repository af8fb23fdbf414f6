"""What a request's `keep_alive` does to a real encoder, whose idle timeout is off unless a test sets one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from expected import Reference
from running import Running

LIMITS = {"idle_timeout_seconds": 0, "unload_timeout_seconds": 900, "max_keep_alive_seconds": 0}
"""Those of the shared app."""


@pytest.fixture
def kept(app: Running) -> Iterator[Running]:
    """The shared app with no timeout in force and its encoder unloaded, which forgets every keep_alive."""
    app.configure(**LIMITS | {"unload_timeout_seconds": 0})
    app.control("components/minilm/unload").raise_for_status()
    component = app.component()
    assert (component["state"], component["keep_alive_seconds"]) == ("unloaded", None)
    yield app
    app.configure(**LIMITS)
    app.control("components/minilm/unload").raise_for_status()


class Watch:
    """Looks at the encoder as fast as it can, from a thread of its own, while a `with` lasts."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: list[dict[str, Any]] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            self.seen.append(self._running.component())


def test_keep_alive_0_unloads_right_after_the_answer_and_never_before(kept: Running, reference: Reference) -> None:
    kept.embed("x").raise_for_status()
    texts = reference.texts * 6
    with Watch(kept) as watch:
        answer = kept.embed(texts, encoding_format="float", keep_alive=0)
        answered = time.monotonic()
        kept.wait_for("unloaded", seconds=10)
        print(f"unloaded {time.monotonic() - answered:.2f} s after the answer")
    assert reference.agrees([item["embedding"] for item in answer.json()["data"]], texts)
    running = [component for component in watch.seen if component["in_flight"]]
    assert running, "the watch saw nothing of the request"
    assert {component["state"] for component in running} == {"on_device"}
    assert {component["steps_down_in_seconds"] for component in running} <= {None}
    assert kept.component()["keep_alive_seconds"] is None
    assert kept.component()["bytes_on_device"] == kept.component()["bytes_in_ram"] == 0
    assert kept.component()["loads"] == running[-1]["loads"]


def test_keep_alive_0_waits_for_the_requests_that_are_queued_behind_it(kept: Running, reference: Reference) -> None:
    kept.embed("x").raise_for_status()
    loads = kept.component()["loads"]
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(kept.embed, reference.texts * 12, encoding_format="float", keep_alive=0)
        while not kept.component()["in_flight"]:
            assert not first.done()
        others = [pool.submit(kept.embed, reference.texts, encoding_format="float") for _ in range(7)]
        answers = [other.result() for other in others]
    assert first.result().status_code == 200
    for answer in answers:
        assert reference.agrees([item["embedding"] for item in answer.json()["data"]])
    kept.wait_for("unloaded", seconds=10)
    assert kept.component()["loads"] == loads


def test_after_an_unload_nothing_is_left_of_keep_alive_0(kept: Running) -> None:
    kept.embed("x", keep_alive=0).raise_for_status()
    kept.wait_for("unloaded", seconds=10)
    kept.embed("x").raise_for_status()
    time.sleep(1)
    component = kept.component()
    assert (component["state"], component["keep_alive_seconds"]) == ("on_device", None)


@pytest.mark.parametrize("fields", [{"keep_alive": "1s"}, {"keep_alive": 1}, {"ttl": 1}, {"keep_alive": 1, "ttl": 600}])
def test_one_second_steps_it_down_though_the_idle_timeout_is_never(
    kept: Running, reference: Reference, fields: dict[str, Any]
) -> None:
    kept.embed("x").raise_for_status()
    kept.embed("x", **fields).raise_for_status()
    used = time.monotonic()
    component = kept.component()
    assert (component["state"], component["keep_alive_seconds"]) == ("on_device", 1)
    assert 0 < component["steps_down_in_seconds"] <= 1
    component = kept.wait_for("in_ram", seconds=10)
    assert 0.9 <= time.monotonic() - used <= 2.0
    assert (component["keep_alive_seconds"], component["steps_down_in_seconds"]) == (None, None)
    loads = component["loads"]
    answer = kept.embed(reference.texts, encoding_format="float")
    assert reference.agrees([item["embedding"] for item in answer.json()["data"]])
    component = kept.component()
    assert (component["state"], component["loads"], component["keep_alive_seconds"]) == ("on_device", loads, None)


def test_the_timer_starts_again_at_the_end_of_every_request(kept: Running) -> None:
    kept.embed("x", keep_alive="900ms").raise_for_status()
    for _ in range(4):
        time.sleep(0.4)
        kept.embed("x").raise_for_status()
        assert kept.component()["keep_alive_seconds"] == 0.9
    used = time.monotonic()
    assert kept.component()["loads"] == kept.wait_for("in_ram", seconds=10)["loads"]
    assert time.monotonic() - used >= 0.8


@pytest.mark.parametrize("said", [-1, "-1", "-10m", -0.5])
def test_a_negative_one_stops_the_idle_timer_until_another_request_names_a_value(kept: Running, said: object) -> None:
    kept.configure(idle_timeout_seconds=0.5)
    kept.embed("x", keep_alive=said).raise_for_status()
    kept.embed("x").raise_for_status()  # a second app that says nothing
    kept.embed("x", keep_alive=None).raise_for_status()
    time.sleep(1)
    component = kept.component()
    assert component["state"] == "on_device"
    assert component["keep_alive_seconds"] < 0
    assert component["steps_down_in_seconds"] is None
    kept.embed("x", keep_alive="300ms").raise_for_status()
    kept.wait_for("in_ram", seconds=10)


def test_stepping_down_by_hand_ends_it(kept: Running) -> None:
    kept.embed("x", keep_alive=-1).raise_for_status()
    kept.control("components/minilm/offload").raise_for_status()
    component = kept.component()
    assert (component["state"], component["keep_alive_seconds"]) == ("in_ram", None)
    kept.configure(idle_timeout_seconds=0.5)
    kept.embed("x").raise_for_status()
    kept.wait_for("in_ram", seconds=10)


def test_a_longer_one_stands_over_a_short_idle_timeout(kept: Running) -> None:
    kept.configure(idle_timeout_seconds=0.5)
    kept.embed("x", keep_alive="1h30m").raise_for_status()
    time.sleep(1)
    component = kept.component()
    assert component["state"] == "on_device"
    assert 5390 < component["steps_down_in_seconds"] < 5400


@pytest.mark.parametrize("said", [-1, "10m"])
def test_the_owners_bound_stands_over_what_an_app_asks_for(kept: Running, said: object) -> None:
    kept.configure(max_keep_alive_seconds=1)
    kept.embed("x", keep_alive=said).raise_for_status()
    component = kept.component()
    assert component["keep_alive_seconds"] == 1
    assert component["steps_down_in_seconds"] <= 1
    kept.wait_for("in_ram", seconds=10)
    kept.embed("x", keep_alive=0.2).raise_for_status()
    assert kept.wait_for("in_ram", seconds=10)


def test_a_pinned_encoder_stays_whatever_a_request_says(kept: Running) -> None:
    kept.control("components/minilm/pin").raise_for_status()
    try:
        kept.embed("x", keep_alive=0).raise_for_status()
        time.sleep(0.5)
        component = kept.component()
        assert (component["state"], component["steps_down_in_seconds"]) == ("on_device", None)
    finally:
        kept.control("components/minilm/unpin").raise_for_status()


def test_the_openai_client_sends_it_in_its_extra_body(kept: Running, reference: Reference) -> None:
    with openai.OpenAI(base_url=f"{kept.url}/v1", api_key="x", max_retries=0) as client:

        def embed(**extra: object) -> None:
            answer = client.embeddings.create(model="minilm", input=reference.texts, extra_body=extra)
            assert reference.agrees([item.embedding for item in answer.data])

        embed(keep_alive="10m")
        assert kept.component()["keep_alive_seconds"] == 600
        embed(ttl=60)
        assert kept.component()["keep_alive_seconds"] == 60
        embed(keep_alive=-1)
        assert kept.component()["steps_down_in_seconds"] is None
        embed(keep_alive=0)
        kept.wait_for("unloaded", seconds=10)
        with pytest.raises(openai.BadRequestError, match=r'keep_alive: must be .* "30s", "10m"') as refused:
            embed(keep_alive="soon")
        assert refused.value.param == "keep_alive"


@pytest.mark.parametrize(
    "fields", [{"keep_alive": "soon"}, {"keep_alive": True}, {"keep_alive": "9999999h"}, {"ttl": "5m"}]
)
def test_rubbish_is_400_and_loads_nothing(kept: Running, fields: dict[str, Any]) -> None:
    loads = kept.component()["loads"]
    answer = kept.embed("x", **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == next(iter(fields))
    assert (kept.component()["state"], kept.component()["loads"]) == ("unloaded", loads)


def test_an_empty_list_loads_nothing_whatever_it_asks_for(kept: Running) -> None:
    assert kept.embed([], keep_alive=-1).json()["data"] == []
    component = kept.component()
    assert (component["state"], component["keep_alive_seconds"]) == ("unloaded", None)
