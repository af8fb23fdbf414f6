"""Which errors of a library no later try can mend, and what a person is told of each."""

from __future__ import annotations

import json
import sys

import pytest

from engine.adapters.base.hopeless import unavailable


def raised(code: str) -> BaseException:
    """The error that a piece of code ends in."""
    try:
        exec(code, {"__name__": "somebody"})  # noqa: S102 - the code is below
    except BaseException as error:  # noqa: BLE001 - it is what is asked for
        return error
    raise AssertionError(code)


CHECKED = "not found in your environment: "


@pytest.mark.parametrize(
    ("code", "packages"),
    [
        ("import not_there", "not-there"),
        ("import not_there.deep", "not-there"),
        ("raise ModuleNotFoundError(\"No module named 'cv2'\")", "opencv-python"),
        ("raise ImportError('Run `pip install einops timm`')", "einops timm"),
        ("raise ImportError('Install with pip install pymorphy3# for Ukrainian: pip install more')", "pymorphy3"),
        ("raise ImportError('pip install jieba or get it from https://github.com/fxsjy/jieba')", "jieba"),
        ("raise ImportError(\"requires it: `pip install 'accelerate>=1.1.0'`\")", '"accelerate>=1.1.0"'),
        ("raise ImportError('It needs `pip install -U bitsandbytes>=0.46`')", '"bitsandbytes>=0.46"'),
        ("raise ImportError('X requires the SentencePiece library but it was not found')", "sentencepiece"),
        ("raise ImportError('X requires the protobuf library but it was not found')", "protobuf"),
        ("try:\n    import natto\nexcept ImportError:\n    raise ImportError('needs MeCab') from None", "natto-py"),
        ("raise RuntimeError(\"Failed to import x because: No module named 'not_there'\")", "not-there"),
    ],
)
def test_a_missing_package_comes_with_the_line_that_installs_it(code: str, packages: str) -> None:
    error = unavailable("mine", raised(code))
    assert error is not None
    assert error.message.startswith("mine needs more: the package")
    assert error.next_step == f"Run: {sys.executable} -m pip install {packages}"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("from json import not_there", "no not_there in json"),
        ("import json.not_there", "no module json.not_there"),
        ("None.not_there", "AttributeError: 'NoneType' object has no attribute 'not_there'"),
        ("not_there", "NameError"),
        ("{}['key']", "KeyError: 'key'"),
        ("int([])", "TypeError"),
        ("int('a')", "ValueError"),
        ("raise NotImplementedError", "NotImplementedError"),
        ("open('/not/there')", "there is no /not/there"),
        ("raise OSError('/m does not appear to have a file named own.py. Checkout')", "there is no own.py"),
    ],
)
def test_a_name_or_a_file_that_is_not_there_is_final(code: str, says: str) -> None:
    for own in (None, {"own"}):
        error = unavailable("mine", raised(code), library="library 5", own_code=own)
        assert error is not None
        assert says in error.message
        assert error.next_step


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        PermissionError(13, "Permission denied"),
        ConnectionError("reset"),
        MemoryError(),
        RuntimeError("CUDA out of memory"),
        Exception("expected value at line 1"),
        ImportError("cannot import name 'x' from partially initialized module 'torch'"),
    ],
)
def test_a_disk_a_network_and_memory_may_be_there_later(error: BaseException) -> None:
    assert unavailable("mine", error) is None


def test_a_file_that_is_half_written_may_be_whole_later() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert unavailable("mine", caught.value) is None
    with pytest.raises(UnicodeDecodeError) as broken:
        b"\xff".decode()
    assert unavailable("mine", broken.value) is None


def test_the_models_own_code_is_named_with_the_version_that_it_does_not_fit() -> None:
    error = unavailable("mine", raised("from json import gone"), library="transformers 5.1", own_code={"own"})
    assert error is not None
    assert "The Python code of mine does not fit transformers 5.1: there is no gone in json" in error.message


def test_a_module_of_the_models_own_code_is_a_file_and_no_package() -> None:
    error = unavailable("mine", raised("import mine_own"), own_code={"mine_own"})
    assert error is not None
    assert "there is no mine_own.py" in error.message


def test_a_question_to_a_hub_names_the_model_that_it_was_about() -> None:
    code = (
        "try:\n    raise ConnectionError('Cannot reach https://hub.org/a/b/resolve/main/x: offline mode is enabled')\n"
        "except ConnectionError as error:\n    raise OSError('not found') from error"
    )
    error = unavailable("mine", raised(code))
    assert error is not None
    assert "needs files of a/b on the model hub" in error.message
