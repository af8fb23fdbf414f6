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

ALLOWED = {
    # leaves
    "errors": "",
    "kinds": "",
    "paths": "",
    "power": "",
    "units": "",
    "state": "errors",
    "events": "errors state",
    "discovery": "paths",
    # values and measurements
    "operations": "errors kinds",
    "devices": "errors units",
    "settings": "errors events kinds paths units",
    # the parts of the engine
    "weights": "devices errors units",
    "proxies": "errors operations state",
    "residency": "devices errors settings state units",
    "adapters": "devices errors kinds operations paths settings state units weights",
    "slot": "adapters devices errors events settings state units",
    "serving": "errors slot state",
    "encoders": "adapters devices errors events kinds operations residency serving settings slot state",
    # the seam, the engine behind it, and what is built on it
    "interface": "devices errors events operations proxies settings state",
    "engine": "devices encoders errors events interface operations residency settings state",
    "http": "adapters devices errors events interface operations paths settings state",
    "client": "discovery errors interface operations",
    "service": "discovery engine errors http interface paths power settings",
    "__main__": "paths service",
}
"""File or folder of engine/ -> the others that it may import; each also itself. `engine/__init__.py` may import any."""

ONLY = {
    ("slot", "adapters"): {"engine.adapters.protocol"},
    ("slot", "settings"): {"engine.settings.effective"},
    ("slot", "devices"): {"engine.devices.placement"},
    # The command that installs a package in this Python.
    ("http", "adapters"): {"engine.adapters.packages"},
    ("http", "devices"): {"engine.devices.readings"},
    ("interface", "devices"): {"engine.devices.readings"},
}
"""Of these folders only the named modules may be imported from there."""

# (where the rule holds, what must not be imported there, where it is allowed all the same)
FORBIDDEN = [
    ("engine", {"tray", "pystray", "gi"}, ()),
    ("engine", {"PIL"}, ("engine/operations/images.py",)),
    ("engine", MODEL_LIBRARIES, ("engine/adapters/", "engine/devices/", "engine/weights/")),
    ("engine/adapters/base", {"engine.adapters.kinds"}, ()),
    ("engine/adapters/text", {"engine.adapters.kinds", "engine.adapters.base"}, ()),
    ("engine/adapters/sources", {f"engine.adapters.{above}" for above in ("kinds", "base", "text")}, ()),
    ("tray", MODEL_LIBRARIES, ()),
    ("tray", {"pystray"}, ("tray/icon/",)),
    (
        "tray",
        {
            f"engine.{inside}"
            for inside in ("adapters", "encoders", "engine", "http", "residency", "serving", "slot", "weights")
        },
        (),
    ),
    ("tray/menu", {"pystray", "PIL"}, ()),
    ("tray/words.py", {"pystray", "PIL"}, ()),
    ("tray/notices.py", {"pystray", "PIL"}, ()),
]

LONGEST = {"engine/slot/slot.py": 260}
"""Lines of a file; 320 for every other one."""


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


def place(module: str) -> str:
    """The file or folder of engine/ that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def ours(path: Path) -> set[str]:
    """The modules of engine/ that a file imports, by name or for a name in them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.split(".")[0] == "engine"}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "engine":
            for name in node.names:
                whole = ROOT.joinpath(*node.module.split("."), name.name)
                is_module = whole.is_dir() or whole.with_suffix(".py").exists()
                found.add(f"{node.module}.{name.name}" if is_module else node.module)
    return found


def test_every_import_between_folders_is_in_the_table() -> None:
    wrong = []
    for path in sorted((ROOT / "engine").rglob("*.py")):
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        here = place(own)
        if own == "engine.__init__":
            continue
        for module in ours(path):
            there, only = place(module), ONLY.get((here, place(module)))
            if there != here and there not in ALLOWED[here].split():
                wrong.append(f"{own} -> {module}")
            elif only and not any(reaches(module, {name}) for name in only):
                wrong.append(f"{own} -> {module}, where only {', '.join(sorted(only))} may be imported")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_the_table_of_imports_has_no_circle_and_names_what_is_there() -> None:
    there = {
        path.stem for path in (ROOT / "engine").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(ALLOWED) == there - {"__init__"}
    floors: dict[str, int] = {}

    def floor(room: str, above: tuple[str, ...] = ()) -> int:
        assert room not in above, f"a circle: {' -> '.join((*above, room))}"
        if room not in floors:
            floors[room] = 1 + max((floor(below, (*above, room)) for below in ALLOWED[room].split()), default=0)
        return floors[room]

    assert max(map(floor, ALLOWED)) <= 11


def test_few_files_are_loose_and_none_is_long() -> None:
    assert len(list((ROOT / "engine").glob("*.py"))) <= 12
    sources = [*SOURCES, *(path for path in (ROOT / "build").rglob("*.py") if "bench" not in path.parts)]
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert not {name: count for name, count in lines.items() if count > LONGEST.get(name, 320)}


def test_the_init_file_of_a_folder_holds_its_docstring_alone() -> None:
    exporting = {"engine", "engine/devices", "engine/power", "engine/proxies"}
    exporting |= {"engine/adapters/kinds/image_text", "engine/weights/files/pages", "tray/platform"}
    full = {
        path.parent.relative_to(ROOT).as_posix()
        for path in SOURCES
        if path.name == "__init__.py" and len(ast.parse(path.read_text(encoding="utf-8")).body) > 1
    }
    assert full <= exporting


def test_the_policy_knows_nothing_but_state() -> None:
    ours = {
        name for name in imports(ROOT / "engine" / "residency" / "policy.py") if name.startswith(("engine", "tray"))
    }
    assert all(reaches(name, {"engine.state"}) for name in ours)


def test_no_dialect_imports_another() -> None:
    folder = ROOT / "engine" / "http" / "dialects"
    for path in folder.glob("*.py"):
        others = {
            f"engine.http.dialects.{other.stem}"
            for other in folder.glob("*.py")
            if other not in (path, folder / "dialect.py")
        }
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
    typed = ast.walk(ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8")))
    imported = [(node.module, name) for node in typed if isinstance(node, ast.ImportFrom) for name in node.names]
    shown = {
        name.asname: getattr(importlib.import_module(home or ""), name.name) for home, name in imported if name.asname
    }
    assert shown == {name: getattr(module, name) for name in module.__all__}, "type checkers see others than programs"
    with pytest.raises(AttributeError):
        module.nothing_of_that_name  # noqa: B018


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
