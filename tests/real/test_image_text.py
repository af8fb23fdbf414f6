"""Models of images and texts through the engine, against transformers called directly on the whole model."""

from __future__ import annotations

import json
import mmap
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_text_models import BIAS, DIMENSIONS, FAMILIES, IMAGE_SIZE, SCALE, Family, image_text_model
from picture_files import picture, written

from engine import Engine, InvalidInput, LoadFailed, State, Unavailable, UnknownEncoder, parse
from engine.errors import OutOfMemory, PilotlightError
from engine.operations.images import decoded

TEXTS = ["a cat", "A photo of the CAT, sitting", "", "dog " * 100, "naïve ☕"]
PICTURES = [picture(48, 40), picture(40, 64, seed=1), picture(1, 1, seed=2), picture(33, 31, seed=3)]
IMAGES = [written(image) for image in PICTURES]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("image-text")
    return {family: image_text_model(root / family, family) for family in FAMILIES}


def engine_of(folder: Path, **more: Any) -> Engine:
    table = {"kind": "image_text", "model": str(folder), "device": "cpu", **more}
    return Engine(parse({"hardware": {"idle_timeout_seconds": 0}, "encoders": {"photo": table}}))


@pytest.fixture
def clip(models: dict[str, Path]) -> Iterator[Engine]:
    with engine_of(models["clip"]) as engine:
        yield engine


def directly(folder: Path, family: Family) -> tuple[np.ndarray, np.ndarray]:
    """The normalised features of TEXTS and PICTURES, from the whole model as its documentation uses it."""
    import torch
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    longest = {"clip": 77, "siglip": 64, "siglip2": 64}[family]
    padding = True if family == "clip" else "max_length"
    # Gemma's tokenizer, which SigLIP 2 has by name, leaves letters as they are.
    texts = [text.lower() for text in TEXTS] if family == "siglip" else TEXTS
    read = tokenizer(texts, padding=padding, truncation=True, max_length=longest, return_tensors="pt")
    with torch.inference_mode():
        texts = model.get_text_features(**read).pooler_output
        images = [model.get_image_features(**processor(one, return_tensors="pt")).pooler_output for one in PICTURES]
    return tuple(torch.nn.functional.normalize(one, dim=-1).numpy() for one in (texts, torch.cat(images)))


@pytest.mark.parametrize("family", FAMILIES)
def test_both_towers_give_what_the_whole_model_gives(models: dict[str, Path], family: Family) -> None:
    texts, images = directly(models[family], family)
    with engine_of(models[family]) as engine:
        proxy = engine.image_text("photo")
        found_texts, found_images = proxy.encode_texts(TEXTS), proxy.encode_images(IMAGES)
        again = proxy.encode_images(IMAGES[::-1])[::-1]
        # A batch's longest text may pad the others to just what they need.
        alone = np.concatenate([proxy.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(found_texts, texts, atol=1e-5)
    np.testing.assert_allclose(found_images, images, atol=1e-5)
    np.testing.assert_allclose(again, images, atol=1e-5)
    np.testing.assert_allclose(alone, texts, atol=1e-5)
    assert found_texts.dtype == found_images.dtype == np.float32
    assert found_texts.shape == (len(TEXTS), DIMENSIONS[family])
    assert np.abs(found_texts[0] - found_texts[3]).max() > 1e-3  # the model tells inputs apart
    assert np.abs(found_images[0] - found_images[1]).max() > 1e-3


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
@pytest.mark.parametrize(
    "said",
    [
        {"padding_side": "left"},
        {"padding_side": None},
        {"tokenizer_class": None},
        {"tokenizer_class": "GemmaTokenizerFast"},
        {"tokenizer_class": "PreTrainedTokenizerFast"},
    ],
    ids=str,
)
def test_a_siglip_2_is_read_as_it_was_trained_whatever_its_tokenizers_file_says(
    models: dict[str, Path], family: Family, said: dict[str, str | None], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models[family], folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) | said
    file.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}), encoding="utf-8")
    with engine_of(folder) as engine:
        found = engine.image_text().encode_texts(TEXTS)
        np.testing.assert_array_equal(found, engine.image_text().encode_texts([text.upper() for text in TEXTS]))
    np.testing.assert_allclose(found, directly(models[family], family)[0], atol=1e-5)


def test_as_many_tokens_are_read_as_the_folder_says(models: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models["siglip"], folder)
    file = folder / "tokenizer_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"model_max_length": 16}), encoding="utf-8"
    )
    with engine_of(folder) as engine, engine_of(models["siglip"]) as other:
        texts = engine.image_text().encode_texts(["abcdefghijklmnop" + more for more in ("", "xyz")])
        assert np.array_equal(*texts)
        assert np.abs(texts[0] - other.image_text().encode_texts(["abcdefghijklmnop"])[0]).max() > 1e-3
        assert engine.view("photo.text").metadata["max_tokens"] == 16


def test_the_text_tower_answers_while_the_image_tower_has_never_loaded(models: dict[str, Path]) -> None:
    from transformers import CLIPModel

    whole = CLIPModel.from_pretrained(models["clip"])
    nbytes = {name: weight.nbytes for name, weight in whole.named_parameters()}
    own = {"text": 0, "image": 0}
    for name, size in nbytes.items():
        if name not in ("logit_scale",):
            own["image" if name.startswith("vis") else "text"] += size
    with engine_of(models["clip"]) as engine:
        proxy = engine.image_text()
        proxy.encode_texts(["a cat"])
        text, image = engine.view("photo.text"), engine.view("photo.image")
        assert (image.state, image.loads, image.bytes_on_device, image.bytes_in_ram) == (State.UNLOADED, 0, 0, 0)
        assert text.loads == 1
        # Beside the weights stand only buffers that no file holds: the row of positions.
        assert own["text"] <= text.bytes_total <= own["text"] + 77 * 8
        measured = engine.view("photo.text", measured=True).bytes_on_device
        # Of the pages at its borders a part may be the other tower's.
        assert measured is None or text.bytes_total - 4 * mmap.PAGESIZE <= measured
        assert measured is None or measured <= text.bytes_total + 8 * mmap.PAGESIZE
        proxy.encode_images(IMAGES[:1])
        image = engine.view("photo.image")
        assert own["image"] <= image.bytes_total <= own["image"] + 17 * 8
        assert text.bytes_total + image.bytes_total < sum(nbytes.values()) + 100 * 8


def test_of_the_one_file_each_tower_holds_its_own_pages_alone(tmp_path: Path) -> None:
    folder = image_text_model(tmp_path / "model", "clip", width=512)
    half = (folder / "model.safetensors").stat().st_size / 2
    with engine_of(folder) as engine:
        proxy = engine.image_text()
        proxy.encode_texts(TEXTS)
        text = engine.view("photo.text", measured=True).bytes_on_device
        assert 0.8 * half < (text or 0) < 1.2 * half
        proxy.encode_images(IMAGES)
        image = engine.view("photo.image", measured=True).bytes_on_device
        assert 0.8 * half < (image or 0) < 1.2 * half
        engine.offload("photo.image")
        down, still = (engine.view(f"photo.{part}", measured=True) for part in ("image", "text"))
        assert (down.bytes_in_ram or 0) + (down.bytes_on_device or 0) < 0.05 * half
        assert still.bytes_on_device == text


def test_the_towers_step_down_and_are_pinned_apart(models: dict[str, Path]) -> None:
    with engine_of(models["siglip"], text={"pin": True}) as engine:
        proxy = engine.image_text("photo")
        texts, images = proxy.encode_texts(TEXTS), proxy.encode_images(IMAGES)
        assert engine.offload("photo.image").result == "done"
        assert engine.offload("photo.text").result == "refused"
        assert (proxy.image.loaded, proxy.text.loaded) == (False, True)
        assert engine.view("photo.image").state is State.IN_RAM
        np.testing.assert_array_equal(proxy.encode_texts(TEXTS), texts)
        assert proxy.image.loaded is False
        np.testing.assert_array_equal(proxy.encode_images(IMAGES), images)
        assert engine.unload("photo.image").result == "done"
        np.testing.assert_array_equal(proxy.encode_images(IMAGES), images)
        assert (engine.view("photo.text").loads, engine.view("photo.image").loads) == (1, 2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_points_the_same_way(models: dict[str, Path], family: Family, dtype: str) -> None:
    texts, images = directly(models[family], family)
    with engine_of(models[family], dtype=dtype) as engine:
        proxy = engine.image_text("photo")
        found = proxy.encode_texts(TEXTS), proxy.encode_images(IMAGES)
        assert dtype in (engine.view("photo.text").revision or "")
    for vectors, whole in zip(found, (texts, images), strict=True):
        assert vectors.dtype == np.float32
        assert (vectors * whole).sum(axis=1).min() >= 0.999


def test_eight_threads_that_race_on_the_first_use_load_each_tower_once(clip: Engine) -> None:
    proxy, start = clip.image_text("photo"), threading.Barrier(8)

    def use(index: int) -> np.ndarray:
        start.wait(10)
        return proxy.encode_texts(["a cat"]) if index % 2 else proxy.encode_images(IMAGES[:1])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(use, range(8)))
    assert all(np.array_equal(one, found[index % 2]) for index, one in enumerate(found))
    assert (clip.view("photo.text").loads, clip.view("photo.image").loads) == (1, 1)


def test_the_facts_of_the_model_are_known_to_both_towers(models: dict[str, Path]) -> None:
    with engine_of(models["siglip"]) as engine:
        proxy = engine.image_text("photo")
        proxy.image.warm()
        assert proxy.score_floor == pytest.approx((np.log(0.01 / 0.99) - BIAS) / np.exp(SCALE), rel=1e-4)
        assert proxy.text.peek().loads == 0
        proxy.text.warm()
        told = [dict(tower.peek().metadata) for tower in (proxy.text, proxy.image)]
    assert told[0] == told[1]
    assert told[0]["logit_scale"] == pytest.approx(SCALE)
    assert told[0]["logit_bias"] == pytest.approx(BIAS)
    assert (told[0]["dimension"], told[0]["max_tokens"], told[0]["image_size"]) == (32, 64, IMAGE_SIZE)
    assert json.loads(json.dumps(told[0])) == told[0]


@pytest.mark.parametrize(
    ("name", "value"), [("logit_scale", float("nan")), ("logit_scale", 1e6), ("logit_bias", float("inf"))]
)
def test_a_scale_that_cannot_be_used_is_told_and_changes_no_vector(
    models: dict[str, Path], name: str, value: float, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(models["siglip"], folder)
    weights = load_file(folder / "model.safetensors")
    weights[name].fill_(value)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with engine_of(folder) as engine, engine_of(models["siglip"]) as clean:
        found = engine.image_text().encode_texts(TEXTS)
        np.testing.assert_array_equal(found, clean.image_text().encode_texts(TEXTS))
        view = engine.view("photo.text")
        assert view.metadata["logit_scale"] is view.metadata["logit_bias"] is None
        assert "cannot be calibrated" in (view.note or "")
        with pytest.raises(Unavailable, match="no usable logit_scale"):
            engine.image_text().calibrate(found @ found.T)


def test_the_calibration_is_that_of_the_model_itself(models: dict[str, Path]) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    for family in ("clip", "siglip"):
        model = AutoModel.from_pretrained(models[family]).eval()
        tokenizer = AutoTokenizer.from_pretrained(models[family])
        read = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
        pixels = torch.randn(3, 3, IMAGE_SIZE, IMAGE_SIZE)
        with torch.inference_mode():
            output = model(**read, pixel_values=pixels)
        cosines = (output.image_embeds @ output.text_embeds.T).numpy()
        logits = output.logits_per_image
        wanted = logits.sigmoid() if family == "siglip" else logits.softmax(-1)
        with engine_of(models[family]) as engine:
            found = engine.image_text().calibrate(cosines)
            assert engine.view("photo.image").loads == 0
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_the_floor_of_the_settings_stands_before_that_of_the_model_for_its_own_encoder_alone(
    models: dict[str, Path],
) -> None:
    table = {"kind": "image_text", "model": str(models["clip"]), "device": "cpu"}
    with Engine(parse({"encoders": {"strict": table | {"score_floor": 0.31}, "usual": table}})) as engine:
        assert [engine.image_text(name).score_floor for name in ("strict", "usual")] == [0.31, 0.2]
        assert engine.view("usual.text").shared_with == ("strict.text",)


def test_the_code_of_a_model_runs_only_where_the_settings_trust_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "stdin", None)
    folder = image_text_model(tmp_path / "model", "clip")
    for name, file, base in (
        ("AutoConfig", "config", "CLIPConfig"),
        ("AutoImageProcessor", "preprocessor_config", "CLIPImageProcessorPil"),
    ):
        module = f"own_{file}"
        (folder / f"{module}.py").write_text(
            f"from pathlib import Path\nPath({str(tmp_path)!r}, {file!r}).touch()\n"
            f"from transformers import {base}\n\nclass Own({base}):\n    model_type = 'own'\n",
            encoding="utf-8",
        )
        path = folder / f"{file}.json"
        told = json.loads(path.read_text(encoding="utf-8")) | {"auto_map": {name: f"{module}.Own"}}
        if file == "config":
            told["model_type"] = "own"
        else:
            told["image_processor_type"] = "Own"
        path.write_text(json.dumps(told), encoding="utf-8")
    with engine_of(folder) as engine:
        with pytest.raises(Unavailable, match="needs Python code of its own") as caught:
            engine.image_text().encode_images(IMAGES[:1])
        assert "[encoders.photo]" in str(caught.value.next_step)
        assert not (tmp_path / "config").exists()
    with engine_of(folder, trust_remote_code=True) as engine:
        assert engine.image_text().encode_images(IMAGES[:1]).shape == (1, DIMENSIONS["clip"])
        assert engine.image_text().encode_texts(TEXTS[:1]).shape == (1, DIMENSIONS["clip"])
    assert (tmp_path / "config").exists()
    assert (tmp_path / "preprocessor_config").exists()


def test_strange_texts_are_answered_or_refused_one_by_one(clip: Engine) -> None:
    proxy = clip.image_text("photo")
    found = proxy.encode_texts(["", "\0", "cat " * 262144, "cat"])
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[2], proxy.encode_texts(["cat " * 100])[0], atol=1e-6)
    with pytest.raises(InvalidInput, match="UTF-8"):
        proxy.encode_texts(["\ud800"])
    assert proxy.encode_texts([]).shape == proxy.encode_images([]).shape == (0, 0)


def test_token_ids_and_shorter_vectors_are_refused_in_words(clip: Engine) -> None:
    adapter_call = clip.call
    for wrong in ({"inputs": [[1, 2]]}, {"inputs": ["cat"], "dimensions": 8}):
        with pytest.raises(InvalidInput, match=r"no token ids|cannot be cut"):
            adapter_call("photo.text", lambda adapter, wrong=wrong: adapter.encode(**wrong))
    assert clip.image_text().encode_texts(["cat"]).shape == (1, DIMENSIONS["clip"])


def test_what_one_can_see_through_looks_as_it_does_to_the_library() -> None:
    from transformers.image_transforms import convert_to_rgb

    seen = picture()
    seen.putalpha(picture(seed=7).convert("L"))
    found = np.asarray(decoded(written(seen), "it", "images"))
    np.testing.assert_array_equal(found, convert_to_rgb(seen, return_numpy=True))


def test_a_path_is_read_and_an_index_names_the_broken_image(clip: Engine, tmp_path: Path) -> None:
    proxy, file = clip.image_text("photo"), tmp_path / "one.png"
    file.write_bytes(IMAGES[0])
    np.testing.assert_array_equal(proxy.encode_images([file]), proxy.encode_images([IMAGES[0]]))
    with pytest.raises(InvalidInput, match=r"images\[1\] is cut off"):
        proxy.encode_images([IMAGES[0], IMAGES[1][:-200]])
    with pytest.raises(InvalidInput, match="list of images"):
        proxy.encode_images(IMAGES[0])  # type: ignore[arg-type]
    assert proxy.encode_images(IMAGES).shape == (len(IMAGES), DIMENSIONS["clip"])


def test_a_dense_encoder_and_a_single_tower_are_no_model_of_both(clip: Engine) -> None:
    with pytest.raises(UnknownEncoder):
        clip.image_text("photo.text")
    assert repr(clip.image_text()).startswith("<ImageTextProxy photo.text: ")


def broken(folder: Path, how: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = folder / "model.safetensors"
    if how == "no config":
        (folder / "config.json").unlink()
    elif how == "no weights":
        weights.unlink()
    elif how == "corrupt header":
        weights.write_bytes(b"\xff" * 64 + weights.read_bytes()[64:])
    elif how == "another kind":
        (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    else:
        state = load_file(weights)
        name = "text_model.embeddings.token_embedding.weight"
        if how == "another shape":
            state[name] = torch.zeros(3, 3)
        else:
            del state[name]
        save_file(state, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "how", ["no config", "no weights", "corrupt header", "another kind", "another shape", "missing tensor"]
)
def test_a_broken_folder_is_a_clear_error_and_the_engine_goes_on(how: str, tmp_path: Path) -> None:
    folder = image_text_model(tmp_path / "model", "clip")
    broken(folder, how)
    with engine_of(folder) as engine:
        with pytest.raises((LoadFailed, Unavailable)) as caught:
            engine.image_text().encode_texts(["cat"])
        view = engine.view("photo.text")
        assert view.state in (State.FAILED, State.UNAVAILABLE)
        assert view.error is not None
        assert view.error.next_step
        assert str(caught.value)
        if how in ("another shape", "missing tensor"):
            # The other tower has all that it needs.
            assert "token_embedding" in str(caught.value)
            assert engine.image_text().encode_images(IMAGES[:1]).shape == (1, DIMENSIONS["clip"])


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("openai-clip:ViT-X/1", "ViT-B/32"),
        ("siglip:so400m", "hub id"),
        ("open-clip:ViT-L-14/dfn2b_s39b", "open-clip-torch"),
    ],
)
def test_a_name_that_nobody_has_is_unavailable_and_says_what_to_do(model: str, told: str) -> None:
    encoder = {"kind": "image_text", "model": model}
    with Engine(parse({"encoders": {"photo": encoder}})) as engine:
        with pytest.raises(PilotlightError, match=told):
            engine.image_text().encode_texts(["cat"])
        assert engine.view("photo.text").state is State.UNAVAILABLE


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="sentencepiece is installed")
def test_a_tokenizer_that_needs_another_package_says_which(tmp_path: Path) -> None:
    folder = image_text_model(tmp_path / "model", "siglip")
    file = folder / "tokenizer_config.json"
    told = json.loads(file.read_text(encoding="utf-8")) | {"tokenizer_class": "SiglipTokenizer"}
    file.write_text(json.dumps(told), encoding="utf-8")
    with engine_of(folder) as engine:
        with pytest.raises(Unavailable, match="pip install sentencepiece"):
            engine.image_text().encode_texts(["cat"])
        assert engine.view("photo.text").state is State.UNAVAILABLE
        assert engine.image_text().encode_images(IMAGES[:1]).shape == (1, 32)


def test_the_short_names_stand_for_hub_ids() -> None:
    from engine.settings.short_names import Spec, parse

    assert parse("openai-clip:ViT-L/14@336px") == Spec("openai/clip-vit-large-patch14-336")
    assert parse("openai-clip:ViT-B/32") == Spec("openai/clip-vit-base-patch32")
    assert parse("siglip:google/siglip2-large-patch16-256") == Spec("google/siglip2-large-patch16-256")
    assert parse("./folder") == Spec("./folder")
    spec = parse("open-clip:ViT-L-14/dfn2b_s39b")
    assert (spec.architecture, spec.tag, spec.open_clip) == ("ViT-L-14", "dfn2b_s39b", True)


def test_less_memory_means_smaller_batches_and_the_same_vectors(models: dict[str, Path]) -> None:
    with engine_of(models["clip"]) as engine:
        proxy, sizes = engine.image_text(), []
        many = [*IMAGES] * 3
        whole = proxy.encode_images(many)

        def squeezed(adapter: Any) -> np.ndarray:
            run = adapter._module.forward

            def forward(pixel_values: Any, **more: Any) -> Any:
                sizes.append(len(pixel_values))
                if len(pixel_values) > 3:
                    raise OutOfMemory("No room.")
                return run(pixel_values=pixel_values, **more)

            adapter._module.forward = forward
            try:
                found: np.ndarray = adapter.encode_images(many).vectors
            finally:
                del adapter._module.forward
            return found

        np.testing.assert_allclose(engine.call("photo.image", squeezed), whole, atol=1e-5)
    assert sizes == [12, 6, 3, 3, 3, 3]
