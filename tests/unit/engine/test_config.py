"""Settings as a value: what is accepted, and what a mistake is told."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from engine.config import BUILTIN, Config, Hardware, Server, parse
from engine.errors import SettingsError

MODEL = {"kind": "dense", "model": "org/name"}


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
            "hardware": {"lazy_encoders": False, "device": "cuda:1", "eager_load": True, "max_keep_alive_seconds": 60},
            "server": {"host": "::1", "port": 0},
            "encoders": {
                "a": {**MODEL, "aliases": ["b"], "pin": True, "unload_timeout_seconds": 0, "lazy_encoders": True},
                "c.d-e_f": {**MODEL, "eager_load": False},
            },
        }
    )
    assert parse(settings.as_mapping()) == settings
    assert [encoder.name for encoder in settings.encoders] == ["a", "c.d-e_f"]


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


def test_the_bound_of_keep_alive_is_the_computers_and_no_encoders() -> None:
    [problem] = problems({"encoders": {"a": {**MODEL, "max_keep_alive_seconds": 60}}})
    assert "unknown key" in problem


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
    assert problem.startswith(f"{section}.{key}: {value!r}: must be ")
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
    ],
)
def test_a_wrong_value_of_an_encoder_is_shown_with_its_key_and_the_choices(key: str, value: Any, choices: str) -> None:
    [problem] = problems({"encoders": {"a": {**MODEL, key: value}}})
    assert problem.startswith(f"encoders.a.{key}: {value!r}: must be ")
    assert choices in problem


@pytest.mark.parametrize("model", [BUILTIN, "/models/a", "~/a", "./a", "..\\a", "C:\\a", "d:/a", "org/na-me.v1_5"])
def test_a_model_is_built_in_a_folder_or_a_hub_id(model: str) -> None:
    assert parse({"encoders": {"a": {"kind": "dense", "model": model}}}).encoders[0].model == model


def test_an_unknown_section_or_key_names_the_valid_ones() -> None:
    assert problems({"hardwre": {}}) == ["hardwre: unknown section; valid are: hardware, server, encoders"]
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
        "encoders.b: the name 'x' already belongs to a",
        "encoders.b: the name 'a' already belongs to a",
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
