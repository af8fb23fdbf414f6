"""Desktops for the tests, which fail with the line to install rather than skip: a green run must have seen a menu."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from desktop_session import Desktop, MissingTools, require_tools
from status_notifier import Panel


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    try:
        require_tools()
    except MissingTools as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def desktop() -> Iterator[Desktop]:
    """A bare display and a bus without any service."""
    with Desktop(panel=False) as desktop:
        yield desktop


@pytest.fixture
def panel(desktop: Desktop) -> Iterator[Panel]:
    """The panel's side of the bus."""
    with Panel(desktop.env["DBUS_SESSION_BUS_ADDRESS"]) as panel:
        yield panel
