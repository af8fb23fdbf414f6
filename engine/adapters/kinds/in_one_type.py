"""Models of sentence-transformers whose modules are all as wide as the widest weights among their files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

from engine.adapters.sources.element_type import element_type

_WIDE: Final = ("float32", "float64")


def read_in_one_type(kind: Any, folder: Path, *, trust_remote_code: bool) -> Any:
    """Return the model in `folder`, made by `kind`, a class of sentence-transformers, on the CPU and without a hub."""
    dtype = element_type(folder)
    return _in_one_type(kind, dtype)(
        str(folder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        model_kwargs={"dtype": dtype},
    )


@cache  # a class of its own for each load would stay in memory
def _in_one_type(kind: Any, dtype: str) -> Any:
    """Return `kind`, a class of sentence-transformers, which reads its modules in `dtype`: torch's name of a type.

    The library makes every module as narrow as the first one. `dtype` is not narrower than any of their files.
    """

    class InOneType(kind):  # type: ignore[misc]
        def _load_modules(self, *args: Any, **kwargs: Any) -> Any:
            import torch

            modules, more = super()._load_modules(*args, **kwargs)
            if dtype in _WIDE:  # all files of a narrower type hold that type alone
                for module in modules if isinstance(modules, list) else modules.values():
                    module.to(getattr(torch, dtype))
            return modules, more

    InOneType.__name__ = InOneType.__qualname__ = kind.__name__
    return InOneType
