"""Weights that are not safetensors: read once in a process of their own, kept, and refused where they want code."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from expected import importing_root
from safetensors.torch import load_file, save_file
from small_models import bert

from engine.adapters.kinds.dense import DenseAdapter
from engine.adapters.sources.linked_folder import LinkedFolder
from engine.devices.placement import CPU, Placement
from engine.errors import LoadFailed
from engine.settings.config import EncoderConfig
from engine.weights.files import unpickling
from engine.weights.files.identity import Identity
from engine.weights.files.store import Store
from engine.weights.files.unpickling import Unpickler

TEXTS = ["a pilot light", "and a longer one: it burns all day"]

Load = Callable[[Path], DenseAdapter]


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return open, (str(self.target), "w")


def die(orders: Any) -> None:
    """Stand in for the work of the process: end as the system ends one that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def converted(source: Path, store: Store) -> Path:
    with Unpickler() as unpickler:
        return unpickler.convert(Identity.of(source), store)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert in this process, where it matters only what is made: each of its own imports torch for seconds."""

    def answer(self: Unpickler, source: Identity, target: Path) -> tuple[str, str]:
        return unpickling.convert_file(str(source.path), str(target))

    monkeypatch.setattr(Unpickler, "_answer", answer)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "weights", reserve_bytes=0)


@pytest.fixture
def view(store: Store, tmp_path: Path) -> Iterator[Callable[[Path], LinkedFolder]]:
    """Opens views of folders; all of them are closed at the end."""
    views: list[LinkedFolder] = []

    def begin(folder: Path) -> LinkedFolder:
        views.append(LinkedFolder(folder, store, tmp_path / "views"))
        return views[-1]

    yield begin
    for one in views:
        one.close()
    assert not (tmp_path / "views").exists() or list((tmp_path / "views").iterdir()) == []


@pytest.fixture
def load(own_cache: Path) -> Iterator[Load]:
    """Loads a folder as a dense encoder, ready to compute; our cache is the test's own."""
    adapters: list[DenseAdapter] = []

    def begin(folder: Path) -> DenseAdapter:
        adapters.append(DenseAdapter(EncoderConfig("small", "dense", str(folder)), CPU))
        adapters[-1].load()
        adapters[-1].resume(Placement(CPU))
        return adapters[-1]

    yield begin
    for adapter in adapters:
        adapter.unload()


def expected(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS)


def pickled(folder: Path, *, legacy: bool = False) -> Path:
    """Turn every safetensors file under `folder` into a pickled state dict."""
    for file in folder.rglob("*.safetensors"):
        name = file.name.replace("model", "pytorch_model").replace(".safetensors", ".bin")
        torch.save(load_file(file), file.with_name(name), _use_new_zipfile_serialization=not legacy)
        file.unlink()
    index = folder / "model.safetensors.index.json"
    if index.exists():
        text = index.read_text(encoding="utf-8")
        text = text.replace('"model-', '"pytorch_model-').replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(text, encoding="utf-8")
        index.unlink()
    return folder


@pytest.mark.parametrize(
    ("how", "legacy"),
    [({"dense": True}, False), ({"layout": "sharded"}, False), ({}, True)],
    ids=["with a module of its own", "in shards", "in the old format"],
)
@pytest.mark.usefixtures("here")
def test_pickled_weights_compute_the_same_and_are_mapped(
    how: dict[str, Any], legacy: bool, load: Load, tmp_path: Path
) -> None:
    folder = bert(tmp_path / "model", **how)
    wanted = expected(folder)
    adapter = load(pickled(folder, legacy=legacy))
    assert not list(folder.rglob("*.safetensors"))
    assert np.array_equal(adapter.encode(TEXTS).vectors, wanted)
    assert adapter.cannot_rest is None, "they lie in files of ours"


def test_a_second_load_converts_nothing_and_a_changed_file_is_noticed_and_converted_anew(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pickled(bert(tmp_path / "model"))
    adapter = load(folder)
    first, revision = adapter.encode(TEXTS).vectors, adapter.revision
    adapter.unload()
    with monkeypatch.context() as patch:
        patch.setattr(Unpickler, "_convert", None)
        adapter.load()
        adapter.resume(Placement(CPU))
        assert np.array_equal(adapter.encode(TEXTS).vectors, first)
        assert adapter.revision == revision
        assert adapter.stale() is None
    other = pickled(bert(tmp_path / "other", seed=1))
    shutil.copyfile(other / "pytorch_model.bin", folder / "pytorch_model.bin")
    changed = adapter.stale()
    assert changed is not None
    assert "pytorch_model.bin" in changed
    adapter.unload()
    adapter.load()
    adapter.resume(Placement(CPU))
    assert np.allclose(adapter.encode(TEXTS).vectors, expected(other), atol=1e-6)
    assert adapter.revision != revision


@pytest.mark.usefixtures("here")
def test_a_head_beside_safetensors_is_converted_and_safetensors_win(
    view: Callable[[Path], LinkedFolder], tmp_path: Path
) -> None:
    folder = bert(tmp_path / "model")
    torch.save({"weight": torch.ones(1, 64)}, folder / "sparse_linear.pt")
    torch.save({"weight": torch.ones(1)}, folder / "pytorch_model.bin")
    save_file({"weight": torch.full((1, 64), 2.0)}, folder / "colbert_linear.safetensors")
    torch.save({"weight": torch.ones(1, 64)}, folder / "colbert_linear.pt")
    torch.save({"lr": 1.0}, folder / "optimizer.pt")
    seen = view(folder)
    assert torch.equal(load_file(seen.folder / "sparse_linear.safetensors")["weight"], torch.ones(1, 64))
    assert torch.equal(load_file(seen.folder / "colbert_linear.safetensors")["weight"], torch.full((1, 64), 2.0))
    assert (seen.folder / "model.safetensors").resolve() == (folder / "model.safetensors").resolve()
    assert not (seen.folder / "sparse_linear.pt").exists()
    assert json.loads((seen.folder / "config.json").read_text(encoding="utf-8"))["model_type"] == "bert"
    watched = [source.path.name for source in seen.sources]
    assert "sparse_linear.pt" in watched
    assert "pytorch_model.bin" not in watched


def test_a_folder_with_safetensors_alone_is_given_as_it_is(
    view: Callable[[Path], LinkedFolder], tmp_path: Path
) -> None:
    folder = bert(tmp_path / "model")
    assert view(folder).folder == folder


@pytest.mark.usefixtures("here")
def test_tied_and_transposed_and_half_precision_weights_come_out_as_they_were(store: Store, tmp_path: Path) -> None:
    table = torch.arange(12.0).reshape(3, 4)
    weights = {"one": table, "tied": table, "turned": table.t(), "row": table[1], "half": table.half()}
    weights |= {"brain": table.bfloat16(), "flag": torch.tensor(True), "none": torch.empty(0, 4)}
    torch.save(weights, tmp_path / "model.bin")
    made = load_file(converted(tmp_path / "model.bin", store))
    assert made.keys() == weights.keys()
    for name, tensor in weights.items():
        assert made[name].dtype is tensor.dtype
        assert torch.equal(made[name], tensor), name


@pytest.mark.usefixtures("here")
def test_tied_weights_are_loaded_by_transformers_as_from_the_pickle(
    view: Callable[[Path], LinkedFolder], tmp_path: Path
) -> None:
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForMaskedLM(BertConfig(vocab_size=50, **sizes)).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    again = BertForMaskedLM.from_pretrained(view(tmp_path).folder).eval()
    ids = torch.arange(10).unsqueeze(0)
    with torch.inference_mode():
        assert torch.equal(again(ids).logits, model(ids).logits)
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


@pytest.mark.parametrize("name", ["pytorch_model.bin", "sparse_linear.pt"])
def test_a_file_that_wants_to_run_code_is_refused_and_runs_none(
    name: str, view: Callable[[Path], LinkedFolder], tmp_path: Path
) -> None:
    folder = bert(tmp_path / "model")
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    torch.save({"weight": Hostile(tmp_path / "owned")}, folder / name)
    with pytest.raises(LoadFailed, match="cannot be read without running code") as caught:
        view(folder)
    assert name in caught.value.message
    assert "safetensors" in str(caught.value.next_step)
    assert not (tmp_path / "owned").exists()
    torch.load(folder / name, weights_only=False)["weight"].close()
    assert (tmp_path / "owned").exists(), "it would have"


@pytest.mark.usefixtures("here")
def test_a_stray_pickle_beside_the_weights_is_left_out(view: Callable[[Path], LinkedFolder], tmp_path: Path) -> None:
    folder = bert(tmp_path / "model")
    torch.save({"weight": Hostile(tmp_path / "owned")}, folder / "notes.pt")
    assert view(folder).folder == folder, "there is nothing to convert"
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.ones(1)}, folder / "pytorch_model.bin")
    seen = view(folder)
    assert not list(seen.folder.glob("notes*"))
    assert [source.path.name for source in seen.sources][1:] == ["pytorch_model.bin"]
    assert not (tmp_path / "owned").exists()


@pytest.mark.usefixtures("here")
def test_the_archives_of_openai_are_refused_with_the_name_of_the_converted_repository(
    view: Callable[[Path], LinkedFolder], tmp_path: Path
) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is on its way out, such archives are not
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "ViT-B-32.pt")
    with pytest.raises(LoadFailed, match="TorchScript") as caught:
        view(tmp_path)
    assert "openai/clip-vit-base-patch32" in str(caught.value.next_step)


@pytest.mark.parametrize(
    ("content", "said"), [(b"no weights at all", "cannot be read"), (pickle.dumps([1, 2]), "pytorch_model.bin")]
)
@pytest.mark.usefixtures("here")
def test_a_file_that_is_damaged_or_holds_something_else_is_a_clear_error(
    content: bytes, said: str, view: Callable[[Path], LinkedFolder], tmp_path: Path
) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(LoadFailed, match=said) as caught:
        view(tmp_path)
    assert caught.value.next_step
    assert list((tmp_path / "weights").iterdir()) == [], "nothing half written stays"


def test_a_process_that_dies_is_a_clear_error(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    monkeypatch.setattr(unpickling, "work", die)
    with pytest.raises(LoadFailed, match="signal 9") as caught:
        converted(tmp_path / "pytorch_model.bin", store)
    assert caught.value.next_step
    assert list((tmp_path / "weights").iterdir()) == []


def test_all_pickled_files_of_a_model_are_read_by_one_process_which_is_gone_then(
    view: Callable[[Path], LinkedFolder], tmp_path: Path
) -> None:
    folder = pickled(bert(tmp_path / "model"))
    for head in ("sparse_linear", "colbert_linear"):
        torch.save({"weight": torch.ones(1, 64)}, folder / f"{head}.pt")
    assert len(started(lambda: view(folder))) == 1
    assert multiprocessing.active_children() == []
    assert len(list((tmp_path / "weights").glob("*.safetensors"))) == 3


def started(work: Callable[[], object]) -> list[int]:
    """The processes that `work` started."""
    found: list[int] = []
    original = SpawnProcess.start

    def start(self: SpawnProcess) -> None:
        original(self)
        found.append(self.pid or 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpawnProcess, "start", start)
        work()
    return found


HANGING = """\
import multiprocessing, os, sys, threading, time
from pathlib import Path
from engine.weights.files.identity import Identity
from engine.weights.files.store import Store
from engine.weights.files.unpickling import Unpickler

source, pipe, folder = map(Path, sys.argv[1:])

def read():
    with Unpickler() as unpickler:
        store = Store(folder, reserve_bytes=0)
        store.provide_written("ab", 1, lambda target: unpickler._convert(Identity.of(source), pipe))

threading.Thread(target=read, daemon=True).start()
while not (children := multiprocessing.active_children()):
    time.sleep(0.01)
opened = Path(f"/proc/{children[0].pid}/fd")
while str(pipe) not in [os.path.realpath(file) for file in opened.iterdir()]:
    time.sleep(0.01)
print(children[0].pid, flush=True)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks through /proc for when the file is written")
def test_the_process_ends_with_the_one_that_started_it_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    source, pipe = tmp_path / "pytorch_model.bin", tmp_path / "pipe"
    torch.save({"weight": torch.ones(1 << 20)}, source)
    os.mkfifo(pipe)
    # Open and never read from, so that whoever writes so much into it is never done.
    never = os.open(pipe, os.O_RDWR)
    done = subprocess.run(
        [sys.executable, "-c", HANGING, str(source), str(pipe), str(tmp_path / "weights")],
        env=importing_root(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    gone = time.monotonic() + 10
    while psutil.pid_exists(int(done.stdout)):
        assert time.monotonic() < gone, "the process writes on for nobody"
        time.sleep(0.05)
    os.close(never)
    assert [file.suffix for file in (tmp_path / "weights").iterdir()] == [".partial"]
    made = tmp_path / "made.safetensors"
    save_file({"weight": torch.ones(3)}, made)
    store.provide_written("cd", 1, lambda target: target.write_bytes(made.read_bytes()) and None)
    assert [file.name for file in (tmp_path / "weights").iterdir()] == ["cd.safetensors"]


def test_no_room_for_the_converted_file_is_a_clear_error(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1 << 20)}, tmp_path / "pytorch_model.bin")
    small = Store(tmp_path / "weights", limit_bytes=1 << 20)
    with pytest.raises(LoadFailed, match="exceed the cache's limit") as caught:
        converted(tmp_path / "pytorch_model.bin", small)
    assert "room" in str(caught.value.next_step)


@pytest.mark.usefixtures("here")
def test_a_training_checkpoint_gives_the_tensors_of_its_state_dict(store: Store, tmp_path: Path) -> None:
    weights = {"module.a": torch.ones(2), "module.b": torch.zeros(3)}
    torch.save({"epoch": 3, "state_dict": weights, "optimizer": {"state": {}}}, tmp_path / "epoch_3.pt")
    made = load_file(converted(tmp_path / "epoch_3.pt", store))
    assert made.keys() == {"a", "b"}


def test_a_script_that_does_its_work_at_import_is_not_run_again_by_the_process(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from engine.weights.files.unpickling import Unpickler\nfrom engine.weights.files.identity import Identity\n"
        "from engine.weights.files.store import Store\n"
        "print('run', flush=True)\n"
        "here = Path(sys.argv[1])\n"
        "with Unpickler() as unpickler:\n"
        "    source = Identity.of(here / 'pytorch_model.bin')\n"
        "    print(unpickler.convert(source, Store(here / 'weights')).exists())\n"
        "assert 'torch' not in sys.modules\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=importing_root(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["run", "True"]
