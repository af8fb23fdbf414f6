"""One text through a dense encoder, a sparse one and axes in one call, with nothing done twice.

The text is tokenized once for encoders whose tokenizers are equal, axes take the dense vector where its encoder is
their base, and a `multi` encoder asked for both gives both in one pass. Encoders on different devices compute at the
same time; on one device one waits for the other, because together they would only be slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from engine.encoders.chain import Chain, complete
from engine.encoders.registry import Encoders
from engine.errors import UnknownEncoder
from engine.operations.axes import BaseVectors, EmbedInBase, EncodeAxes
from engine.operations.bundle import PARTS, Bundle, EncodeBundle
from engine.operations.cut import Cut
from engine.operations.dense import Embed
from engine.operations.inputs import ITEMS, naming_field
from engine.operations.multi import EncodeMulti
from engine.operations.sparse import EncodeSparse
from engine.settings import naming
from engine.state import SlotView

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What a tokenizer makes of the text, without special tokens."""

    key: str
    ids: list[int]
    whole: bool
    """Whether these are all of them; of a very long text there may be fewer."""


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """Parts that one encoder made, the revision of its weights, and what it did not read of the text."""

    parts: Mapping[str, Any]
    revision: str | None
    cut: Cut
    axis_names: tuple[str, ...] = ()


def submit_bundle(
    encoders: Encoders, asked: EncodeBundle, used_by: str | None = None, keep_alive: float | None = None
) -> Future[Bundle]:
    """Queue all of it and return the future of the whole, which holds no thread.

    Raises UnknownEncoder when an encoder that was named is not there, or none is configured at all; the future raises
    what its parts raise.
    """
    makers = _makers(encoders, asked)
    chain: Chain[Bundle] = Chain(
        lambda name, operation: encoders.submit(name, _about_the_text(operation), used_by, keep_alive)
    )
    made: dict[str, Future[_Made]] = {}
    tokens: Future[_Tokens | None] = Future()
    dense, sparse, axes = (makers.get(part) for part in PARTS)
    # Once each, because a view takes longer than to queue all of it.
    view = cache(lambda name: encoders.find(name).slot.view())
    if dense is not None and dense == sparse:
        made["dense"] = made["sparse"] = chain.run(dense, _both(asked))
    elif dense is not None:
        made["dense"] = chain.run(dense, _dense(asked, tokens if sparse else None))
        # Also where it failed before it had any.
        made["dense"].add_done_callback(lambda done: complete(tokens, lambda: _none_after(done)))
    if sparse is not None and sparse != dense:
        after: list[Future[Any]] = []
        if dense is not None and _on_one_device(view(dense), view(sparse)):
            after = [made["dense"]]
        elif dense is not None and view(dense).awake:
            # They are known long before its vector is; but no part waits for a load.
            after = [tokens]
        made["sparse"] = chain.run(sparse, _sparse(asked, tokens), after)
    if axes is not None:
        base = _base_of(encoders, axes)
        known = made["dense"] if base == dense else None
        # Also where the vector is known: the first use sends the anchors through the base.
        after = [made[part] for part in made if _on_one_device(view(makers[part]), view(base))]
        made["axes"] = chain.run(axes, _axes(asked, known), after if known is None else [known, *after])
    return chain.finish(list(made.values()), lambda: _bundle(makers, made))


def _makers(encoders: Encoders, asked: EncodeBundle) -> dict[str, str]:
    """Part -> the name of the encoder that makes it, in the order of the parts."""
    found = {}
    for part, operation in PARTS.items():
        name = asked.models.get(part)
        try:
            found[part] = naming.resolve(encoders.config, name, operation.kinds, operation.part)
        except UnknownEncoder:
            if name is not None:
                raise
    if not found:
        raise UnknownEncoder(
            "No encoder is configured that a bundle could be made with.",
            next_step="Add one: pilotlight add NAME dense MODEL",
        )
    return found


def _base_of(encoders: Encoders, axes: str) -> str:
    base = next((encoder.base for encoder in encoders.config.encoders if encoder.name == axes), None)
    if base is None:
        raise UnknownEncoder(f"There is no encoder {axes!r} any more.")
    return naming.resolve(encoders.config, base, EmbedInBase.kinds, EmbedInBase.part)


def _on_one_device(one: SlotView, other: SlotView) -> bool:
    """Whether they may have to share a device; one that never loaded could come up on any."""
    devices = [view.device or view.chosen_device for view in (one, other)]
    return None in devices or devices[0] == devices[1]


def _none_after(made: Future[_Made]) -> None:
    """Raise what it raised."""
    made.result()


def _about_the_text(operation: Callable[[Any], T]) -> Callable[[Any], T]:
    """Let errors of `operation` name the one text of a bundle as its caller does."""

    def run(adapter: Any) -> T:
        with naming_field("text", lambda index: "text"):
            return operation(adapter)

    return run


def _both(asked: EncodeBundle) -> Callable[[Any], _Made]:
    operation = EncodeMulti(
        [asked.text], want=("dense", "sparse"), top_k=asked.top_k, truncate=asked.truncate, field=ITEMS
    )

    def run(adapter: Any) -> _Made:
        found = operation(adapter)
        assert found.dense is not None and found.sparse is not None  # noqa: S101, PT018 - both were wanted
        return _Made({"dense": found.dense, "sparse": found.sparse[0]}, adapter.revision, found.cut)

    return run


def _dense(asked: EncodeBundle, tokens: Future[_Tokens | None] | None) -> Callable[[Any], _Made]:
    def run(adapter: Any) -> _Made:
        own = _tokenized(adapter, asked) if tokens is not None else None
        if tokens is not None:
            complete(tokens, lambda: own)
        inputs = [own.ids] if own else [asked.text]
        found = Embed(inputs, task=asked.task, truncate=asked.truncate, field=ITEMS)(adapter)
        return _Made({"dense": found.vectors}, adapter.revision, found.cut)

    return run


def _sparse(asked: EncodeBundle, tokens: Future[_Tokens | None]) -> Callable[[Any], _Made]:
    def run(adapter: Any) -> _Made:
        theirs = tokens.result() if tokens.done() and not tokens.exception() else None
        shared = theirs is not None and theirs.whole and theirs.key == _key(adapter, asked.task)
        inputs = [theirs.ids] if theirs and shared else [asked.text]
        found = EncodeSparse(inputs, asked.task, asked.top_k, asked.truncate, ITEMS)(adapter)
        return _Made({"sparse": found.vectors[0]}, adapter.revision, found.cut)

    return run


def _axes(asked: EncodeBundle, dense: Future[_Made] | None) -> Callable[[Any], _Made]:
    def run(adapter: Any) -> _Made:
        made = None if dense is None else dense.result()
        known = None if made is None else BaseVectors(made.parts["dense"], made.revision, 0, made.cut)
        projection = EncodeAxes([asked.text], asked.task, truncate=asked.truncate, known=known, field=ITEMS)(adapter)
        return _Made({"axes": projection.vectors[0]}, adapter.revision, projection.cut, projection.axes)

    return run


def _tokenized(adapter: Any, asked: EncodeBundle) -> _Tokens | None:
    """The text's ids by this encoder's tokenizer; None where they are not all that it reads."""
    key = _key(adapter, asked.task)
    ids = adapter.tokenize(asked.text, asked.task) if key is not None else []
    return _Tokens(key, ids, whole=len(ids) <= (adapter.max_tokens or len(ids))) if key is not None and ids else None


def _key(adapter: Any, task: str | None) -> str | None:
    """What is equal for two encoders that read the text as equal ids; None for one that puts a prompt before it.

    Behind another prompt the first token may be another, and some models leave theirs out of the pooling.
    """
    key: str | None = getattr(adapter, "tokenizer_key", None)
    return key if key is not None and not getattr(adapter, "prompt", _no_prompt)(task) else None


def _no_prompt(task: str | None) -> str:
    return ""


def _bundle(makers: Mapping[str, str], made: Mapping[str, Future[_Made]]) -> Bundle:
    found = {part: future.result() for part, future in made.items()}
    parts = {part: one.parts[part] for part, one in found.items()}
    dense = parts.get("dense")
    return Bundle(
        dense=None if dense is None else dense[0],
        sparse=parts.get("sparse"),
        axes=parts.get("axes"),
        axis_names=found["axes"].axis_names if "axes" in found else (),
        encoders=dict(makers),
        revisions={part: one.revision for part, one in found.items()},
        cut=max((one.cut for one in found.values()), key=lambda cut: cut.tokens),
    )
