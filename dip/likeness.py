"""Whether functions and objects of the user's own are those that a checkpoint was written with.

The name of a lambda is that of any other, and so is that of an object which has no `__repr__`. So what they are made of
is compared too: the code of functions with their defaults and what they enclose, the attributes of objects with the
code of their classes. Names that are looked up when the code runs (other functions, globals) are not followed.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dip.checkpoint import HASHED, digest

__all__ = ["Likeness", "name"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_LIBRARIES = ("dip", "torch", "numpy", "builtins")  # whose code belongs to their version
_VALUES, _NUMBERS = 10_000, 2**22  # in one part, and in its arrays; of what is beyond only type and shape are compared
_LONG = 40  # characters; longer texts are compared by their hash
_DEEP = 6  # objects in objects in objects, ...
# Bytecode differs between versions of Python, and is compared with that of the same only.
_PYTHON = f"{sys.implementation.cache_tag}{'-O' * sys.flags.optimize}"


def name(thing: Any) -> str:
    """Return what `repr` says, without the address in memory that it has for functions and plain objects."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))


class Likeness:
    """What there is to compare of some things, and has not changed since this was made.

    Parameters
    ----------
    things : dict
        By what the messages call them; those of this package, which their names tell whole, are passed over.

    Notes
    -----
    What changes during a fit (a counter, a list of what was seen) is the state of a thing and not what it is; it is
    left out, since the same thing made anew would begin without it.
    """

    def __init__(self, things: dict[str, Any]) -> None:
        self._things, self._first = things, _all(things)

    def lasting(self) -> dict[str, str]:
        """Return what is as it was, by names for messages, such as "gamma of the loss"."""
        return {key: text for key, text in _all(self._things).items() if self._first.get(key) == text}


def _all(things: dict[str, Any]) -> dict[str, str]:
    found = {}
    for what, thing in things.items():
        for part, value in _parts(thing):
            reader = _Reader()
            text = reader.text(value, 0)
            key = f"{part} of {what}{f' ({_PYTHON})' if reader.met_code else ''}"
            found[key] = text if len(text) <= _LONG else HASHED + hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a thing is made of, by name, so far as its own `__repr__` does not tell it."""
    if isinstance(thing, types.MethodType):
        yield from _parts(thing.__func__)
        yield from _parts(thing.__self__)
    elif isinstance(thing, functools.partial):
        yield "function", thing.func
        yield from ((f"argument {i}", value) for i, value in enumerate(thing.args, start=1))
        yield from thing.keywords.items()
    elif isinstance(thing, types.FunctionType):
        if not _of_library(thing):
            yield "code", thing.__code__
            yield "defaults", (thing.__defaults__, thing.__kwdefaults__)
            yield from zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
    else:
        if not _tells(thing):
            yield from _attributes(thing)
        for kind in reversed(type(thing).__mro__):
            for key, one in () if _of_library(kind) else vars(kind).items():
                if isinstance(one, types.FunctionType):
                    yield f"{key}() of {kind.__qualname__}", one.__code__
                elif isinstance(one, _PLAIN) and not key.startswith("__"):
                    yield f"{kind.__qualname__}.{key}", one


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    internal: Iterable[str] = ("__dict__", "__weakref__")
    if isinstance(thing, nn.Module):
        internal = vars(nn.Module())  # which differs from version to version of PyTorch
        yield "weights", [*thing.named_parameters(recurse=False), *thing.named_buffers(recurse=False)]
        yield from thing.named_children()
    slots = [vars(kind).get("__slots__", ()) for kind in type(thing).__mro__]
    inside = [key for names in slots for key in ((names,) if isinstance(names, str) else names)]
    for key in (*getattr(thing, "__dict__", {}), *inside):
        if key not in internal and hasattr(thing, key):
            yield key, getattr(thing, key)


def _tells(thing: Any) -> bool:
    """Tell whether a class says in a `__repr__` of its own what its objects are."""
    return "__repr__" in vars(type(thing))


def _of_library(thing: Any) -> bool:
    return (thing.__module__ or "").partition(".")[0] in _LIBRARIES


class _Reader:
    """Turns a value into a text that is the same in every process; one that has no such text into its type."""

    def __init__(self) -> None:
        self.met_code = False
        self._left, self._numbers_left = _VALUES, _NUMBERS  # of which no more are read

    def text(self, value: Any, depth: int) -> str:
        """Return the text of a value that is so deep inside another."""
        kind, inner = f"<{type(value).__qualname__}>", depth + 1
        self._left -= 1
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, np.generic):
            return repr(value.item())
        if isinstance(value, Tensor | np.ndarray):
            return self._numbers(value)
        if isinstance(value, types.CodeType):  # not the lines on which it stands
            self.met_code = True
            return self.text((value.co_code, value.co_names, value.co_freevars, value.co_consts), depth)
        if isinstance(value, types.CellType):
            try:
                return self.text(value.cell_contents, depth)
            except ValueError:  # it is empty
                return kind
        if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
            return value.__name__
        if depth >= _DEEP or self._left < 0:
            return kind
        if isinstance(value, list | tuple | set | frozenset | dict):
            if len(value) > self._left:
                return f"{kind} {len(value)}"
            texts = [self.text(item, inner) for item in list(value.items() if isinstance(value, dict) else value)]
            return f"{kind} {sorted(texts) if isinstance(value, set | frozenset) else texts}"
        if isinstance(value, types.FunctionType | types.MethodType):
            kind = value.__qualname__
        elif _tells(value) and (dataclasses.is_dataclass(value) or type(value).__module__.startswith("dip.")):
            kind = name(value)
        elif _of_library(type(value)) and not isinstance(value, nn.Module):
            return kind  # a device, a generator, something compiled
        return f"{kind} {[(part, self.text(one, inner)) for part, one in _parts(value)]}"

    def _numbers(self, value: Any) -> str:
        told = f"<{type(value).__qualname__}> {value.dtype} {list(value.shape)}"
        count = value.size if isinstance(value, np.ndarray) else value.numel()
        if count > self._numbers_left:
            return told
        self._numbers_left -= count
        if isinstance(value, np.ndarray):
            known = value.dtype.kind in "biufc"
            return f"{told} {hashlib.sha256(value.tobytes()).hexdigest()}" if known else told
        return f"{told} {digest(value)}" if value.layout == torch.strided and not value.is_meta else told
