"""Check that files are small, and that text files end with exactly one line break.

python build/check_files.py FILE ...
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

LARGEST = 500_000
"""Bytes that a file in the repository may have."""


def problems(files: Iterable[Path]) -> Iterator[str]:
    """Yield one line for each file that is too large or ends wrongly."""
    for file in files:
        content = file.read_bytes()
        if len(content) > LARGEST:
            yield f"{file}: {len(content)} bytes; the limit is {LARGEST}"
        is_text = b"\0" not in content
        if is_text and content and (not content.endswith(b"\n") or content.endswith((b"\n\n", b"\n\r\n"))):
            yield f"{file}: must end with exactly one line break"


def main() -> int:
    """Print the problems of the files named on the command line and return the exit status."""
    found = list(problems(map(Path, sys.argv[1:])))
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
