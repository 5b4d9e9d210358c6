"""Messages for a user's mistakes, and checks of plain numbers.

Every refusal in the package is a built-in exception whose message says what was given, what is allowed and
what to change. The helpers here keep the wording the same everywhere.
"""

from __future__ import annotations

import difflib
import math
import operator
import os
import reprlib
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

__all__ = [
    "callables",
    "finite_float",
    "non_negative_int",
    "positive_float",
    "positive_int",
    "shown",
    "unknown",
    "warn",
    "whole",
    "yes_or_no",
]

# this package, and PyTorch's decorators
_INSIDE = (os.path.dirname(__file__), os.path.join("torch", "utils", "_contextlib.py"))


def warn(text: str) -> None:
    """Issue a RuntimeWarning that points at the user's line, outside the package."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and any(part in frame.f_code.co_filename for part in _INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, RuntimeWarning, stacklevel=level)


def shown(value: object) -> str:
    """A value as it appears in a message: on one line and never long.

    Parameters
    ----------
    value : object
        Anything that a user may have passed, a large array included.

    Returns
    -------
    str
        The shortened ``repr``, or ``"<type> of shape ..."`` for arrays and tensors with more than one
        element.

    Examples
    --------
    >>> shown("paper")
    "'paper'"
    >>> import numpy as np
    >>> shown(np.zeros((512, 512)))
    'ndarray of shape (512, 512)'
    """
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and math.prod(shape) != 1:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    return " ".join(reprlib.repr(value).split())


def unknown(what: str, given: object, allowed: Iterable[str]) -> ValueError:
    """The error for a name that is not in a list, with the nearest one that is.

    Parameters
    ----------
    what : str
        What the name stands for, as in ``"preset"`` or ``"downsampling kernel"``.
    given : object
        What the user wrote; not a string is allowed, then no nearest name is offered.
    allowed : iterable of str
        The valid names.

    Returns
    -------
    ValueError
        To be raised by the caller, so that the traceback ends where the mistake was found.

    Examples
    --------
    >>> print(unknown("preset", "papper", ["fast", "paper"]))
    unknown preset 'papper'; did you mean 'paper'? allowed: fast, paper
    """
    names = list(allowed)
    nearest = ""
    if isinstance(given, str):
        by_lower = {name.lower(): name for name in names}
        close = difflib.get_close_matches(given.lower(), by_lower, n=1)
        nearest = f"; did you mean {by_lower[close[0]]!r}?" if close else ""
    return ValueError(f"unknown {what} {shown(given)}{nearest or ';'} allowed: {', '.join(names) or 'none'}")


def positive_int(value: Any, name: str) -> int:
    """Check a count: a whole number from 1 up.

    Parameters
    ----------
    value : int, numpy integer, or integer array or tensor with one element and no axis
        The number. Floats are refused even where they are whole: ``1e3`` is usually a slip for a real-valued
        option.
    name : str
        The name of the parameter, for the message.

    Returns
    -------
    int
        The same number.

    Raises
    ------
    TypeError
        If `value` is not of an integer type (bool and float are not).
    ValueError
        If `value` is zero or negative.

    Examples
    --------
    >>> positive_int(1800, "iters")
    1800
    """
    return _whole(value, name, least=1)


def non_negative_int(value: Any, name: str) -> int:
    """Check a whole number from 0 up, such as a seed; otherwise as `positive_int`.

    Raises
    ------
    TypeError
        If `value` is not of an integer type (bool and float are not).
    ValueError
        If `value` is negative.

    Examples
    --------
    >>> non_negative_int(0, "seed")
    0
    """
    return _whole(value, name, least=0)


def whole(value: Any, name: str) -> int:
    """Check a whole number of any sign; otherwise as `positive_int`.

    Raises
    ------
    TypeError
        If `value` is not of an integer type (bool and float are not).

    Examples
    --------
    >>> whole(-3, "shift")
    -3
    """
    return _whole(value, name)


def _whole(value: Any, name: str, *, least: int | None = None) -> int:
    advice = f"{name} must be a whole number" + ("" if least is None else f" from {least} up")
    if _is_bool(value):
        raise TypeError(f"{advice}, not {shown(value)}; pass an int such as 1")
    try:
        number = operator.index(value)
    except TypeError:
        meant = isinstance(value, float) and value.is_integer() and (least is None or value >= least)
        fix = f"pass {int(value)}" if meant else "pass an int"
        raise TypeError(f"{advice}, not {shown(value)} ({type(value).__name__}); {fix}") from None
    if least is not None and number < least:
        raise ValueError(f"{advice}, not {number}; pass {least} or more")
    return number


def positive_float(value: Any, name: str, *, zero_ok: bool = False) -> float:
    """Check a real number: finite and above zero.

    Parameters
    ----------
    value : float, int, numpy number, or array or tensor with one element
        The number.
    name : str
        The name of the parameter, for the message.
    zero_ok : bool, optional
        Accept zero too.

    Returns
    -------
    float
        The same number.

    Raises
    ------
    TypeError
        If `value` is not a real number (bool and strings are not).
    ValueError
        If `value` is negative, NaN or infinite, or zero where that is not allowed.

    Examples
    --------
    >>> positive_float(0.01, "lr")
    0.01
    """
    advice = f"{name} must be a finite number {'of 0 or more' if zero_ok else 'above 0'}"
    number = _real(value, advice)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero_ok):
        raise ValueError(f"{advice}, not {number:g}; pass a value such as 0.01")
    return number


def finite_float(value: Any, name: str) -> float:
    """Check a real number of any sign: finite.

    Raises
    ------
    TypeError
        If `value` is not a number.
    ValueError
        If `value` is NaN or infinite.

    Examples
    --------
    >>> finite_float(-1, "offset")
    -1.0
    """
    advice = f"{name} must be a finite number"
    number = _real(value, advice)
    if not math.isfinite(number):
        raise ValueError(f"{advice}, not {number:g}; pass a value such as 0.01")
    return number


def _real(value: Any, advice: str) -> float:
    wrong_type = f"{advice}, not {shown(value)} ({type(value).__name__}); pass a float such as 0.01"
    if _is_bool(value) or isinstance(value, (str, bytes, bytearray)):
        raise TypeError(wrong_type)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several elements
        raise TypeError(wrong_type) from None
    except OverflowError:
        raise ValueError(f"{advice}, not {shown(value)}; it is too large for a float") from None


def _is_bool(value: object) -> bool:
    """True for bool, numpy.bool and arrays or tensors of them: all would pass as 0 or 1 otherwise."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).rpartition(".")[2] == "bool"


def yes_or_no(value: Any, name: str) -> bool:
    """Check a choice between True and False.

    Raises
    ------
    TypeError
        If `value` is not a bool: "no" and 0.0 would pass as True and False otherwise.

    Examples
    --------
    >>> yes_or_no(True, "sigmoid")
    True
    """
    if not _is_bool(value) or getattr(value, "shape", ()) != ():
        raise TypeError(f"{name} must be True or False, not {shown(value)}")
    return bool(value)


def callables(given: Any, name: str, advice: str) -> tuple[Callable[..., Any], ...]:
    """Return one callable, or several, as a tuple.

    Parameters
    ----------
    given : callable or iterable of callables
        What was given.
    name : str
        Name of the argument.
    advice : str
        What to give instead.

    Raises
    ------
    TypeError
        One of them is a class, or cannot be called.

    Examples
    --------
    >>> callables(print, "callbacks", "functions") == (print,)
    True
    """
    several = (given,) if callable(given) else given
    several = tuple(several) if hasattr(several, "__iter__") else (several,)
    for one in several:
        if isinstance(one, type) or not callable(one):
            raise TypeError(f"{name}={shown(given)}: give {advice}")
    return several
