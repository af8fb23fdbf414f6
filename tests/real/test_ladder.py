"""One real process on its way up and down the ladder; the tests run in this order."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from expected import Reference
from running import Home, Running


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(Home(tmp_path_factory.mktemp("cold")))
    yield running
    running.end()


def test_no_torch_is_in_the_process_before_the_first_use(cold: Running) -> None:
    for path in ("/health", "/ready", "/v1/models", "/v1/models/minilm", "/admin/components", "/admin/memory"):
        assert cold.http.get(path).status_code == 200
    assert cold.embed([]).json()["data"] == []
    assert cold.maps("libtorch") == []
    assert cold.component()["loads"] == 0
    assert cold.component()["status"] == "idle (not loaded)"


def test_32_concurrent_cold_requests_load_once(cold: Running, reference: Reference) -> None:
    assert cold.component()["loads"] == 0
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(cold.embed, itertools.repeat(reference.texts[0], 32)))
    assert [answer.status_code for answer in answers] == [200] * 32
    assert all(reference.agrees([a.json()["data"][0]["embedding"]], reference.texts[:1]) for a in answers)
    component = cold.component()
    assert component["loads"] == 1
    assert component["state"] == "on_device"
    assert cold.maps("libtorch")
    assert min(component["import_seconds"], component["load_seconds"], component["first_encode_seconds"]) > 0


def test_20_polls_a_second_neither_delay_the_step_down_nor_wake_the_encoder(cold: Running) -> None:
    cold.configure(idle_timeout_seconds=2)
    cold.embed("x").raise_for_status()
    used, down = time.monotonic(), None
    loads = cold.component()["loads"]
    for tick in range(100):
        time.sleep(max(0.0, used + tick / 20 - time.monotonic()))
        component = cold.component()
        for path in ("/health", "/v1/models", "/admin/memory"):
            cold.http.get(path)
        if down is None and component["state"] == "in_ram":
            down = time.monotonic() - used
        assert down is None or component["state"] == "in_ram"
    assert down is not None
    assert 1.9 <= down <= 3.5
    assert cold.component()["loads"] == loads


def test_after_the_idle_timeout_the_weights_memory_is_back_with_the_system(cold: Running, reference: Reference) -> None:
    cold.configure(idle_timeout_seconds=0)
    cold.embed(reference.texts).raise_for_status()
    before, held = cold.rss(), cold.resident(reference.weights)
    assert held > 10_000_000
    cold.configure(idle_timeout_seconds=0.5)
    cold.wait_for("in_ram", seconds=10)
    assert cold.resident(reference.weights) <= 0.05 * held
    fallen = before - cold.rss()
    print(f"held {held / 2**20:.1f} MiB, RSS fell by {fallen / 2**20:.1f} MiB")
    assert fallen >= 0.9 * held
    component = cold.component()
    assert component["bytes_on_device"] == 0
    assert component["bytes_in_ram"] <= 0.05 * held
    assert component["offload_seconds"] > 0


def test_after_the_unload_timeout_no_mapping_of_the_weights_is_left(cold: Running, reference: Reference) -> None:
    cold.configure(idle_timeout_seconds=0.5, unload_timeout_seconds=0.5)
    cold.wait_for("unloaded", seconds=10)
    assert cold.maps(reference.weights) == []
    assert cold.component()["bytes_on_device"] == cold.component()["bytes_in_ram"] == 0
    cold.configure(unload_timeout_seconds=900)


@pytest.mark.soak("ladder")
@pytest.mark.timeout(900)
def test_eight_threads_with_common_pauses_around_the_idle_timeout_get_right_vectors(
    cold: Running, reference: Reference, soak: bool, seed: int
) -> None:
    cold.configure(idle_timeout_seconds=0.5)
    loads, downs = cold.component()["loads"], cold.printed.count("-> in_ram")
    soonest = time.monotonic() + (300 if soak else 8)
    ends = soonest + 105
    pauses = itertools.cycle([0.8, 0.5, 1.0, 0.48, 1.5, 0.52, 0.2, 0.0])
    together = threading.Barrier(8, action=lambda: _pause(next(pauses), ends))

    def over() -> bool:
        stepped_down = cold.printed.count("-> in_ram") - downs
        return time.monotonic() > (soonest if stepped_down >= 3 else ends)

    def encode(thread: int) -> int:
        chance, done = random.Random(f"{seed} {thread}"), 0  # noqa: S311 - no secret
        try:
            while not over():
                for _ in range(chance.randint(1, 4)):
                    texts = chance.sample(reference.texts, chance.randint(1, 3))
                    answer = cold.embed(texts)
                    assert answer.status_code == 200, answer.text
                    assert reference.agrees([item["embedding"] for item in answer.json()["data"]], texts)
                    done += 1
                together.wait(30)
        except threading.BrokenBarrierError:
            pass
        finally:
            together.abort()
        return done

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(encode, range(8)))
    assert min(done) > 0
    assert cold.printed.count("-> in_ram") - downs >= 3
    assert cold.component()["loads"] - loads <= 1, "coming back is no load"


def test_nobody_beyond_this_computer_was_contacted(cold: Running) -> None:
    hosts = cold.home.contacted()
    assert "127.0.0.1" in hosts, "the audit hook saw nothing, not even our own socket"
    assert hosts <= {"127.0.0.1", "::1", "localhost"}


def _pause(seconds: float, ends: float) -> None:
    time.sleep(max(0.0, min(seconds, ends - time.monotonic())))
