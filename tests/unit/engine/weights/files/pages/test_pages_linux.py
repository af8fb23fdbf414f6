"""Which of Linux' two ways is taken."""

from __future__ import annotations

import errno

import pytest

from engine.weights.files.pages.linux import first_that_works
from engine.weights.files.pages.usage import Usage


def sure(address: int, length: int) -> Usage:
    return Usage(1, 1)


def failing(number: int) -> None:
    def fast(address: int, length: int) -> Usage:
        raise OSError(number, "no")

    assert first_that_works(fast, sure) is sure


@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENOENT])
def test_a_kernel_or_sandbox_without_the_ioctl_is_asked_for_the_list_of_pages(number: int) -> None:
    failing(number)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EINTR, errno.ENOMEM])
def test_a_passing_trouble_does_not_decide_for_good(number: int) -> None:
    with pytest.raises(OSError, match="no"):
        failing(number)


def test_the_ioctl_is_taken_where_it_works() -> None:
    def fast(address: int, length: int) -> Usage:
        return Usage(0, 0)

    assert first_that_works(fast, sure) is fast
