"""The methods that are compared, by name: functions that take a `Case` and return the restored picture.

    @register("median", "denoise", about="median of 3 x 3 pixels")
    def median(case):
        from scipy.ndimage import median_filter

        return median_filter(case.y, (3, 3, 1)[: case.y.ndim])

makes one; nothing else is needed (`docs/benchmark.md`).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from dip.benchmark import source, tasks
from dip.benchmark.tasks import Case
from dip.errors import shown, unknown

__all__ = ["Method", "find", "names", "picture", "planes", "register", "register_family"]


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes
    ----------
    name : str
        In the command line and in records.
    function : callable
        ``function(case, **options)`` returns the restored picture: (H, W) or (H, W, 3), floats with black at 0 and
        white at 1; what overshoots is clipped, another range or dtype is a failure. At the top of a module, so that
        other processes find it.
    tasks : tuple of str
        What it can do, and what is like it (`Task.like`).
    about : str or mapping
        What it is, in a few words; by task, where it differs.
    options : mapping
        Keyword arguments of the function, in JSON types; part of what a result is known by.
    random : bool
        Whether its result depends on ``case.seed``; if not, it is run once and not for each seed.
    told : str
        What it is told besides the picture: "", "sigma", or what it was trained on.
    identity : str or mapping
        What else its result depends on, such as settings that options name; by task, where these differ. By default, of
        a function that is none of this package's, its source (`dip.benchmark.source.code`).
    needs : tuple of str
        The packages that it imports, besides those that the library has anyway.
    extra : str
        The extra of this library that brings them.
    """

    name: str
    function: Callable[..., np.ndarray]
    tasks: tuple[str, ...]
    about: str | Mapping[str, str] = field(default="", hash=False)
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    random: bool = False
    told: str = ""
    identity: str | Mapping[str, str] = field(default="", hash=False)
    needs: tuple[str, ...] = ()
    extra: str = "compare"

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def tasks_include(self, task: str) -> bool:
        """Whether it can do a task."""
        return bool({task, tasks.get(task).like} & set(self.tasks))

    def about_for(self, task: str | None = None) -> str:
        """Return what it is in a task, or in all of them."""
        if isinstance(self.about, str):
            return self.about
        if task is None:
            return "; ".join(dict.fromkeys(self.about.values()))
        return self.about.get(task) or self.about.get(tasks.get(task).like, "")

    def varied(self, more: str, **changes: Any) -> Method:
        """Return a variant, which is described as this one with `more` words."""
        about = {task: f"{self.about_for(task)}; {more}" for task in changes.get("tasks", self.tasks)}
        return replace(self, about=about, **changes)

    @property
    def code(self) -> str:
        """What the source of a function of the user's own comes to, where nothing else stands for it; else ""."""
        return "" if self.identity else source.code(self.function)

    def identity_for(self, task: str) -> str:
        """Return what else its result in a task depends on."""
        if isinstance(self.identity, str):
            return self.identity or self.code
        return self.identity.get(task) or self.identity.get(tasks.get(task).like, "")

    def check(self, task: str) -> None:
        """Look whether it can do a task here.

        Raises
        ------
        ValueError
            It is for other tasks.
        ImportError
            A package is missing, or cannot be imported; the message says what to do.
        """
        if not self.tasks_include(task):
            raise ValueError(f"method {self.name} is for {', '.join(self.tasks)}, not for {task}; leave it out")
        for package in self.needs:
            if importlib.util.find_spec(package) is None:
                raise ImportError(
                    f"method {self.name} needs the package {package}: pip install 'deep-image-prior[{self.extra}]', or "
                    "leave it out of --methods"
                )
            try:
                importlib.import_module(package)
            except Exception as error:  # torchvision of another build than torch raises what it likes
                raise ImportError(
                    f"method {self.name}: the package {package} is there, but cannot be imported "
                    f"({type(error).__name__}: {' '.join(str(error).split())}); install it anew, and what builds on "
                    "PyTorch from where PyTorch came, or leave the method out of --methods"
                ) from error


_METHODS: dict[str, Method] = {}
_FAMILIES: list[tuple[Callable[[str], Method | None], Callable[[], Mapping[str, str]], tuple[str, ...]]] = []
_SUFFIXES: dict[str, Callable[[Method], Method]] = {}


def register(
    name: str, *tasks: str, **properties: Any
) -> Callable[[Callable[..., np.ndarray]], Callable[..., np.ndarray]]:
    """Enter a function as a method for some tasks.

    Parameters
    ----------
    name : str
        Its name; one that is there already is replaced.
    *tasks : str
        The names of tasks.
    **properties
        See `Method`: about, options, random, told, identity, needs.
    """

    def enter(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        _METHODS[name] = Method(name, function, tasks, **properties)
        return function

    return enter


def register_suffix(suffix: str, change: Callable[[Method], Method]) -> None:
    """Enter a variant, as in "paper+windowed-variance": `change` makes it from the method before the plus."""
    _SUFFIXES[suffix] = change


def register_family(find: Callable[[str], Method | None], names: Callable[[], Mapping[str, str]], *tasks: str) -> None:
    """Enter methods that are not known beforehand, such as files.

    Parameters
    ----------
    find : callable
        Returns the method of a name; None if the name is none of the family's.
    names : callable
        Returns those that can be named, with a line about each.
    *tasks : str
        The names of the tasks that they are for.
    """
    _FAMILIES.append((find, names, tasks))


def names(task: str | None = None) -> dict[str, str]:
    """Return the methods of a task, or all, with a line about each; variants with a plus are made from them."""
    found = {name: one.about_for(task) for name, one in _METHODS.items() if task is None or one.tasks_include(task)}
    for _, listed, able in _FAMILIES:
        if task is None or {task, tasks.get(task).like} & set(able):
            found |= listed()
    return found


def _known(name: str) -> Method | None:
    """The method of that very name, without looking for variants."""
    return _METHODS.get(name) or next((one for find, *_ in _FAMILIES if (one := find(name)) is not None), None)


def suffixes() -> list[str]:
    """Return the variants that a fit can have, as in "paper+twice"."""
    return list(_SUFFIXES)


def find(name: str, **options: Any) -> Method:
    """Return a method.

    Parameters
    ----------
    name : str
        One of `names`; with a variant, as in ``"paper+discrepancy"``; ``"trained=FILE"`` for a model of one's own; or
        ``"module:function"`` for a function of one's own that was not registered.
    **options
        Options of its function, in place of its own.

    Raises
    ------
    ValueError
        There is none of that name, or it stands for a file that cannot be used.
    FileNotFoundError
        It stands for a file that is not there.
    ImportError
        The module is not there.
    """
    found = _known(name)  # first as it is: the name of a file may have a plus in it
    base, *suffixes = (name,) if found else name.split("+")
    found = found or _known(base)
    if found is None and ":" in base:
        found = _own(base)
    elif found is None:
        raise unknown("method", base, names())
    for suffix in suffixes:
        if suffix not in _SUFFIXES:
            raise unknown(f"variant of {base}:", suffix, _SUFFIXES)
        found = _SUFFIXES[suffix](found)
    return replace(found, name=name, options={**found.options, **options})


def _own(name: str) -> Method:
    """A function of a module, which may do any task and may be random."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        raise ImportError(f"method {name}: there is no module {error.name}; is its folder in PYTHONPATH?") from error
    except SystemExit as error:
        advice = "put what it runs as a script under if __name__ == '__main__'"
        raise ImportError(f"method {name}: the module calls sys.exit when it is imported; {advice}") from error
    for method in _METHODS.values():
        if method.function is found:
            return method
    if not callable(found):
        raise ValueError(f"method {name}: {module} has no function {shown(function)}")
    return Method(name, found, tuple(tasks.names()), about=(found.__doc__ or "").partition("\n")[0], random=True)


def resolved(methods: Sequence[str | Method], task: str) -> list[Method]:
    """Return the methods of these names, each able to do the task.

    Raises
    ------
    ValueError, ImportError
        One is not known or not able, or two have one name.
    TypeError
        One is neither a name nor a method.
    """
    if isinstance(methods, str) or not isinstance(methods, Iterable):
        raise TypeError(f"methods must be a list, not {shown(methods)}; pass it as [{shown(methods)}]")
    found = [find(one) if isinstance(one, str) else one for one in methods]
    for one in found:
        if not isinstance(one, Method):
            named = getattr(one, "__name__", "mine")
            advice = f"benchmark.Method({named!r}, {named}, ({task!r},))" if callable(one) else "a name, as 'nlm'"
            raise TypeError(f"a method is a name or a benchmark.Method, not {shown(one)}; pass {advice}")
        one.check(task)
    twice = sorted({one.name for one in found if [other.name for other in found].count(one.name) > 1})
    if twice:
        raise ValueError(f"method {twice[0]} is named twice; leave one out, or give one of them another name")
    if not found:
        raise ValueError(f"no method is named; for {task} there are {', '.join(names(task))}")
    return found


def planes(image: np.ndarray) -> torch.Tensor:
    """Return a picture (H, W) or (H, W, C) as a tensor (1, C, H, W), float32."""
    array = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))[None]


def picture(output: Any, case: Case) -> np.ndarray:
    """Return what a fit put out in the layout of the clean picture: (C, H, W) of `dip.Reconstruct` turned round."""
    array = np.asarray(output)
    if array.shape != case.clean.shape and array.ndim == 3:
        array = array[0] if case.clean.ndim == 2 else np.moveaxis(array, 0, -1)
    return array
