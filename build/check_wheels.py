"""Check that every pinned version has a wheel for Linux and Windows on each Python. Called by `build/dev.py wheels`.

Asks the package index for the versions that it has for each target; downloads no wheel. About 400 queries, two minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import Requirement

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = {
    # glibc 2.28 and older, down to the names that manylinux had before versions
    "linux": [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)]
    + [f"manylinux{name}_x86_64" for name in ("2014", "2010", "1")],
    "win32": ["win_amd64"],
}
NO_WHEELS = {"pygobject", "pycairo"}  # Debian's own build is linked, or they are compiled: see build/environment.py


def environment(python: str, system: str) -> dict[str, str]:
    """Return the values of a target for environment markers."""
    windows = system == "win32"
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": system,
        "platform_system": "Windows" if windows else "Linux",
        "platform_machine": "AMD64" if windows else "x86_64",
        "os_name": "nt" if windows else "posix",
    }


def pins() -> list[Requirement]:
    """Return the pins that should have wheels."""
    lines = (line.partition("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines())
    return [pin for pin in map(Requirement, filter(None, lines)) if pin.name.lower() not in NO_WHEELS]


def offered(pin: Requirement, python: str, system: str) -> bool:
    """Return whether the index has a wheel of this version for the target."""
    command = [sys.executable, "-m", "pip", "index", "versions", pin.name, "--json", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp", "--disable-pip-version-check"]
    for platform in PLATFORMS[system]:
        command += ["--platform", platform]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return False
    (specifier,) = pin.specifier
    return specifier.version in json.loads(result.stdout)["versions"]


def main() -> int:
    """Print the missing wheels; return 1 if there are any."""
    questions = [
        (pin, python, system)
        for pin in pins()
        for python in PYTHONS
        for system in PLATFORMS
        if pin.marker is None or pin.marker.evaluate(environment(python, system))
    ]
    with ThreadPoolExecutor(max_workers=2 * (os.cpu_count() or 1)) as pool:
        answers = list(pool.map(lambda question: offered(*question), questions))
    missing = [question for question, found in zip(questions, answers, strict=True) if not found]
    for pin, python, system in missing:
        print(f"no wheel: {pin.name}{pin.specifier} for Python {python} on {system}")
    print(f"{len(questions) - len(missing)} of {len(questions)} wheels found")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
