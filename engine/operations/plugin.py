"""The operation of plug-ins: one of those that they declare."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from engine.errors import InvalidInput
from engine.operations.finite import check_plain
from engine.operations.inputs import check_text
from engine.operations.operation import Operation


@dataclasses.dataclass(frozen=True, slots=True)
class Call(Operation[Any]):
    """One of a plug-in's operations, with its arguments by name."""

    operation: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    field: str = "arguments"

    kinds: ClassVar[tuple[str, ...]] = ("plugin",)

    def __post_init__(self) -> None:
        check_text(self.operation, "operation")
        arguments: object = self.arguments
        if not isinstance(arguments, Mapping):
            raise InvalidInput(f"{self.field} must be a mapping of names to values.", param=self.field)
        _check_texts_within(self.arguments, self.field)

    @property
    def size(self) -> int:
        """One call; only the plug-in can interpret its arguments."""
        return 1

    def nothing(self) -> None:
        """Return nothing: a call is never about no items."""

    def _run(self, adapter: Any) -> Any:
        result = adapter.call(self.operation, self.arguments)
        check_plain(result, f"the result of {self.operation}")
        return result


def _check_texts_within(values: Mapping[str, Any], field: str) -> None:
    """Check every text in plain data, however deep; other objects are the plug-in's affair."""
    pending: list[tuple[str, Any]] = [(f"{field}.{name}", value) for name, value in values.items()]
    for name in values:
        check_text(name, f"a name in {field}", param=field)
    while pending:
        where, value = pending.pop()
        if isinstance(value, str):
            check_text(value, where, param=field)
        elif isinstance(value, list | tuple):
            pending += [(f"{where}[{index}]", item) for index, item in enumerate(value)]
        elif isinstance(value, dict):
            pending += [(where, key) for key in value]
            pending += [(f"{where}.{key}", item) for key, item in value.items()]
