"""The desktop tests fail with the line to install rather than skip: a green run must have seen a real menu."""

from __future__ import annotations

import pytest
from desktop_session import MissingTools, require_tools


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    try:
        require_tools()
    except MissingTools as error:
        pytest.fail(str(error), pytrace=False)
