"""All kinds of encoder beside each other in one Pilotlight: lazy, loaded once each, each with its route."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import every_kind
import pytest
from running import ROOT, Home, Running

_THREADS = 8

_LOOKING = """\
import asyncio, json, sys
import httpx
from pathlib import Path
from engine import Engine
from engine.settings.file import SettingsFile
from engine.http.app import create_app

file = SettingsFile(Path(sys.argv[1]))
engine = Engine(file.open())
engine.start()
app = create_app(engine, host="127.0.0.1", token="t", version="1", settings=file)

async def look():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        found = [(await client.get(path)).json() for path in ("/admin/components", "/v1/models", "/openapi.json")]
        bodies = [{"texts": []}, {"query": "x", "texts": []}, {"images": []}, {"pairs": []}]
        for path in ("dense", "sparse", "multi", "axes", "rerank", "image", "image_text", "tag", "classify"):
            for body in bodies:
                answered = await client.post(f"/encode/{path}", json=body)
                assert answered.status_code in (200, 422), (path, body, answered.text)
        return found[0]["components"]

components = asyncio.run(look())
proxies = [engine.dense(), engine.sparse(), engine.multi(), engine.rerank(), engine.classify(), engine.image_text(),
           engine.tag(), engine.axes(), engine.plugin("shouter")]
shown = [repr(proxy) for proxy in proxies]
print(json.dumps({
    "states": {one["name"]: one["state"] for one in components},
    "imported": [name for name in sys.argv[2].split(",") if name in sys.modules],
    "proxies": shown,
}))
engine.close()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def settings(folder: Path) -> str:
    return every_kind.settings(folder)


@pytest.fixture(scope="module")
def home(folder: Path, settings: str) -> Home:
    home = Home(folder / "home", settings)
    home.environment["PYTHONPATH"] = f"{home.environment['PYTHONPATH']}:{folder / 'site'}"
    return home


@pytest.fixture(scope="module")
def running(home: Home) -> Iterator[Running]:
    running = Running(home)
    yield running
    running.end()


def test_looking_at_all_kinds_imports_no_library_and_loads_nothing(home: Home) -> None:
    asked = [sys.executable, "-c", _LOOKING, str(home.settings), ",".join((*every_kind.LIBRARIES, "shouting", "PIL"))]
    environment = {**home.environment, "PYTHONPATH": f"{ROOT}:{home.environment['PYTHONPATH']}"}
    done = subprocess.run(asked, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["states"] == dict.fromkeys(every_kind.COMPONENTS, "unloaded")
    assert found["imported"] == []
    assert all("idle (not loaded)" in shown for shown in found["proxies"])


def test_eight_first_callers_of_every_kind_at_once_load_each_of_them_once(running: Running) -> None:
    asked = every_kind.requests()
    # The base of the axes is asked for by its own callers too.
    with ThreadPoolExecutor(_THREADS * len(asked)) as callers:
        answers = {
            name: [callers.submit(running.http.post, path, json={**body, "model": name}) for _ in range(_THREADS)]
            for name, (path, body) in asked.items()
        }
    for name, futures in answers.items():
        answered = [future.result() for future in futures]
        assert [one.status_code for one in answered] == [200] * _THREADS, (name, answered[0].text)
        assert all(one.content == answered[0].content for one in answered), name
        assert {"model", "revision"} <= set(answered[0].json()), name
    components = {name: running.component(name) for name in asked}
    assert {name: component["loads"] for name, component in components.items()} == dict.fromkeys(asked, 1)
    assert all(component["state"] == "on_device" for component in components.values())
    assert all(component["revision"] for component in components.values()), components


@pytest.mark.parametrize("name", every_kind.COMPONENTS)
def test_each_answers_alike_after_it_stepped_down_and_after_it_was_unloaded(running: Running, name: str) -> None:
    path, body = every_kind.requests()[name]

    def ask() -> bytes:
        answered = running.http.post(path, json={**body, "model": name})
        assert answered.status_code == 200, answered.text
        return answered.content

    first = ask()
    assert running.control(f"components/{name}/offload").json()["state"] in ("in_ram", "unloaded")
    assert ask() == first
    assert running.control(f"components/{name}/unload").json()["state"] == "unloaded"
    assert running.component(name)["bytes_in_ram"] == 0
    assert ask() == first


def test_a_bundle_is_what_its_parts_answer(running: Running) -> None:
    found = running.http.post("/encode/bundle", json={"text": "a small flame", "top_k": 5}).json()
    asked = every_kind.requests()
    dense = running.http.post("/encode/dense", json=asked["minilm"][1]).json()["vectors"][0]
    sparse = running.http.post("/encode/sparse", json=asked["splade"][1]).json()["sparse"][0]
    axes = running.http.post("/encode/axes", json=asked["meaning"][1]).json()["vectors"][0]
    assert found["dense"] == pytest.approx(dense, abs=1e-5)
    assert found["splade"] == pytest.approx(sparse, abs=2e-4)
    assert found["sema"] == pytest.approx(axes, abs=1e-5)


def test_unloading_all_gives_all_of_it_back(running: Running) -> None:
    for name, (path, body) in every_kind.requests().items():
        assert running.http.post(path, json={**body, "model": name}).status_code == 200
    results = running.control("unload").json()["results"]
    assert [(one["name"], one["result"]) for one in results] == [(name, "done") for name in every_kind.COMPONENTS]
    assert not running.maps(".safetensors")
