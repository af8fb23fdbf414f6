"""Settings as a value: what is accepted, and what a mistake is told."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from typing import Any

import pytest

from engine.errors import SettingsError
from engine.settings.config import BUILTIN, Config, EncoderConfig, Hardware, Server
from engine.settings.parsing import parse

MODEL = {"kind": "dense", "model": "org/name"}
BEYOND = (float("nan"), float("inf"), float("-inf"), 10**400, -(10**400), 1e300, 5e-324)
"""Numbers that nothing on a computer has."""


def problems(mapping: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(mapping)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem) for problem in caught.value.problems]


def test_no_settings_are_the_defaults() -> None:
    settings = parse({})
    assert settings == Config()
    assert settings.hardware == Hardware(
        lazy_encoders=True,
        eager_load=False,
        device="auto",
        max_vram="0",
        stream_layers=False,
        on_no_room="stream",
        keep_free_vram=512.0,
        minimum_residency_seconds=5.0,
        idle_timeout_seconds=30.0,
        unload_timeout_seconds=900.0,
        max_keep_alive_seconds=0.0,
    )
    assert settings.server == Server("127.0.0.1", 7458)
    assert [(encoder.name, encoder.model) for encoder in settings.encoders] == [("minilm", BUILTIN)]


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().hardware.lazy_encoders = False  # type: ignore[misc]


def test_settings_survive_the_way_to_plain_data_and_back() -> None:
    settings = parse(
        {
            "hardware": {
                "lazy_encoders": False,
                "device": "cuda:1",
                "eager_load": True,
                "max_keep_alive_seconds": 60,
                "max_vram": "cuda:1=-0.5, cpu=2",
                "stream_layers": True,
                "on_no_room": "error",
                "keep_free_vram": 0,
                "minimum_residency_seconds": 0.5,
            },
            "server": {"host": "::1", "port": 0},
            "encoders": {
                "a": {**MODEL, "aliases": ["b"], "pin": True, "unload_timeout_seconds": 0, "lazy_encoders": True},
                "c.d-e_f": {**MODEL, "eager_load": False},
                "g": {**MODEL, "stream_layers": False, "home": "disk", "dtype": "bfloat16"},
            },
        }
    )
    assert parse(settings.as_mapping()) == settings
    assert [encoder.name for encoder in settings.encoders] == ["a", "c.d-e_f", "g"]
    assert settings.as_mapping()["encoders"]["g"]["stream_layers"] is False
    assert "stream_layers" not in settings.as_mapping()["encoders"]["a"]
    assert hash(settings) == hash(parse(settings.as_mapping()))


def test_an_empty_table_of_encoders_means_none() -> None:
    assert parse({"encoders": {}}).encoders == ()


@pytest.mark.parametrize("key", ["idle_timeout_seconds", "unload_timeout_seconds"])
@pytest.mark.parametrize(
    "value", [-1, -0.001, float("nan"), float("inf"), float("-inf"), True, "30", None, [30], {}, 10**400, -(10**400)]
)
@pytest.mark.parametrize("path", [("hardware",), ("encoders", "a")])
def test_a_timeout_is_a_number_of_seconds_from_zero(key: str, value: Any, path: tuple[str, ...]) -> None:
    table = {key: value} if path == ("hardware",) else {"a": {**MODEL, key: value}}
    [problem] = problems({path[0]: table})
    assert problem.startswith(".".join((*path, key)) + ": ")
    assert "seconds" in problem
    assert "0" in problem


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "30", 10**400])
def test_the_bound_of_keep_alive_is_a_number_of_seconds_whose_0_means_no_limit(value: Any) -> None:
    [problem] = problems({"hardware": {"max_keep_alive_seconds": value}})
    assert problem.startswith("hardware.max_keep_alive_seconds: ")
    assert "seconds" in problem
    assert "no limit" in problem
    assert "never" not in problem


def test_the_longest_time_is_spelled_out() -> None:
    [problem] = problems({"hardware": {"idle_timeout_seconds": 4e7}})
    assert problem.endswith(": 40000000.0: must be at most a year, 31536000 seconds; 0 means never")


def test_the_bound_of_keep_alive_is_the_computers_and_no_encoders() -> None:
    [problem] = problems({"encoders": {"a": {**MODEL, "max_keep_alive_seconds": 60}}})
    assert problem == "encoders.a.max_keep_alive_seconds: belongs under [hardware]"


def test_an_encoders_eagerness_is_its_own_only_where_it_says_so() -> None:
    tables = {"a": MODEL, "b": {**MODEL, "lazy_encoders": False, "eager_load": True}}
    silent, said = parse({"hardware": {"eager_load": True}, "encoders": tables}).encoders
    assert (silent.lazy_encoders, silent.eager_load) == (None, None)
    assert (said.lazy_encoders, said.eager_load) == (False, True)


@pytest.mark.parametrize("value", [0, 0.5, 30, 365 * 86400])
def test_a_timeout_may_be_whole_or_not(value: float) -> None:
    assert parse({"hardware": {"idle_timeout_seconds": value}}).hardware.idle_timeout_seconds == value


@pytest.mark.parametrize(
    ("section", "key", "value", "choices"),
    [
        ("hardware", "lazy_encoders", 1, "true or false"),
        ("hardware", "lazy_encoders", "yes", "true or false"),
        ("hardware", "eager_load", 0, "true or false"),
        ("hardware", "device", "gpu", "auto, cpu, cuda, cuda:N, mps"),
        ("hardware", "device", "cuda:x", "auto, cpu, cuda, cuda:N, mps"),
        ("hardware", "device", 0, "auto, cpu, cuda, cuda:N, mps"),
        ("hardware", "device", "cpu\n", "auto, cpu, cuda, cuda:N, mps"),
        ("hardware", "stream_layers", "on", "true or false"),
        ("hardware", "on_no_room", "disk", "one of: stream, cpu, error"),
        ("hardware", "on_no_room", False, "one of: stream, cpu, error"),
        ("hardware", "on_no_room", ["cpu"], "one of: stream, cpu, error"),
        ("server", "port", -1, "0 to 65535"),
        ("server", "port", 65536, "0 to 65535"),
        ("server", "port", 80.0, "0 to 65535"),
        ("server", "port", True, "0 to 65535"),
        ("server", "port", "7458", "0 to 65535"),
        ("server", "host", "", "not empty"),
        ("server", "host", 127, "not empty"),
    ],
)
def test_a_wrong_value_is_shown_with_its_key_and_the_choices(section: str, key: str, value: Any, choices: str) -> None:
    [problem] = problems({section: {key: value}})
    assert problem.startswith(f"{section}.{key}: {json.dumps(value)}: must be ")
    assert choices in problem


@pytest.mark.parametrize(
    ("key", "value", "choices"),
    [
        ("kind", "densee", "one of: dense"),
        ("kind", ["dense"], "one of: dense"),
        ("model", "builtin:nope", "one of: builtin:all-MiniLM-L6-v2"),
        ("model", "just words", "builtin:NAME"),
        ("model", "", "not empty"),
        ("model", 7, "not empty"),
        ("aliases", "one", "a list of texts"),
        ("aliases", [1], "a list of texts"),
        ("aliases", [""], "a list of texts"),
        ("default", "yes", "true or false"),
        ("pin", 1, "true or false"),
        ("lazy_encoders", "no", "true or false"),
        ("eager_load", 1, "true or false"),
        ("device", "tpu", "auto, cpu, cuda, cuda:N, mps"),
        ("stream_layers", 1, "true or false"),
        ("home", "ram", "one of: mapped, pinned, disk"),
        ("home", True, "one of: mapped, pinned, disk"),
        ("dtype", "fp16", "one of: auto, float32, float16, bfloat16"),
        ("dtype", 16, "one of: auto, float32, float16, bfloat16"),
        ("dtype", {}, "one of: auto, float32, float16, bfloat16"),
    ],
)
def test_a_wrong_value_of_an_encoder_is_shown_with_its_key_and_the_choices(key: str, value: Any, choices: str) -> None:
    [problem] = problems({"encoders": {"a": {**MODEL, key: value}}})
    assert problem.startswith(f"encoders.a.{key}: {json.dumps(value)}: must be ")
    assert choices in problem


@pytest.mark.parametrize(
    "spelled",
    [
        "true",
        "-7",
        "inf",
        "nan",
        "1e+300",
        '"q\\"uote\\n\\u0000é"',
        "2024-01-01",
        "2024-01-01T10:00:00",
        "10:00:00",
        '[1, "two", [false]]',
        "{ a = 1, b = { c = true } }",
        "{}",
    ],
)
def test_a_wrong_value_is_spelled_as_in_the_file(spelled: str) -> None:
    [problem] = problems({"hardware": tomllib.loads(f"device = {spelled}")})
    assert problem.startswith(f"hardware.device: {spelled}: must be ")


def test_a_number_beyond_all_digits_and_half_a_character_are_still_told() -> None:
    [problem] = problems({"server": {"port": 16**5000}})
    assert problem.startswith("server.port: 0x1000")
    [problem] = problems({"hardware": {"device": "\ud800"}})
    assert problem.encode().startswith(b'hardware.device: "\\ud800"')


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0, "0"),
        (-0.0, "0"),
        (6, "6"),
        (6.0, "6"),
        (1.5, "1.5"),
        (-1, "-1"),
        (1e-3, "0.001"),
        (1e-5, "1e-05"),
        ("6", "6"),
        (" -1.0 ", "-1"),
        ("cuda:0=6, cuda:1=-1", "cuda:0=6,cuda:1=-1"),
    ],
)
def test_a_budget_is_a_number_or_a_text_and_kept_as_a_text_spelled_in_one_way(value: Any, kept: str) -> None:
    assert parse({"hardware": {"max_vram": value}}).hardware.max_vram == kept


@pytest.mark.parametrize(
    "value",
    [True, None, [6], ["cuda:0=6"], {}, {"cuda:0": 6}, "", "6GB", "6,7", "cuda:0=6,cuda:0=7", "cuda:x=1", *BEYOND],
)
def test_any_other_budget_is_refused_with_the_choices(value: Any) -> None:
    [problem] = problems({"hardware": {"max_vram": value}})
    assert problem.startswith("hardware.max_vram: ")
    assert ". max_vram is in GiB: 0 = no limit, 6 = at most 6, -1 = all but 1 of what is free" in problem
    assert '"cuda:0=6,cuda:1=-1"' in problem


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("6GB", '"6GB" is not a number'),
        ("cuda:0=6GB", '"cuda:0=6GB": "6GB" is not a number'),
        (True, "true: must be a number or a text"),
        ([6], "[6]: must be a number or a text"),
    ],
)
def test_a_refused_budget_is_named_once_and_the_reason_comes_before_the_choices(value: Any, why: str) -> None:
    [problem] = problems({"hardware": {"max_vram": value}})
    assert problem.startswith(f"hardware.max_vram: {why}. max_vram is in GiB: ")


@pytest.mark.parametrize("value", [0, 0.5, 512, 1024**2])
def test_what_stays_free_is_a_number_of_mebibytes(value: float) -> None:
    assert parse({"hardware": {"keep_free_vram": value}}).hardware.keep_free_vram == value


@pytest.mark.parametrize(
    "value", [-1, -0.001, float("nan"), float("inf"), True, "512", "512 MiB", None, [512], 1024**2 + 1, 10**400]
)
def test_what_stays_free_is_refused_with_its_unit_and_what_0_means(value: Any) -> None:
    [problem] = problems({"hardware": {"keep_free_vram": value}})
    assert problem.startswith("hardware.keep_free_vram: ")
    assert "MiB" in problem
    assert "(0 = off)" in problem or "at most 1048576 MiB; 0 means off" in problem


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "5", 10**400])
def test_the_minimum_residency_is_a_number_of_seconds_whose_0_means_none(value: Any) -> None:
    [problem] = problems({"hardware": {"minimum_residency_seconds": value}})
    assert problem.startswith("hardware.minimum_residency_seconds: ")
    assert "seconds" in problem
    assert "none" in problem
    assert "never" not in problem


@pytest.mark.parametrize("key", ["max_vram", "on_no_room", "keep_free_vram", "minimum_residency_seconds"])
def test_what_is_shared_by_all_encoders_is_none_of_ones_own(key: str) -> None:
    [problem] = problems({"encoders": {"a": {**MODEL, key: getattr(Hardware(), key)}}})
    assert problem == f"encoders.a.{key}: belongs under [hardware]"


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"hardware": {"home": "disk"}}, "hardware.home: belongs under [encoders.NAME]"),
        ({"hardware": {"port": 1}}, "hardware.port: belongs under [server]"),
        ({"server": {"max_vram": "6"}}, "server.max_vram: belongs under [hardware]"),
        ({"device": "cpu"}, "device: belongs under [hardware] or [encoders.NAME]"),
    ],
)
def test_a_key_in_the_wrong_section_is_told_where_it_belongs(mapping: dict[str, Any], problem: str) -> None:
    assert problems(mapping) == [problem]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("home", ["mapped", "pinned", "disk"]),
        ("dtype", ["auto", "float32", "float16", "bfloat16"]),
        ("stream_layers", [True, False]),
    ],
)
def test_an_encoder_takes_every_choice_and_is_still_one_value(key: str, values: list[Any]) -> None:
    [silent] = parse({"encoders": {"a": MODEL}}).encoders
    found = {parse({"encoders": {"a": {**MODEL, key: value}}}).encoders[0] for value in values}
    assert {getattr(encoder, key) for encoder in found} == set(values)
    assert getattr(silent, key) == getattr(EncoderConfig("a", "dense", "org/name"), key)


@pytest.mark.parametrize("model", [BUILTIN, "/models/a", "~/a", "./a", "..\\a", "C:\\a", "d:/a", "org/na-me.v1_5"])
def test_a_model_is_built_in_a_folder_or_a_hub_id(model: str) -> None:
    assert parse({"encoders": {"a": {"kind": "dense", "model": model}}}).encoders[0].model == model


def test_an_unknown_section_or_key_names_the_valid_ones() -> None:
    assert problems({"hardwre": {}}) == ["hardwre: unknown section; valid are: hardware, server, hub, encoders"]
    assert problems({"server": {"prot": 1}}) == ["server.prot: unknown key; valid are: host, port"]
    [problem] = problems({"encoders": {"a": {**MODEL, "pinned": True}}})
    assert problem.startswith("encoders.a.pinned: unknown key; valid are: kind, model, aliases")


@pytest.mark.parametrize("mapping", [{"hardware": 3}, {"server": []}, {"encoders": "x"}, {"encoders": {"hardware": 1}}])
def test_a_section_that_is_no_table_says_how_to_write_one(mapping: dict[str, Any]) -> None:
    [problem] = problems(mapping)
    assert "must be a table, written [" in problem


@pytest.mark.parametrize("missing", ["kind", "model"])
def test_an_encoder_needs_a_kind_and_a_model(missing: str) -> None:
    [problem] = problems({"encoders": {"a": {key: value for key, value in MODEL.items() if key != missing}}})
    assert problem.startswith(f"encoders.a: the key {missing} is missing")


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "ä", "a\n"])
def test_an_encoder_has_a_name_that_a_request_can_send(name: str) -> None:
    [problem] = problems({"encoders": {name: MODEL}})
    assert "an encoder's name is letters, digits" in problem


def test_a_name_belongs_to_one_encoder() -> None:
    assert problems({"encoders": {"a": {**MODEL, "aliases": ["x"]}, "b": {**MODEL, "aliases": ["x", "a"]}}}) == [
        'encoders.b: the name "x" already belongs to a',
        'encoders.b: the name "a" already belongs to a',
    ]


def test_every_mistake_is_told_at_once_in_the_order_of_the_file() -> None:
    found = problems(
        {
            "hardware": {"unload_timeout_seconds": -1, "device": "gpu", "idle_timeout_seconds": -1},
            "server": {"port": -1, "host": ""},
        }
    )
    assert [problem.partition(":")[0] for problem in found] == [
        "hardware.unload_timeout_seconds",
        "hardware.device",
        "hardware.idle_timeout_seconds",
        "server.port",
        "server.host",
    ]


def test_a_very_long_value_is_shown_in_part() -> None:
    [problem] = problems({"hardware": {"device": "x" * 10_000}})
    assert len(problem) < 200


def test_two_defaults_of_one_kind_are_refused() -> None:
    tables = {name: {"kind": "dense", "model": "builtin:all-MiniLM-L6-v2", "default": True} for name in ("a", "b")}
    with pytest.raises(SettingsError, match=r"encoders\.b\.default: a is the default dense encoder already"):
        parse({"encoders": tables})
