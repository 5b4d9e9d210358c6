"""What a function says, as a hash: a method that was changed is to be run again."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["code"]

_OURS = "dip."


def code(function: Callable[..., Any]) -> str:
    """Return 32 hexadecimal digits for the source of a function of the user's own, "" for one of this package.

    They are of the statements at the top of its module that make the function, and of those that these name, and so
    on: helpers and constants beside it count, comments, blank lines and the rest of the module do not. Where these
    cannot be read it is the whole file of the module, or the text of the function; and "" where there is neither.

    Examples
    --------
    >>> from json import dumps
    >>> len(code(dumps)), code(code)
    (32, '')
    """
    found: Any = inspect.unwrap(function)
    while isinstance(found, functools.partial):
        found = inspect.unwrap(found.func)
    if not hasattr(found, "__qualname__"):  # an object that can be called
        found = type(found)
    name = str(getattr(found, "__module__", None) or "")
    if name.startswith(_OURS):
        return ""
    # the first name of "make.<locals>.inner" is what stands at the top
    text = _text(name, found.__qualname__.partition(".")[0]) or _lines(found)
    return hashlib.sha256(text.encode()).hexdigest()[:32] if text else ""


def _text(module: str, name: str) -> str:
    """The statements of a module that a name depends on, or all of its file; "" where there is no file."""
    try:
        file = inspect.getsourcefile(importlib.import_module(module))
        source = Path(file or "").read_text(encoding="utf-8")
        statements = ast.parse(source).body
    except (ImportError, TypeError, ValueError, SyntaxError, OSError):
        return ""
    makers: dict[str, list[int]] = {}
    for number, statement in enumerate(statements):
        for made in _made(statement):
            makers.setdefault(made, []).append(number)
    if name not in makers:
        return source
    needed: set[int] = set()
    todo = [name]
    while todo:
        for number in makers.pop(todo.pop(), []):
            if number not in needed:
                needed.add(number)
                todo += [node.id for node in ast.walk(statements[number]) if isinstance(node, ast.Name)]
    return "\n".join(ast.unparse(statements[number]) for number in sorted(needed))


def _made(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top of a module gives something to."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def _lines(function: Any) -> str:
    """The lines of a function that is in no file, as in a notebook."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""
