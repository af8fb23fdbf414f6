#!/usr/bin/env python3
"""The project's commands and their set-up: standard library only, on Linux and Windows.

    python3 build/dev.py run [-- pilotlight's arguments]   set up, then start Pilotlight in the foreground
    python3 build/dev.py test [-- pytest's arguments]      set up with the test tools, then run every test
    python3 build/dev.py test --quick                      the tests of the inner loop; prints what it left out
    python3 build/dev.py test --lowest                     the lowest versions allowed, in .venv-lowest
    python3 build/dev.py soak [NAME [-- arguments]]        run one test at full length; without a name, list them
    python3 build/dev.py bench [NAME [-- arguments]]       run build/bench/NAME.py; without a name, list them
    python3 build/dev.py bench --gpu [-- arguments]        run build/bench/gpu.py, with torch's CUDA build if it can
    python3 build/dev.py wheels                            do all pins have wheels for every system and Python?

Set-up makes .venv from pyproject.toml at the versions in build/constraints.txt, and on Debian and Ubuntu installs the
system packages of a tray. A stamp in .venv says what was done, so that the next run starts at once; a set-up that was
killed half-way starts from zero. `--gpu cuda` takes torch's CUDA build instead of its CPU build.

`test` runs one worker on each core, at most four. With arguments after `--` pytest runs without workers, as one file,
-x, -s or --pdb need it.

The tests' open_clip is in .venv/open_clip, which is on no path: the torchvision that it needs is a CUDA build on PyPI,
and beside a CPU torch that one breaks transformers, which imports torchvision wherever it is installed. .venv/litellm
has the ranks of OpenAI's tokenizer, which tiktoken would fetch.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import lowest
from environment import PYTHON, ROOT, VENV_PYTHON, WINDOWS, SetupError, set_up

COMMANDS = ["run", "test", "soak", "bench", "wheels"]
MOST_WORKERS = 4
"""A worker holds torch and the models under test, about 2 GB."""


def main() -> int:
    """Run one command; return its exit status."""
    arguments, rest = split_at_dashes(sys.argv[1:])
    parser = argparse.ArgumentParser(
        prog="build/dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("name", nargs="?", help="which benchmark or soak")
    parser.add_argument("--quick", action="store_true", help="test: unit tests, house rules, half of the fake device")
    parser.add_argument("--lowest", action="store_true", help="test: the lowest versions that pyproject.toml allows")
    # Without the option a .venv keeps the build that it has, so that `run --gpu cuda` need be said only once.
    parser.add_argument("--gpu", nargs="?", const="cuda", choices=["cpu", "cuda"], help="which build of torch")
    options = parser.parse_args(arguments)
    if options.name and options.command not in ("bench", "soak"):
        parser.error(f"arguments for {options.command} go after --")
    if (options.quick or options.lowest) and options.command != "test":
        parser.error("--quick and --lowest are options of test")
    try:
        check_python()
        if options.command == "soak" and not options.name:
            return print_lines(soaks())
        if options.command == "bench" and not options.name:
            if options.gpu is None:
                return print_lines(benchmarks())
            options.name = "gpu"
            if options.gpu == "cuda" and not has_nvidia_driver():
                options.gpu = None  # gigabytes for a benchmark that could only say that there is no GPU
        command = command_line(options, rest)
        if options.lowest:
            lowest.set_up(options.gpu)
            return start(command)
        set_up("run" if options.command == "run" else "test", options.gpu)
        return start(command)
    except SetupError as reason:
        print(f"dev.py: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def split_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return our arguments and those after the first `--`."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def check_python() -> None:
    """Raise SetupError unless this Python can run Pilotlight."""
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return
    names = [name for name in ("python3.13", "python3.12", "python3.11") if shutil.which(name)]
    hint = f"Try: {names[0]} {shlex.join(sys.argv)}" if names else "Install one of them and call it by its name."
    raise SetupError(f"Pilotlight needs Python 3.11, 3.12 or 3.13; this is {PYTHON}. {hint}")


def command_line(options: argparse.Namespace, rest: list[str]) -> list[str]:
    """Return the command that runs after the set-up; raises SetupError for a name that does not exist."""
    python = str(VENV_PYTHON)
    if options.command == "run":
        return [python, "-P", "-m", "tray.cli", "run", *rest]  # -P: a folder named `tray` where we are is not ours
    if options.command == "wheels":
        return [python, str(ROOT / "build" / "check_wheels.py"), *rest]
    if options.command == "bench":
        if options.name not in benchmarks():
            raise SetupError(f"there is no benchmark {options.name!r}; without a name, `bench` lists them")
        return [python, str(ROOT / "build" / "bench" / f"{options.name}.py"), *rest]
    os.chdir(ROOT)
    if options.command == "soak":
        if options.name not in soaks():
            raise SetupError(f"there is no soak {options.name!r}; without a name, `soak` lists them")
        return [python, "-m", "pytest", "--soak", options.name, *(rest or ["-s"]), *soaks()[options.name]]
    if options.lowest:
        return [str(lowest.VENV_PYTHON), "-m", "pytest", *(rest or [*workers(), *lowest.TESTS])]
    quick = ["--quick"] if options.quick else []
    return [python, "-m", "pytest", *quick, *(rest or workers())]


def workers() -> list[str]:
    """Return pytest's options for one worker on each core, each taking a file at a time; one core needs no worker."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    number = min(cores, MOST_WORKERS)
    return [f"--numprocesses={number}", "--dist=loadfile", "--no-loadscope-reorder"] if number > 1 else []


def benchmarks() -> list[str]:
    """Return the names of the benchmarks."""
    scripts = sorted((ROOT / "build" / "bench").glob("*.py"))
    return [script.stem for script in scripts if "def main(" in script.read_text(encoding="utf-8")]


def soaks() -> dict[str, list[str]]:
    """Return the files in which tests are marked as part of each soak."""
    named: dict[str, list[str]] = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in sorted(set(re.findall(r'mark\.soak\("(\w+)"\)', file.read_text(encoding="utf-8")))):
            named.setdefault(name, []).append(str(file.relative_to(ROOT)))
    return named


def print_lines(names: list[str] | dict[str, list[str]]) -> int:
    """Print one name per line."""
    for name in names:
        print(name)
    return 0


def has_nvidia_driver() -> bool:
    """Return whether NVIDIA's driver library can be loaded."""
    try:
        ctypes.CDLL("nvcuda.dll" if WINDOWS else "libcuda.so.1")
    except OSError:
        return False
    return True


def start(command: list[str]) -> int:
    """Replace this process by the command; Windows cannot, so there wait for the command."""
    sys.stdout.flush()
    if not WINDOWS:
        os.execv(command[0], command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child gets the console's Ctrl-C; we return its exit status
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
