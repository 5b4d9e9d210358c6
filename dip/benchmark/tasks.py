"""What is done to a clean picture, what a method is then given, and how its answer is judged: the protocol.

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

from dip import degradations, metrics
from dip.batch import digest
from dip.deblurring import Deblur
from dip.decompression import Dejpeg
from dip.denoising import Denoise
from dip.errors import non_negative_int, positive_float, positive_int, unknown
from dip.operators import JPEG, Blur, Downsample
from dip.problem import Problem
from dip.tasks import Inpaint, SuperResolve

__all__ = ["Case", "Protocol", "Task", "bicubic", "get", "names", "register"]


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
    """

    name: str
    degrade: Callable[..., Case]
    metric: str
    words: str
    like: str

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters and their defaults."""
        given = inspect.signature(self.degrade).parameters.values()
        return {p.name: p.default for p in given if p.kind is inspect.Parameter.KEYWORD_ONLY}


_TASKS: dict[str, Task] = {}


def register(
    name: str, words: str, *, like: str = "", metric: str = "rgb"
) -> Callable[[Callable[..., Case]], Callable[..., Case]]:
    """Enter a function as a task; see `Task` and docs/benchmark.md."""

    def enter(degrade: Callable[..., Case]) -> Callable[..., Case]:
        _TASKS[name] = Task(name, degrade, metric, words, like or name)
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


@dataclass(frozen=True)
class Protocol:
    """Everything that a figure depends on but the picture and the method.

    Parameters
    ----------
    task : str
        One of `names`.
    parameters : mapping
        Of the task; its defaults are filled in.
    metric : {"rgb", "luma"}, optional
        What PSNR and SSIM are of; by default the task's.
    border : int, optional
        Width of the frame that they leave out; by default the factor of super-resolution for luma, else 0.
    noise_seed : int
        Of noise and masks: the same for all methods and all their seeds.
    size : int, optional
        A square of so many pixels from the middle of each picture; by default the whole picture.

    Raises
    ------
    ValueError, TypeError
        A name or value is not one of these.
    """

    task: str
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    metric: str | None = None
    border: int | None = None
    noise_seed: int = 0
    size: int | None = None

    def __post_init__(self) -> None:
        task = get(self.task)
        for name in self.parameters:
            if name not in task.defaults:
                raise unknown(f"parameter of {self.task}", name, task.defaults)
        parameters = {**task.defaults, **self.parameters}
        metric = task.metric if self.metric is None else self.metric
        if metric not in ("rgb", "luma"):
            raise unknown("metric", metric, ("rgb", "luma"))
        border = parameters.get("factor", 0) if metric == "luma" and self.border is None else self.border or 0
        object.__setattr__(self, "parameters", MappingProxyType(parameters))
        object.__setattr__(self, "metric", metric)
        object.__setattr__(self, "border", non_negative_int(border, "border"))
        non_negative_int(self.noise_seed, "noise_seed")
        if self.size is not None:
            positive_int(self.size, "size")

    def __reduce__(self) -> tuple[Any, ...]:
        return Protocol, (self.task, dict(self.parameters), self.metric, self.border, self.noise_seed, self.size)

    def as_dict(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {
            "task": self.task,
            **self.parameters,
            "metric": self.metric,
            "border": self.border,
            "noise_seed": self.noise_seed,
            "size": self.size,
        }

    def words(self) -> str:
        """Return it in words, for people."""
        what = get(self.task).words.format(
            **{k: "not " if v is False else "" if v is True else v for k, v in self.parameters.items()}
        )
        channels = "all channels together" if self.metric == "rgb" else "Y of BT.601 (16 to 235, not rounded; peak 255)"
        crop = "whole pictures" if self.size is None else f"the middle {self.size} x {self.size} pixels of each picture"
        border = f", less a border of {self.border} pixels" if self.border else ""
        return (
            f"{what} Seed {self.noise_seed} of numpy's default_rng; {crop}. Results are clipped to [0, 1] and not "
            f"rounded; PSNR and SSIM (scikit-image, uniform window of 7 x 7) are of {channels}{border}."
        )

    def case(self, pixels: np.ndarray, mask: np.ndarray | None = None) -> Case:
        """Degrade a picture.

        Parameters
        ----------
        pixels : ndarray
            (H, W) or (H, W, 3); uint8, uint16 or floats in [0, 1].
        mask : ndarray, optional
            That of the picture set, (H, W), bool.
        """
        white = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1
        clean, mask = (None if one is None else _middle(one, self.size) for one in (pixels / white, mask))
        return get(self.task).degrade(clean, mask, self.noise_seed, **self.parameters)

    def figures(self, picture: np.ndarray, case: Case) -> dict[str, float]:
        """Return PSNR (dB) and SSIM of a restored picture; on the missing pixels too, where there are such.

        Raises
        ------
        ValueError
            The picture has another shape than the clean one, or is not finite.
        """
        x = np.clip(np.asarray(picture, dtype=np.float64), 0, 1)
        if x.shape != case.clean.shape:
            raise ValueError(f"the method returned an array of shape {x.shape}, not {case.clean.shape}")
        figures = self._quality(x, case.clean)
        if case.mask is not None and not case.mask.all():
            error = np.mean((x[~case.mask] - case.clean[~case.mask]) ** 2)
            figures["psnr_missing"] = float(-10 * np.log10(error)) if error else float("inf")
        return figures

    def figures_before(self, case: Case) -> dict[str, float]:
        """Return PSNR and SSIM of the degraded picture, not clipped (of super-resolution: of Pillow's bicubic)."""
        before = case.y if case.before is None else case.before
        if before.shape != case.clean.shape or (case.mask is not None and not case.mask.all()):
            return {}
        return {f"{name}_before": value for name, value in self._quality(before, case.clean).items()}

    def _quality(self, x: np.ndarray, clean: np.ndarray) -> dict[str, float]:
        if self.metric == "luma":
            psnr = metrics.psnr_y(x, clean, border=self.border or 0)
            x, clean = _luma(x), _luma(clean)
        inside = (slice(self.border or 0, -self.border if self.border else None),) * 2
        x, clean = x[inside].astype(np.float64), clean[inside].astype(np.float64)
        if self.metric == "rgb":
            psnr = metrics.psnr(x, clean)
        return {"psnr": psnr, "ssim": metrics.ssim(x, clean)}


def _middle(picture: np.ndarray, size: int | None) -> np.ndarray:
    if size is None:
        return picture
    top, left = (max(0, n - size) // 2 for n in picture.shape[:2])
    return picture[top : top + size, left : left + size]


def _luma(picture: np.ndarray) -> np.ndarray:
    from skimage.color import rgb2ycbcr

    return rgb2ycbcr(picture)[..., 0] / 255 if picture.ndim == 3 else picture


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


_PILLOW = {"Pillow's Lanczos in 8 bits": "LANCZOS", "Pillow's bicubic in 8 bits": "BICUBIC"}


def _super_resolve(case: Case) -> Problem:
    return SuperResolve(case.y, case.factor or 1)


@register(
    "super-resolve",
    "{factor} times smaller by {kernel}, from the largest middle part whose sides are multiples of {multiple} pixels.",
    metric="luma",
)
def super_resolve(
    clean: np.ndarray,
    mask: np.ndarray | None,
    seed: int,
    *,
    factor: int = 4,
    kernel: str = "Pillow's Lanczos in 8 bits",
    multiple: int = 32,
) -> Case:
    """Reduce a picture as the paper's code does, or by Pillow's bicubic, or by a kernel of `Downsample` in floats."""
    if positive_int(multiple, "multiple") % positive_int(factor, "factor"):
        raise ValueError(f"multiple={multiple} is not a multiple of the factor {factor}; give one that is")
    rows, columns = (multiple * (n // multiple) for n in clean.shape[:2])
    if not rows or not columns:
        raise ValueError(
            f"{clean.shape[0]} x {clean.shape[1]} pixels are less than {multiple}; give a smaller multiple"
        )
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
