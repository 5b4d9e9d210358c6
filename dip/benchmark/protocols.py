"""What a figure depends on but the picture and the method: the degradation, and how an answer is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from dip import metrics
from dip.benchmark import pictures
from dip.benchmark.tasks import Case, get
from dip.errors import non_negative_int, positive_int, shown, unknown

__all__ = ["Protocol"]

_WINDOW = 7  # pixels, of SSIM
_RETURN = "return floats with black at 0 and white at 1"
_SHARE = 0.01  # of the values that a method may return farther out than the range is wide: what overshoots is clipped


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
        A square of so many pixels from the middle of each picture, of a side that is shorter all of it; by default the
        whole picture.

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
        parameters = task.completed(self.parameters)
        metric = task.metric if self.metric is None else self.metric
        if metric not in ("rgb", "luma"):
            raise unknown("metric", metric, ("rgb", "luma"))
        border = parameters.get("factor", 0) if metric == "luma" and self.border is None else self.border or 0
        object.__setattr__(self, "parameters", MappingProxyType(parameters))
        object.__setattr__(self, "metric", metric)
        object.__setattr__(self, "border", non_negative_int(border, "border"))
        object.__setattr__(self, "noise_seed", non_negative_int(self.noise_seed, "noise_seed"))
        if self.size is not None:
            object.__setattr__(self, "size", positive_int(self.size, "size"))
            self._check_border(self.size)

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
        channels = "all channels together"
        if self.metric == "luma":
            channels = "Y of BT.601 (16 to 235, of gray pictures gray itself, 0 to 255; not rounded; peak 255)"
        crop = "whole pictures"
        if self.size is not None:
            crop = f"the middle {self.size} x {self.size} pixels of each picture (of a side that is shorter, all)"
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
            (H, W) or (H, W, 3); uint8, uint16, bool, or floats in [0, 1].
        mask : ndarray, optional
            That of the picture set, (H, W), bool.

        Raises
        ------
        TypeError, ValueError
            The picture or its mask is none of these, or the task cannot be made of it.
        """
        whole = pictures.scaled(pixels)
        known = pictures.known(mask, whole)
        clean, mask = (None if one is None else _middle(one, self.size) for one in (whole, known))
        case = get(self.task).degrade(clean, mask, self.noise_seed, **self.parameters)
        self._check_border(min(case.clean.shape[:2]))
        return case

    def _check_border(self, side: int) -> None:
        """Refuse a border that leaves less than a window of SSIM of a picture, before any method is run."""
        inside = side - 2 * (self.border or 0)
        if self.border and inside < _WINDOW:
            raise ValueError(
                f"border={self.border} leaves {max(inside, 0)} of {side} pixels, and SSIM needs {_WINDOW}; give "
                f"{max(0, (side - _WINDOW) // 2)} or less"
            )

    def figures(self, picture: np.ndarray, case: Case) -> dict[str, float]:
        """Return PSNR (dB) and SSIM of a restored picture; on the missing pixels too, where there are such.

        Raises
        ------
        TypeError
            The picture is not of floats.
        ValueError
            It has another shape than the clean one, is not finite, or lies far outside of [0, 1].
        """
        x = np.clip(_answer(picture, case.clean.shape), 0, 1)
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


def _answer(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What a method returned, if it may be a picture: else its figures would be those of a clipped scale."""
    x = np.asarray(picture)
    if x.dtype.kind != "f":
        what = f"values of {x.dtype.name}" if x.ndim else shown(x.item())
        raise TypeError(f"the method returned {what}; {_RETURN}")
    if x.shape != shape:
        raise ValueError(f"the method returned an array of shape {x.shape}, not {shape}")
    if not np.isfinite(x).all():
        raise ValueError("the method returned values that are not finite")
    if np.mean((x < -1) | (x > 2)) > _SHARE:
        raise ValueError(f"the method returned values from {x.min():.4g} to {x.max():.4g}; {_RETURN}")
    return x.astype(np.float64)


def _middle(picture: np.ndarray, size: int | None) -> np.ndarray:
    if size is None:
        return picture
    top, left = (max(0, n - size) // 2 for n in picture.shape[:2])
    return picture[top : top + size, left : left + size]


def _luma(picture: np.ndarray) -> np.ndarray:
    from skimage.color import rgb2ycbcr

    return rgb2ycbcr(picture)[..., 0] / 255 if picture.ndim == 3 else picture
