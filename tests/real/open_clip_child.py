"""What `test_open_clip.py` runs in a process of its own, with open_clip on its path.

Its torchvision is one for CUDA, whose compiled operators do not load beside a torch for the CPU: they are declared
here by name alone, because nothing of what is checked calls one.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import picture, written

TEXTS = ["a cat", "A photo of the CAT, sitting", "", "dog " * 200]
PICTURES = [picture(48, 40), picture(40, 64, seed=1), picture(1, 1, seed=2)]
VISION = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
PLAIN = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True}
"""As OpenAI's models: the text tower's tensors have no prefix."""
SIGLIP = {
    "embed_dim": 32,
    "custom_text": True,
    "init_logit_bias": -10,
    "vision_cfg": VISION | {"pool_type": "avg"},
    "text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last", "proj_type": "linear", "proj_bias": True},
}


def declare_operators() -> None:
    import torch

    found = importlib.util.find_spec("torchvision")
    assert found is not None
    source = (Path(str(found.origin)).parent / "_meta_registrations.py").read_text(encoding="utf-8")
    library = torch.library.Library("torchvision", "DEF")
    for name in sorted(set(re.findall(r'register_fake\("torchvision::(\w+)"', source))):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor x) -> Tensor")
    KEPT.append(library)


KEPT: list[Any] = []


def made(folder: Path, model: dict[str, Any], *, layout: str = "safetensors") -> Any:
    """Write a model with random weights in open_clip's own layout, and return the library's whole model of it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir()
    config = {"model_cfg": model, "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "resize_mode": "squash"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    whole = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    for weight in whole.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2)
    if layout == "safetensors":
        save_file(whole.state_dict(), folder / "open_clip_model.safetensors")
    else:
        torch.save(whole.state_dict(), folder / "open_clip_pytorch_model.bin")
    return whole.eval()


def directly(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The normalised features of TEXTS and PICTURES, from the library's whole model as its documentation uses it."""
    import open_clip
    import torch

    whole, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        texts = whole.eval().encode_text(tokenizer(TEXTS), normalize=True)
        images = whole.encode_image(torch.stack([transform(one) for one in PICTURES]), normalize=True)
    return texts.numpy(), images.numpy()


def engine_of(folder: Path | str, **more: Any) -> Any:
    from engine import Engine, parse

    table = {"kind": "image_text", "model": str(folder), "device": "cpu", **more}
    return Engine(parse({"hardware": {"idle_timeout_seconds": 0}, "encoders": {"photo": table}}))


def towers(folder: Path, model: dict[str, Any], layout: str = "safetensors") -> None:
    whole = made(folder, model, layout=layout)
    texts, images = directly(folder)
    own = {"visual": 0, "text": 0}
    for name, weight in whole.named_parameters():
        if not name.startswith("logit"):
            own["visual" if name.startswith("visual.") else "text"] += weight.nbytes
    with engine_of(folder) as engine:
        proxy = engine.image_text()
        found = proxy.encode_texts(TEXTS)
        assert engine.view("photo.image").loads == 0
        np.testing.assert_allclose(found, texts, atol=1e-5)
        # Beside the weights stands the causal mask.
        assert own["text"] <= engine.view("photo.text").bytes_total <= own["text"] + 77 * 77 * 4
        np.testing.assert_allclose(proxy.encode_images([written(one) for one in PICTURES]), images, atol=1e-5)
        assert engine.view("photo.image").bytes_total == own["visual"]
        assert engine.offload("photo.text").result == engine.offload("photo.image").result == "done"
        np.testing.assert_array_equal(proxy.encode_texts(TEXTS), found)
        facts = proxy.text.peek().metadata
        assert facts["logit_scale"] is not None
        assert (facts["logit_bias"] is None) == (model is PLAIN)
        assert (facts["dimension"], facts["max_tokens"], facts["image_size"]) == (model["embed_dim"], 77, 32)
        long = proxy.encode_texts(["cat " * 262144, "cat " * 200])
        np.testing.assert_allclose(long[0], long[1], atol=1e-6)
    with engine_of(folder, dtype="bfloat16") as engine:
        half = engine.image_text().encode_texts(TEXTS)
        assert (half * texts).sum(axis=1).min() >= 0.999


def a_plain_model(folder: Path) -> None:
    towers(folder / "model", PLAIN)


def a_siglip(folder: Path) -> None:
    towers(folder / "model", SIGLIP)


def a_pickled_model(folder: Path) -> None:
    towers(folder / "model", PLAIN, "bin")


def a_timm_tower(folder: Path) -> None:
    vision = {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear"}
    towers(folder / "model", {**SIGLIP, "vision_cfg": vision})


def of_two_types(folder: Path) -> None:
    """Half precision but for one matrix of each tower, beside other weights and a damaged file."""
    import torch
    from safetensors.torch import load_file, save_file

    made(folder / "model", PLAIN)
    file = folder / "model" / "open_clip_model.safetensors"
    wide = ("visual.proj", "text_projection", "logit_scale")
    save_file({name: one if name in wide else one.half() for name, one in load_file(file).items()}, file)
    save_file({"visual.proj": torch.zeros(2)}, folder / "model" / "another.safetensors")
    (folder / "model" / "model.safetensors").write_bytes(b"torn")
    texts, images = directly(folder / "model")
    with engine_of(folder / "model") as engine:
        np.testing.assert_allclose(engine.image_text().encode_texts(TEXTS), texts, atol=1e-5)
        pictures = [written(one) for one in PICTURES]
        np.testing.assert_allclose(engine.image_text().encode_images(pictures), images, atol=1e-5)
        assert {str(view.revision).rpartition("+")[2] for view in engine.views()} == {"float32"}


def weights_of_another_model(folder: Path) -> None:
    from engine import LoadFailed

    made(folder / "model", PLAIN)
    file = folder / "model" / "open_clip_config.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    told["model_cfg"]["text_cfg"]["width"] = 16
    file.write_text(json.dumps(told), encoding="utf-8")
    with engine_of(folder / "model") as engine:
        with pytest.raises(LoadFailed, match="size mismatch") as caught:
            engine.image_text().encode_texts(["cat"])
        assert caught.value.next_step
        assert engine.image_text().encode_images([written(PICTURES[0])]).shape == (1, 24)


def the_librarys_names(folder: Path) -> None:
    from engine.adapters.kinds.image_text.open_clip import repository
    from engine.errors import Unavailable

    assert repository("ViT-L-14", "dfn2b_s39b") == "apple/DFN2B-CLIP-ViT-L-14-39B"
    for architecture, tag in (("ViT-L-14", "no-such-tag"), ("no-such-architecture", "openai")):
        with pytest.raises(Unavailable, match=tag):
            repository(architecture, tag)
    for model, told in (("open-clip:ViT-L-15/openai", "ViT-L-15"), ("open-clip:ViT-L-14/no-such-tag", "no-such-tag")):
        with engine_of(model) as engine:
            with pytest.raises(Unavailable, match=told):
                engine.image_text().encode_texts(["cat"])
            assert engine.view("photo.text").state.name == "UNAVAILABLE"


CASES: dict[str, Callable[[Path], None]] = {
    case.__name__: case
    for case in (
        a_plain_model,
        a_siglip,
        a_pickled_model,
        a_timm_tower,
        of_two_types,
        weights_of_another_model,
        the_librarys_names,
    )
}

if __name__ == "__main__":
    declare_operators()
    results = {}
    for name, case in CASES.items():
        place = Path(sys.argv[1]) / name
        place.mkdir()
        try:
            case(place)
            results[name] = ""
        except Exception:  # noqa: BLE001 - the parent shows it under the case's name
            results[name] = traceback.format_exc()
    print(json.dumps(results))
