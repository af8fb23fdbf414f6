"""The wording rule of docstrings and comments, as far as a program can check it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for place in ("engine", "tray", "build") for path in (ROOT / place).rglob("*.py"))

AVOIDED = (
    "in vain",
    "whoever",
    "anew",
    "shall",
    "riddle",
    "riddles",
    "for the sake of",
    "polite",
    "so many",
    "the way up",
    "the way down",
    "nobody",
    "somebody",
    "everybody",
)
"""Words that say less than the plain one: name the caller, the user or the other encoder, and say what must be."""

LONGEST = 20
"""Words of a docstring's first sentence."""

QUESTIONS = ("What", "Who", "Whose", "Whom", "Where", "How", "Why")
"""First words of clauses that stand in for the name of a thing."""

_WORD = re.compile(rf"\b({'|'.join(map(re.escape, AVOIDED))})\b", re.IGNORECASE)
_VERB_FORMS = re.compile(r"^(Returns|Raises|Gives|Takes|Makes|Says|Tells|Asks|Sets|Adds|Reads|Writes|Runs|Calls)\b")


def sentence(docstring: str) -> str:
    """The first sentence, on one line; a dot within a name or a number does not end it."""
    text = " ".join(docstring.split())
    end = re.search(r"[.:;](?=\s|$)", text)
    return text[: end.start()] if end else text


def documented(path: Path) -> Iterator[tuple[str, int, str, ast.AST]]:
    """The docstrings of a module and of its public classes, functions, methods and fields, with name and line."""

    def inside(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, int, str, ast.AST]]:
        for node, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{node.name}"
                if node.name.startswith("_"):
                    continue
                if (text := ast.get_docstring(node)) is not None:
                    yield name, node.lineno, text, node
                if isinstance(node, ast.ClassDef):
                    yield from inside(node.body, f"{name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                name = getattr(target, "id", getattr(target, "attr", ""))
                value = after.value
                if not name.startswith("_") and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield f"{prefix}{name}", node.lineno, value.value, node

    tree = ast.parse(path.read_text(encoding="utf-8"))
    if (text := ast.get_docstring(tree)) is not None:
        yield path.stem, 1, text, tree
    yield from inside(tree.body, "")


def words_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every comment and every docstring, private ones too, with its line."""
    text = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def test_docstrings_and_comments_name_who_acts_and_what_must_be() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {hit.group()}"
        for path in SOURCES
        for line, text in words_of(path)
        for hit in _WORD.finditer(" ".join(text.split()))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("place", ["engine", "tray", "build"])
def test_a_public_docstring_begins_with_one_short_plain_sentence(place: str) -> None:
    wrong = []
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != place:
            continue
        for name, line, text, node in documented(path):
            first = sentence(text)
            where = f"{path.relative_to(ROOT)}:{line}: {name}:"
            if len(first.split()) > LONGEST:
                wrong.append(f"{where} {len(first.split())} words: {first}")
            if first.split(" ", 1)[0] in QUESTIONS:
                wrong.append(f"{where} begins with a question word: {first}")
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _VERB_FORMS.match(first):
                wrong.append(f"{where} is no imperative: {first}")
    assert not wrong, "\n".join(wrong)
