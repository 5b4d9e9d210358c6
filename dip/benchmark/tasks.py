"""What is done to a clean picture, and what a method is then given.

A task is a function that degrades a clean picture. Everything that its result depends on is a parameter with a default,
and stands in each record, so that a figure says what it is a figure of.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dip import degradations
from dip.batch import digest
from dip.deblurring import Deblur
from dip.decompression import Dejpeg
from dip.denoising import Denoise
from dip.errors import finite_float, positive_float, positive_int, shown, unknown, whole, yes_or_no
from dip.inpainting import Inpaint
from dip.operators import JPEG, Blur, Downsample
from dip.problem import Problem
from dip.tasks import SuperResolve

__all__ = ["Case", "Task", "bicubic", "get", "names", "register"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a method gets.

    Attributes
    ----------
    y : ndarray
        The degraded picture: float32, (H, W) or (H, W, 3); black is 0 and white is 1, noise may overshoot.
    clean : ndarray
        The picture as it was, float32, for curves and figures: no method looks at it.
    problem : callable
        ``problem(case)`` is the question in the form that `dip.fit` takes.
    sigma : float or None
        Standard deviation of the noise, with white at 1; a method that uses it is marked as one that was told.
    mask : ndarray or None
        (H, W), bool, True = known.
    factor : int or None
        How many times larger the picture was.
    psf : ndarray or None
        What a point became, (h, w).
    jpeg : JPEG or None
        How the picture was compressed.
    before : ndarray or None
        What to compare a restoration with where y has another size or holes.
    seed, device, iters
        For methods that draw numbers, compute on an accelerator, or iterate (None = their own count).
    log : dict
        A method may put in there what is to stand in its record, in JSON types; curves as ``log["curves"] = {"psnr":
        {"iteration": [...], "value": [...]}}``.
    """

    y: np.ndarray
    clean: np.ndarray
    problem: Callable[[Case], Problem]
    sigma: float | None = None
    mask: np.ndarray | None = None
    factor: int | None = None
    psf: np.ndarray | None = None
    jpeg: JPEG | None = None
    before: np.ndarray | None = None
    seed: int = 0
    device: str = "auto"
    iters: int | None = None
    log: dict[str, Any] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """SHA-256 of what a method is given: the pixels, with their dtype and shape, and the mask."""
        parts = [one for one in (digest(self.y), digest(self.mask), digest(self.psf)) if one is not None]
        return parts[0] if len(parts) == 1 else str(digest(np.array(parts)))


@dataclass(frozen=True)
class Task:
    """A kind of degradation; `register` makes it from a function.

    Attributes
    ----------
    name : str
        In the command line and in records.
    degrade : callable
        ``degrade(clean, mask, seed, **parameters)`` returns a `Case`. `clean` is float64 in [0, 1], `mask` that of the
        picture set or None.
    metric : {"rgb", "luma"}
        What the figures are of by default: all channels, or Y of BT.601.
    words : str
        The degradation in words, with the parameters in braces.
    like : str
        The task whose methods it takes.
    follows : mapping
        Of parameters whose default is None: what gives it in view of the others, by name.
    """

    name: str
    degrade: Callable[..., Case]
    metric: str
    words: str
    like: str
    follows: Mapping[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict, hash=False)

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters and their defaults."""
        given = inspect.signature(self.degrade).parameters.values()
        return {p.name: p.default for p in given if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def completed(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters with the defaults of those that are not given.

        Raises
        ------
        ValueError, TypeError
            There is none of a name, or it takes values of another type.
        """
        if not isinstance(parameters, Mapping):
            raise TypeError(f"parameters of {self.name} are a dict, as in {{'sigma': 50.0}}, not {shown(parameters)}")
        found = self.defaults
        for name, value in parameters.items():
            if name not in found:
                raise unknown(f"parameter of {self.name}", name, found)
            found[name] = _typed(value, inspect.signature(self.degrade).parameters[name])
        for name, follow in self.follows.items():
            if found[name] is None:
                found[name] = follow(found)
        return found


def _typed(value: Any, parameter: inspect.Parameter) -> Any:
    """A value of a parameter in JSON types, if it is of the type that the parameter has, or its default."""
    name, kinds = parameter.name, {type(parameter.default).__name__}
    if isinstance(parameter.annotation, str):
        kinds = {kind.strip() for kind in parameter.annotation.split("|")}
    if (value is None and "None" in kinds) or (isinstance(value, str) and "str" in kinds):
        return value
    if kinds == {"bool"}:
        return yes_or_no(value, name)
    if "float" in kinds:
        return finite_float(value, name)
    if "int" in kinds:
        return whole(value, name)
    if kinds == {"str"}:
        raise TypeError(f"{name} must be a text, not {shown(value)}")
    return value


_TASKS: dict[str, Task] = {}


def register(
    name: str,
    words: str,
    *,
    like: str = "",
    metric: str = "rgb",
    follows: Mapping[str, Callable[[Mapping[str, Any]], Any]] = MappingProxyType({}),
) -> Callable[[Callable[..., Case]], Callable[..., Case]]:
    """Enter a function as a task; see `Task` and docs/benchmark.md."""

    def enter(degrade: Callable[..., Case]) -> Callable[..., Case]:
        _TASKS[name] = Task(name, degrade, metric, words, like or name, follows)
        return degrade

    return enter


def names() -> dict[str, str]:
    """Return the tasks, with the first line of what each does."""
    return {name: (task.degrade.__doc__ or "").partition("\n")[0] for name, task in _TASKS.items()}


def get(name: str) -> Task:
    """Return a task.

    Raises
    ------
    ValueError
        There is none of that name.
    """
    if name not in _TASKS:
        raise unknown("task", name, _TASKS)
    return _TASKS[name]


# ---------------------------------------------------------------------- the tasks


def _denoise(case: Case) -> Problem:
    return Denoise(case.y)


@register("denoise", "Gaussian noise of standard deviation {sigma:g} (white = 255), {clip}clipped to [0, 1].")
def denoise(clean: np.ndarray, mask: np.ndarray | None, seed: int, *, sigma: float = 25.0, clip: bool = True) -> Case:
    """Add noise: y = x + n, clipped as the papers mostly do, or not."""
    y = degradations.gaussian(clean, sigma, clip=clip, seed=seed).astype(np.float32)
    return Case(y=y, clean=clean.astype(np.float32), problem=_denoise, sigma=sigma / 255)


def _inpaint(case: Case) -> Problem:
    return Inpaint(case.y, case.mask)


@register("inpaint", "Missing pixels, in all channels: {missing} (a share drawn at random, or the set's own masks).")
def inpaint(clean: np.ndarray, mask: np.ndarray | None, seed: int, *, missing: float | str = 0.5) -> Case:
    """Leave pixels out: a share of them at random (Bernoulli), "text", or "mask", which the picture set has to have."""
    size = clean.shape[:2]
    if missing == "text":
        known = degradations.text_mask(size)
    elif missing == "mask":
        if mask is None:
            raise ValueError("missing='mask' needs a picture set that has masks, such as dip-paper; give missing=0.5")
        known = mask
    elif isinstance(missing, str):
        raise unknown("way to leave pixels out", missing, ("text", "mask", "a share such as 0.5"))
    elif positive_float(missing, "missing") >= 1:
        raise ValueError(f"missing={missing:g} leaves no pixel; give a share below 1, such as 0.5")
    else:
        known = degradations.random_mask(size, 1 - missing, seed=seed)
    y = np.where(known if clean.ndim == 2 else known[..., None], clean, 0).astype(np.float32)
    return Case(y=y, clean=clean.astype(np.float32), problem=_inpaint, mask=known)


_SIDE = 32  # pixels: sides are multiples of that, as the paper's code has it
_PILLOW = {"Pillow's Lanczos in 8 bits": "LANCZOS", "Pillow's bicubic in 8 bits": "BICUBIC"}


def _super_resolve(case: Case) -> Problem:
    return SuperResolve(case.y, case.factor or 1)


def _multiple(parameters: Mapping[str, Any]) -> int:
    """The next multiple of the factor from 32 up: 32 for 2, 4 and 8."""
    factor = positive_int(parameters["factor"], "factor")
    return factor * -(-_SIDE // factor)


@register(
    "super-resolve",
    "{factor} times smaller by {kernel}, from the largest middle part whose sides are multiples of {multiple} pixels "
    "(of {factor}, where a side is shorter than that).",
    metric="luma",
    follows={"multiple": _multiple},
)
def super_resolve(
    clean: np.ndarray,
    mask: np.ndarray | None,
    seed: int,
    *,
    factor: int = 4,
    kernel: str = "Pillow's Lanczos in 8 bits",
    multiple: int | None = None,
) -> Case:
    """Reduce a picture as the paper's code does, or by Pillow's bicubic, or by a kernel of `Downsample` in floats."""
    usual = _multiple({"factor": factor})
    multiple = usual if multiple is None else positive_int(multiple, "multiple")
    if multiple % factor:
        raise ValueError(f"multiple={multiple} is not a multiple of the factor {factor}; give one that is")
    least = factor if multiple == usual else multiple
    if min(clean.shape[:2]) < least:
        advice = "a smaller factor, or larger pictures" if least == factor else "a smaller multiple"
        raise ValueError(f"{clean.shape[0]} x {clean.shape[1]} pixels are less than {least}; give {advice}")
    rows, columns = (n - n % (multiple if n >= multiple else factor) for n in clean.shape[:2])
    top, left = (clean.shape[0] - rows) // 2, (clean.shape[1] - columns) // 2
    clean = clean[top : top + rows, left : left + columns]
    if kernel in _PILLOW:
        from PIL import Image

        large = Image.fromarray(np.rint(clean * 255).astype(np.uint8))
        y = np.asarray(large.resize((columns // factor, rows // factor), Image.Resampling[_PILLOW[kernel]]))
        y = y / np.float32(255)
    else:
        y = _apply(Downsample(factor, kernel), clean)
    before = bicubic(y, factor)
    return Case(y=y, clean=clean.astype(np.float32), problem=_super_resolve, factor=factor, before=before)


def bicubic(picture: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge a picture (H, W) or (H, W, C), float32, by Pillow's bicubic interpolation, in floats."""
    from PIL import Image

    planes = picture[..., None] if picture.ndim == 2 else picture
    size = (factor * picture.shape[1], factor * picture.shape[0])
    made = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, Image.Resampling.BICUBIC))
        for plane in np.moveaxis(planes, -1, 0)
    ]
    return made[0] if picture.ndim == 2 else np.stack(made, axis=-1)


def _deblur(case: Case) -> Problem:
    return Deblur(case.y, case.psf)


@register(
    "deblur",
    "Blurred by a Gaussian of {blur:g} pixels (cut off at 4 of them, picture reflected), then Gaussian noise of "
    "standard deviation {sigma:g} (white = 255), not clipped.",
)
def deblur(clean: np.ndarray, mask: np.ndarray | None, seed: int, *, blur: float = 1.6, sigma: float = 2.0) -> Case:
    """Blur a picture and add noise; the methods are told the point spread function."""
    # not quite that of `dip.operators.gaussian_psf`: the figures stay comparable with those of before there was one
    reach = int(np.ceil(4 * positive_float(blur, "blur")))
    line = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * blur**2))
    psf = np.outer(line, line) / line.sum() ** 2
    if reach >= min(clean.shape[:2]):
        raise ValueError(f"blur={blur:g} reaches over {reach} pixels, and a picture has only {min(clean.shape[:2])}")
    y = degradations.gaussian(_apply(Blur(psf), clean), sigma, clip=False, seed=seed)
    return Case(y=y, clean=clean.astype(np.float32), problem=_deblur, sigma=sigma / 255, psf=psf)


def _dejpeg(case: Case) -> Problem:
    return Dejpeg(case.y, case.jpeg)


@register("dejpeg", "Saved as a JPEG of quality {quality}, with colours {subsampling} (Pillow).")
def dejpeg(
    clean: np.ndarray, mask: np.ndarray | None, seed: int, *, quality: int = 10, subsampling: str = "4:2:0"
) -> Case:
    """Save as a JPEG; the methods are told how."""
    y = degradations.jpeg(clean, quality, subsampling=subsampling).astype(np.float32)
    jpeg = JPEG(quality, subsampling=subsampling)
    return Case(y=y, clean=clean.astype(np.float32), problem=_dejpeg, jpeg=jpeg)


def _apply(operator: Callable[[Tensor], Tensor], picture: np.ndarray) -> np.ndarray:
    """A x for a picture (H, W) or (H, W, C), as float32."""
    planes = picture[None] if picture.ndim == 2 else np.moveaxis(picture, -1, 0)
    with torch.no_grad():
        made = operator(torch.from_numpy(np.ascontiguousarray(planes, np.float32))[None])[0].numpy()
    return made[0] if picture.ndim == 2 else np.ascontiguousarray(np.moveaxis(made, 0, -1))


def seeded(case: Case, seed: int, device: str, iters: int | None) -> Case:
    """Return a case for one run of a method, with a log of its own."""
    return replace(case, seed=seed, device=device, iters=iters, log={})
