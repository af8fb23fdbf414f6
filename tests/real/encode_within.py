"""Run as a script: encode on a CPU, streamed in a memory group or whole in none, and print what it took as JSON."""

import json
import os
import sys
import time
from pathlib import Path

from engine import Config, EncoderConfig, Engine, Hardware

TEXTS = ["a pilot light", "keeps every encoder ready " * 3, "0123456789"]


def peak() -> int:
    """The most bytes that were resident at once so far."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main(model: str, group: str | None = None) -> None:
    if group:
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
    hardware = Hardware(device="cpu", idle_timeout_seconds=0, stream_layers=group is not None)
    encoder = EncoderConfig(name="large", kind="dense", model=model)
    with Engine(Config(hardware=hardware, encoders=(encoder,))) as engine:
        vectors = engine.dense("large").encode(TEXTS)
        began = time.monotonic()
        again = engine.dense("large").encode(TEXTS)
        seconds = time.monotonic() - began
        equal = vectors.tobytes() == again.tobytes()
        print(json.dumps({"vectors": vectors.tobytes().hex(), "equal": equal, "peak": peak(), "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
