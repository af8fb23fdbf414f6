"""Models by hub id, from a hub on this machine that speaks as much of the real one's API as a download needs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from running import ROOT
from small_models import DIMENSION, bert

COMMIT = "c0ffee" + "0" * 34

FILES = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b"{}",
    "modules.json": b"[]",
    "1_Pooling/config.json": b'{"pooling_mode": "mean"}',
    "model.safetensors": b"safe" * 1000,
    "pytorch_model.bin": b"pickled",
    "tf_model.h5": b"tensorflow",
    "flax_model.msgpack": b"flax",
    "rust_model.ot": b"rust",
    "model.onnx": b"onnx",
    "onnx/model.onnx": b"onnx",
    "onnx/model_quantized.onnx": b"onnx",
    "openvino/openvino_model.bin": b"openvino",
    "openvino/openvino_model.xml": b"openvino",
    "model-q8_0.gguf": b"gguf",
}
FIRST = {"modules.json", "config.json"}
NEEDED = {"config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"}


class Hub:
    """Serves repositories; the contents may be changed at any time."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.revisions = {"main", "v1"}
        self.reached = threading.Event()
        """Set when somebody asks for a file in `held`."""
        self.go = threading.Event()
        """Set to let that file through."""
        self.held: set[str] = set()
        self.broken: set[str] = set()
        """Files of which only a part arrives."""
        self.cut: dict[str, int] = {}
        """Files of which so many bytes arrive, and then the server is gone until it is asked anew."""
        self.large: set[str] = set()
        """Files that are named for their SHA-256, and sent from where one asks."""
        self.refused: dict[str, tuple[int, str]] = {}
        """Repositories that are not given: status, error code."""
        self.ranges: list[int] = []
        """Where the answers for large files began."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="hub")
        self._thread.start()

    def close(self) -> None:
        """Be gone; safe to call twice."""
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def downloaded(self) -> set[str]:
        """The files that were sent."""
        return {path.split(f"/resolve/{COMMIT}/")[1] for path in self.requests if "/resolve/" in path}

    def etag(self, file: str, data: bytes) -> str:
        """What a file is named for in the cache."""
        return hashlib.sha256(data).hexdigest() if file in self.large else hashlib.sha1(data).hexdigest()  # noqa: S324

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            """One request; the routes are those of huggingface.co."""

            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(send=False)

            def do_GET(self) -> None:
                hub.requests.append(self.path)
                self._answer(send=True)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def _answer(self, *, send: bool) -> None:
                if self.path == "/reached":
                    hub.reached.wait(60)
                    return self._send(200, b"", {})
                if self.path == "/go":
                    hub.go.set()
                    return self._send(200, b"", {})
                path = self.path.partition("?")[0]
                for name, files in hub.repositories.items():
                    if name in hub.refused and f"/{name}/" in path:
                        status, code = hub.refused[name]
                        return self._send(status, b"{}", {"X-Error-Code": code}, send=send)
                    if (
                        path.startswith(f"/api/models/{name}/revision/")
                        and path.rpartition("/")[2] not in hub.revisions
                    ):
                        return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, send=send)
                    if path.startswith(f"/api/models/{name}/revision/"):
                        siblings = [{"rfilename": file} for file in files]
                        return self._json({"id": name, "sha": COMMIT, "siblings": siblings, "tags": []})
                    if path == f"/api/models/{name}/tree/{COMMIT}":
                        return self._json(
                            [
                                {"type": "file", "path": file, "size": len(data), "oid": hub.etag(file, data)}
                                for file, data in files.items()
                            ]
                        )
                    file = path.removeprefix(f"/{name}/resolve/{COMMIT}/")
                    if file in files:
                        return self._file(file, files[file], send=send)
                return self._send(
                    401, b'{"error": "Invalid username or password."}', {"X-Error-Code": "RepoNotFound"}, send=send
                )

            def _file(self, file: str, data: bytes, *, send: bool) -> None:
                if send and file in hub.held:
                    hub.reached.set()
                    hub.go.wait(60)
                if send and file in hub.broken:
                    self.close_connection = True
                headers = {"ETag": f'"{hub.etag(file, data)}"', "X-Repo-Commit": COMMIT}
                part = len(data) // 2 if file in hub.broken else None
                status = 200
                if send and file in hub.large:
                    begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
                    hub.ranges.append(begin)
                    data, status = data[begin:], 206
                    if (left := hub.cut.pop(file, None)) is not None:
                        self.close_connection, part = True, left
                    if part is not None:
                        self.close_connection = True
                self._send(status, data, headers, send=send, part=part)

            def _json(self, value: Any) -> None:
                self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

            def _send(
                self, status: int, data: bytes, headers: dict[str, str], *, send: bool = True, part: int | None = None
            ) -> None:
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if send:
                    self.wfile.write(data[:part])

        return Handler


IMPATIENT = "import time; sleep = time.sleep; time.sleep = lambda seconds: sleep(seconds / 20)"
"""Goes before a script, so that the library's pauses before it asks again take a second and not half a minute."""

FETCH = """
import json, os, sys
from pathlib import Path

from engine.adapters.sources.download import Progress
from engine.adapters.sources.hub import fetch
from engine.errors import EncoderError

told = []
for model in sys.argv[1:]:
    name, _, revision = model.partition("@")
    try:
        progress = Progress(lambda download: told.append([download.done, download.total]), clock=lambda: 0.0)
        folder = fetch(name, revision or None, offline="OFFLINE" in os.environ, progress=progress)
        files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        print(json.dumps({"folder": str(folder), "files": files, "told": told}))
    except EncoderError as error:
        print(json.dumps({"title": error.title, "message": error.message, "next_step": error.next_step}))
assert "torch" not in sys.modules
"""

LOAD = """
import json, os, sys, threading, urllib.request

from engine.adapters.kinds.dense import DenseAdapter
from engine.settings.config import EncoderConfig
from engine.devices.placement import Placement
from engine.adapters.context import AdapterContext
from engine.weights.gate import CONSTRUCTION

told, loaded = [], []
context = AdapterContext(report_download=lambda download: told.append([download.done, download.total]))
adapter = DenseAdapter(EncoderConfig("small", "dense", sys.argv[1]), "cpu", context)
thread = threading.Thread(target=lambda: loaded.append(adapter.load()))
thread.start()
urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/reached").close()
meanwhile = adapter.download
free = CONSTRUCTION.acquire(timeout=5)
if free:
    CONSTRUCTION.release()
urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/go").close()
thread.join()
adapter.resume(Placement("cpu"))
shape = adapter.encode(["a pilot light"]).vectors.shape
print(json.dumps({"free": free, "revision": loaded[0].revision, "shape": shape, "rests": adapter.cannot_rest is None}))
print(json.dumps({"meanwhile": [meanwhile.done, meanwhile.total], "now": adapter.download, "last": told[-1]}))
"""

QUIT = """
import json, os, sys, urllib.request

from engine import Engine
from engine.settings.parsing import parse

engine = Engine(parse({"encoders": {"big": {"kind": "dense", "model": sys.argv[1]}}}))
engine.start()
engine.submit_load("big")
urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/reached").close()
print(json.dumps({"clean": engine.close(timeout=0.5)}), flush=True)
"""

Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    """Runs a script against the hub, with a cache of the test's own; returns the lines that it printed, parsed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    ours = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
    }

    def run(script: str, *arguments: str, **environment: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=ROOT,
            env=kept | ours | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    return run


def test_only_what_is_needed_is_downloaded_and_the_cache_serves_when_the_hub_is_gone(hub: Hub, run: Run) -> None:
    hub.repositories["org/small"] = FILES
    (first,) = run(FETCH, "org/small")
    assert set(first["files"]) == hub.downloaded() == NEEDED | {"model.safetensors"}
    assert Path(first["folder"]).name == COMMIT
    assert Path(first["folder"], "model.safetensors").read_bytes() == FILES["model.safetensors"]

    hub.requests.clear()
    first["told"] = []
    assert run(FETCH, "org/small") == [first]
    assert hub.downloaded() == set(), "what is there is not sent again"

    hub.close()
    assert run(FETCH, "org/small") == [first]


def test_pickled_weights_are_downloaded_where_there_are_no_others(hub: Hub, run: Run) -> None:
    hub.repositories["org/old"] = {name: data for name, data in FILES.items() if name != "model.safetensors"}
    (first,) = run(FETCH, "org/old")
    assert set(first["files"]) == NEEDED | {"pytorch_model.bin"}
    first["told"] = []
    hub.close()
    assert run(FETCH, "org/old") == [first]


def test_the_pickled_weights_of_one_module_are_downloaded_beside_the_safetensors_of_another(hub: Hub, run: Run) -> None:
    hub.repositories["org/mixed"] = FILES | {
        "modules.json": json.dumps([{"path": path} for path in ("", "1_Pooling", "2_Dense")]).encode(),
        "2_Dense/config.json": b'{"in_features": 4}',
        "2_Dense/pytorch_model.bin": b"pickled too",
    }
    (found,) = run(FETCH, "org/mixed")
    assert "2_Dense/pytorch_model.bin" in found["files"]
    assert "pytorch_model.bin" not in found["files"]


def test_a_model_that_cannot_be_had_is_a_load_failure_that_says_what_to_do(hub: Hub, run: Run) -> None:
    hub.repositories["org/small"] = FILES
    (unknown,) = run(FETCH, "org/unknown")
    assert unknown["title"] == "Model not downloaded"
    assert "org/unknown" in unknown["message"]
    assert unknown["next_step"]
    hub.close()
    (offline,) = run(FETCH, "org/small")
    assert offline["title"] == "Model not downloaded"
    assert "org/small is not on this computer" in offline["message"]
    assert "network" in offline["next_step"]


@pytest.mark.parametrize("model", ["org/small--name", "org/small.git", "org/..", "-org/small"])
def test_an_id_that_no_hub_would_take_is_a_load_failure_too(model: str, run: Run) -> None:
    (failed,) = run(FETCH, model)
    assert failed["title"] == "Model not downloaded"
    assert failed["next_step"]


def test_a_download_that_breaks_off_is_a_load_failure_and_goes_on_next_time(hub: Hub, run: Run) -> None:
    hub.repositories["org/small"] = FILES
    hub.broken = {"model.safetensors"}
    (failed,) = run(IMPATIENT + FETCH, "org/small")
    assert failed["title"] == "Model not downloaded"
    assert "org/small" in failed["message"]
    hub.broken = set()
    (whole,) = run(FETCH, "org/small")
    assert Path(whole["folder"], "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_download_that_broke_off_is_not_taken_for_the_model_when_the_hub_is_gone(hub: Hub, run: Run) -> None:
    hub.repositories["org/small"] = FILES
    hub.broken = {"model.safetensors"}
    run(IMPATIENT + FETCH, "org/small")
    hub.close()
    (failed,) = run(IMPATIENT + FETCH, "org/small")
    assert failed["title"] == "Model not downloaded"


def test_others_may_be_constructed_and_moved_while_one_is_downloaded(hub: Hub, run: Run, tmp_path: Path) -> None:
    folder = bert(tmp_path / "model")
    hub.repositories["org/small"] = {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }
    hub.held = {"model.safetensors"}
    found, download = run(LOAD, "org/small")
    assert found == {"free": True, "revision": f"{COMMIT}+float32", "shape": [1, DIMENSION], "rests": True}
    files = hub.repositories["org/small"]
    first = FIRST | {file for file in files if file.endswith("/config.json")}
    total = sum(len(data) for file, data in files.items() if file not in first)
    assert download == {"meanwhile": [0, total], "now": None, "last": [total, total]}


BIG = bytes(range(256)) * (24 << 10)  # 6 MiB
PARTS = FILES | {"model.safetensors": BIG}


def test_a_large_file_that_is_cut_off_goes_on_within_the_download_and_in_the_next_process(hub: Hub, run: Run) -> None:
    hub.repositories["org/big"], hub.large = PARTS, {"model.safetensors"}
    hub.cut = {"model.safetensors": 1_000_000}
    (whole,) = run(FETCH, "org/big")
    assert hub.ranges == [0, 1_000_000]
    weights = Path(whole["folder"], "model.safetensors")
    assert weights.read_bytes() == BIG

    blob = weights.resolve()
    weights.unlink()
    blob.unlink()
    blob.with_name(f"{blob.name}.incomplete").write_bytes(BIG[:2_000_000])  # as a process that was killed left it
    hub.ranges.clear()
    (again,) = run(FETCH, "org/big")
    assert hub.ranges == [2_000_000]
    assert Path(again["folder"], "model.safetensors").read_bytes() == BIG
    assert [path.name for path in blob.parent.glob("*.incomplete")] == []


def test_a_part_that_is_not_of_this_file_is_thrown_away_and_the_next_try_begins_anew(hub: Hub, run: Run) -> None:
    hub.repositories["org/big"], hub.large = PARTS, {"model.safetensors"}
    (first,) = run(FETCH, "org/big")
    blob = Path(first["folder"], "model.safetensors").resolve()
    Path(first["folder"], "model.safetensors").unlink()
    blob.unlink()
    blob.with_name(f"{blob.name}.incomplete").write_bytes(b"other" * 100)
    failed, whole = run(FETCH, "org/big", "org/big")
    assert "damaged" in failed["message"]
    assert Path(whole["folder"], "model.safetensors").read_bytes() == BIG


def test_the_bytes_of_a_download_are_told_from_its_begin_to_its_end(hub: Hub, run: Run) -> None:
    hub.repositories["org/big"], hub.large = PARTS, {"model.safetensors"}
    hub.cut = {"model.safetensors": 1_000_000}
    (found,) = run(FETCH, "org/big")
    total = sum(len(data) for file, data in PARTS.items() if file in found["files"] and file not in FIRST)
    assert found["told"][0] == [0, total]
    assert found["told"][-1] == [total, total]


def test_offline_asks_nobody_and_takes_what_the_cache_has(hub: Hub, run: Run) -> None:
    hub.repositories["org/small"] = FILES
    (failed,) = run(FETCH, "org/small", OFFLINE="1")
    assert "not on this computer" in failed["message"]
    assert "offline = false" in failed["next_step"]
    assert hub.requests == []
    (first,) = run(FETCH, "org/small")
    hub.requests.clear()
    (second,) = run(FETCH, "org/small", OFFLINE="1")
    assert second["folder"] == first["folder"]
    assert hub.requests == []


def test_a_commit_that_is_there_asks_nobody_and_another_revision_is_asked_for(hub: Hub, run: Run) -> None:
    hub.repositories["org/small"] = FILES
    (tagged,) = run(FETCH, "org/small@v1")
    hub.requests.clear()
    (same,) = run(FETCH, f"org/small@{COMMIT}")
    assert same["folder"] == tagged["folder"]
    assert hub.requests == []
    (unknown,) = run(FETCH, "org/small@v2")
    assert "no revision 'v2'" in unknown["message"]
    assert unknown["next_step"]


def test_the_heads_beside_pickled_weights_are_downloaded_and_what_training_left_is_not(hub: Hub, run: Run) -> None:
    hub.repositories["org/m3"] = {name: data for name, data in FILES.items() if name != "model.safetensors"} | {
        "sparse_linear.pt": b"sparse",
        "colbert_linear.pt": b"colbert",
        "optimizer.pt": b"adam",
        "training_args.bin": b"arguments",
    }
    (found,) = run(FETCH, "org/m3")
    assert set(found["files"]) == NEEDED | {"pytorch_model.bin", "sparse_linear.pt", "colbert_linear.pt"}


@pytest.mark.parametrize(
    ("status", "code", "said"), [(403, "GatedRepo", "accept its licence"), (401, "", "does not give")]
)
def test_a_model_that_is_not_given_to_everybody_says_how_to_get_it(
    status: int, code: str, said: str, hub: Hub, run: Run
) -> None:
    hub.repositories["org/gated"] = FILES
    hub.refused = {"org/gated": (status, code)}
    (failed,) = run(FETCH, "org/gated")
    assert said in failed["message"] or "private" in failed["message"]
    assert "hf auth login" in failed["next_step"]


def test_a_quit_does_not_wait_for_a_download_which_goes_on_with_the_next_start(hub: Hub, run: Run) -> None:
    hub.repositories["org/big"], hub.large = PARTS, {"model.safetensors"}
    hub.held = {"model.safetensors"}
    began = time.monotonic()
    assert run(QUIT, "org/big") == [{"clean": False}]
    assert time.monotonic() - began < 40, "the hub holds the file for a minute"


CODE = """
import json, sys

from engine.adapters.context import AdapterContext
from engine.adapters.kinds.dense import DenseAdapter
from engine.devices.placement import Placement
from engine.errors import EncoderError
from engine.settings.config import EncoderConfig

context = AdapterContext(offline=lambda: sys.argv[2] == "offline")
adapter = DenseAdapter(EncoderConfig("small", "dense", sys.argv[1], trust_remote_code=True), "cpu", context)
try:
    adapter.load()
    adapter.resume(Placement("cpu"))
    print(json.dumps({"shape": adapter.encode(["a pilot light"]).vectors.shape}))
except EncoderError as error:
    print(json.dumps({"kind": type(error).__name__, "message": error.message, "next_step": error.next_step}))
"""


@pytest.mark.slow
def test_code_of_another_model_is_fetched_for_a_hub_id_and_online_only(hub: Hub, run: Run, tmp_path: Path) -> None:
    folder = bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = {"AutoConfig": "org/code--own.OwnConfig", "AutoModel": "org/code--own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": names}))
    own = (
        "from transformers import BertConfig, BertModel\n\nclass OwnConfig(BertConfig):\n    model_type = 'own'\n\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
    )
    files = [path for path in folder.rglob("*") if path.is_file()]
    hub.repositories["org/model"] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    hub.repositories["org/code"] = {"own.py": own.encode(), "model.safetensors": b"large"}

    (local,) = run(CODE, str(folder), "online")
    assert local["kind"] == "Unavailable"
    assert "org/code" in local["message"]
    assert hub.requests == []
    assert run(CODE, "org/model", "online") == [{"shape": [1, DIMENSION]}]
    assert not any("/org/code/" in path and "safetensors" in path for path in hub.requests), "nothing but code"
    hub.requests.clear()
    assert run(CODE, "org/model", "offline") == [{"shape": [1, DIMENSION]}], "what was fetched is used"
    assert hub.requests == []
