"""Run as a script: what an engine in this process holds after each step of the ladder, as JSON on standard output."""

import ctypes
import json
import sys
import threading
from pathlib import Path

import psutil

from engine import Config, EncoderConfig, Engine, Hardware
from engine.adapters.sources import locate as references

TEXT = "a pilot light"
BUILTIN = "builtin:all-MiniLM-L6-v2"
WEIGHTS = str(Path(references.locate(BUILTIN).source, "model.safetensors").resolve())
PROCESS = psutil.Process()


def held() -> dict[str, int]:
    """Bytes and counts of this process now."""
    lines = Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines()
    heads = [index for index, line in enumerate(lines) if WEIGHTS in line]
    resident = sum(int(line.split()[1]) for i in heads for line in lines[i : i + 6] if line.startswith("Rss:"))
    return {
        "rss": PROCESS.memory_info().rss,
        "resident": resident * 1024,
        "mappings": len(heads),
        "handles": PROCESS.num_fds(),
        "threads": threading.active_count(),
    }


def steps(engine: Engine) -> dict[str, object]:
    """One encoder's way up and down, after another of its kind has been loaded, used and dropped."""
    engine.dense("other").encode([TEXT])
    engine.unload("other")
    before = held()
    engine.dense("one").encode([TEXT])
    up = held()
    seen = engine.view("one", measured=True)
    freed = engine.offload("one").freed_bytes
    down = held()
    engine.dense("one").encode([TEXT])
    engine.unload("one")
    return {
        "before": before,
        "up": up,
        "down": down,
        "freed": freed,
        "after": held(),
        "bytes_on_device": seen.bytes_on_device,
        "bytes_total": seen.bytes_total,
    }


def cycles(engine: Engine, count: int) -> dict[str, object]:
    """Load, use, offload, use, unload, over and over."""
    dense = engine.dense("one")
    first = dense.encode([TEXT])
    engine.unload("one")
    equal, history = True, []
    for _ in range(count):
        equal &= bool((dense.encode([TEXT]) == first).all())
        assert engine.offload("one").result == "done"
        equal &= bool((dense.encode([TEXT]) == first).all())
        assert engine.unload("one").result == "done"
        history.append(held())
    return {"equal": equal, "history": history, "loads": engine.view("one").loads}


def main(task: str) -> None:
    hardware = Hardware(device="cpu", idle_timeout_seconds=0)
    encoders = tuple(EncoderConfig(name=name, kind="dense", model=BUILTIN) for name in ("one", "other"))
    with Engine(Config(hardware=hardware, encoders=encoders)) as engine:
        ctypes.CDLL(None).malloc_trim(0)
        print(json.dumps(steps(engine) if task == "steps" else cycles(engine, int(task))))


if __name__ == "__main__":
    main(sys.argv[1])
