"""The house rules that a program can check: style, types, the direction of imports, the exported names."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "engine").rglob("*.py"), *(ROOT / "tray").rglob("*.py")])
MODEL_LIBRARIES = {
    "torch",
    "transformers",
    "sentence_transformers",
    "spacy",
    "open_clip",
    "safetensors",
    "tokenizers",
    "huggingface_hub",
}

# (where the rule holds, what must not be imported there, where it is allowed all the same)
FORBIDDEN = [
    ("engine", {"tray", "pystray", "gi"}, ()),
    ("engine", {"PIL"}, ("engine/operations/images.py",)),
    ("engine/operations", {"engine.adapters", "engine.weights", "engine.slot", "engine.http"}, ()),
    ("engine/proxies", {"engine.adapters", "engine.weights", "engine.slot", "engine.http"}, ()),
    ("engine", MODEL_LIBRARIES, ("engine/adapters/", "engine/devices/", "engine/weights/")),
    ("tray", MODEL_LIBRARIES, ()),
    ("tray", {"pystray"}, ("tray/icon/",)),
    ("tray", {"engine.slot", "engine.adapters", "engine.weights"}, ()),
    ("tray/menu", {"pystray", "PIL"}, ()),
    ("tray/words.py", {"pystray", "PIL"}, ()),
    ("tray/notices.py", {"pystray", "PIL"}, ()),
    ("engine/http", {"engine.slot", "engine.adapters", "engine.weights"}, ()),
]


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {node.module or ""} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def reaches(module: str, targets: set[str]) -> bool:
    return any(module == target or module.startswith(f"{target}.") for target in targets)


def within(path: Path, place: str) -> bool:
    name = path.relative_to(ROOT).as_posix()
    return name == place or name.startswith(place if place.endswith("/") else f"{place}/")


@pytest.mark.parametrize(("place", "targets", "allowed"), FORBIDDEN)
def test_no_import_points_the_wrong_way(place: str, targets: set[str], allowed: tuple[str, ...]) -> None:
    checked = [path for path in SOURCES if within(path, place) and not any(within(path, a) for a in allowed)]
    assert checked, f"{place} holds no files: is the rule out of date?"
    wrong = {
        f"{path.relative_to(ROOT)} -> {name}" for path in checked for name in imports(path) if reaches(name, targets)
    }
    assert not wrong


def test_the_policy_knows_nothing_but_state() -> None:
    ours = {
        name for name in imports(ROOT / "engine" / "residency" / "policy.py") if name.startswith(("engine", "tray"))
    }
    assert all(reaches(name, {"engine.state"}) for name in ours)


def test_no_dialect_imports_another() -> None:
    folder = ROOT / "engine" / "http" / "dialects"
    for path in folder.glob("*.py"):
        others = {f"engine.http.dialects.{other.stem}" for other in folder.glob("*.py") if other != path}
        assert not [name for name in imports(path) if reaches(name, others)], path


def test_only_the_platform_folders_ask_which_system_it_is() -> None:
    asking = [
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if any(word in path.read_text(encoding="utf-8") for word in ("sys.platform", "os.name", "platform.system"))
    ]
    assert all(name.startswith(("engine/power/", "engine/weights/files/pages/", "tray/platform/")) for name in asking)


@pytest.mark.parametrize("package", ["engine"])
def test_the_exported_names_are_there_and_sorted(package: str) -> None:
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


def test_every_public_name_of_a_module_has_a_docstring() -> None:
    bare = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.stat().st_size and ast.get_docstring(tree) is None:
            bare.append(path.name)
        bare += [
            f"{path.name}: {node.name}"
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node) is None
        ]
    assert not bare


def test_importing_the_command_line_loads_no_heavy_library() -> None:
    heavy = sorted(MODEL_LIBRARIES | {"numpy", "PIL", "pystray", "fastapi", "pynvml", "jeepney"})
    code = f"import sys, engine, tray.cli.main; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["mypy", "--platform", "win32"],
    ],
    ids=" ".join,
)
def test_the_tools_find_nothing(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
