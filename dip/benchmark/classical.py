"""The rivals without a network, each through its own package."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dip import guides
from dip.benchmark.methods import Method, find, picture, planes, register, register_suffix
from dip.benchmark.tasks import Case, bicubic
from dip.noise import clipping, noise_level

__all__: list[str] = []


@register("bm3d", "denoise", about="BM3D, colour pictures in one go (bm3d)", told="sigma", needs=("bm3d",))
def block_matching(case: Case) -> np.ndarray:
    """BM3D with its standard profile: K. Dabov et al. 2007, Y. Mäkinen et al. 2020."""
    import bm3d

    y = case.y.astype(np.float64)
    function = bm3d.bm3d if y.ndim == 2 else bm3d.bm3d_rgb
    return np.asarray(function(y, sigma(case))).reshape(y.shape)


@register("nlm", "denoise", about="non-local means (scikit-image)", told="sigma")
def non_local_means(case: Case) -> np.ndarray:
    """Non-local means, the fast variant: patches of 5 x 5 within 6 pixels, h = 0.6 sigma."""
    from skimage.restoration import denoise_nl_means

    level = sigma(case)
    return denoise_nl_means(
        case.y,
        patch_size=5,
        patch_distance=6,
        h=0.6 * level,
        sigma=level,
        fast_mode=True,
        channel_axis=None if case.y.ndim == 2 else -1,
    )


@register("tv", "denoise", about="total variation (scikit-image)", told="sigma")
def total_variation(case: Case) -> np.ndarray:
    """Total variation (Chambolle); the weight is sigma, about the best on photographs."""
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(case.y, weight=sigma(case), channel_axis=None if case.y.ndim == 2 else -1)


@register("local-wiener", "denoise", about="Wiener filter of 5 x 5 pixels (SciPy)", told="sigma")
def local_wiener(case: Case) -> np.ndarray:
    """Draw each pixel towards the mean of 5 x 5 pixels, by how much of their variance is noise (J. S. Lee 1980)."""
    from scipy.signal import wiener as wiener_filter

    level = sigma(case)
    return _each_channel(lambda y: wiener_filter(y.astype(np.float64), 5, noise=level**2), case.y)


@register("wavelet", "denoise", about="wavelets, BayesShrink (scikit-image)", told="sigma", needs=("pywt",))
def wavelets(case: Case) -> np.ndarray:
    """Soft thresholds by BayesShrink, of Y, Cb and Cr."""
    from skimage.restoration import denoise_wavelet

    gray = case.y.ndim == 2
    return denoise_wavelet(
        case.y.astype(np.float64),
        sigma=sigma(case),
        method="BayesShrink",
        mode="soft",
        convert2ycbcr=not gray,
        channel_axis=None if gray else -1,
        rescale_sigma=True,
    )


@register("bicubic", "super-resolve", about="bicubic interpolation (Pillow)")
def bicubic_interpolation(case: Case) -> np.ndarray:
    """Pillow's bicubic interpolation, in floats."""
    return bicubic(case.y, case.factor or 1)


@register("back-projection", "super-resolve", about="bicubic, corrected so that it comes down to the small picture")
def back_projection(case: Case) -> np.ndarray:
    """Iterative back-projection (Irani and Peleg 1991), with the downsampler that a fit supposes too."""
    from dip.operators import Downsample

    y = planes(case.y)
    return picture(Downsample(case.factor or 1).consistent(None, y).clamp(0, 1)[0], case)


@register("richardson-lucy", "deblur", about="Richardson-Lucy, 10 iterations (scikit-image)")
def richardson_lucy(case: Case) -> np.ndarray:
    """Richardson-Lucy deconvolution of each channel; more iterations bring the noise back."""
    from skimage.restoration import richardson_lucy as deconvolve

    psf = np.asarray(case.psf)
    half = [n // 2 for n in psf.shape]

    def plane(y: np.ndarray) -> np.ndarray:
        around = np.pad(y.astype(np.float64).clip(0), [(n, n) for n in half], mode="reflect")
        made = np.asarray(deconvolve(around, psf, num_iter=10))
        return made[half[0] : -half[0], half[1] : -half[1]]

    return _each_channel(plane, case.y)


@register("wiener", "deblur", about="unsupervised Wiener-Hunt deconvolution (scikit-image)", random=True)
def wiener(case: Case) -> np.ndarray:
    """Wiener-Hunt deconvolution that estimates its own hyper-parameters, of each channel."""
    from skimage.restoration import unsupervised_wiener

    psf = np.asarray(case.psf, dtype=np.float64)
    half = [n // 2 for n in psf.shape]

    def plane(y: np.ndarray) -> np.ndarray:
        around = np.pad(y.astype(np.float64), [(n, n) for n in half], mode="reflect")
        made = np.asarray(unsupervised_wiener(around, psf, clip=False, rng=case.seed)[0])
        return made[half[0] : -half[0], half[1] : -half[1]]

    return _each_channel(plane, case.y)


@register("shifted", "dejpeg", about="the mean of JPEGs of the shifted picture (Nosratinia)")
def shifted(case: Case) -> np.ndarray:
    """Compress the JPEG again with its blocks in each of the 64 places, and average (Nosratinia 2001)."""
    assert case.jpeg is not None
    y, size = planes(case.y), case.y.shape[:2]
    around, total = torch.nn.functional.pad(y, (7, 7, 7, 7), mode="replicate"), torch.zeros_like(y)
    for top, left in itertools.product(range(8), range(8)):
        again = case.jpeg(around[..., top:, left:])[..., 7 - top :, 7 - left :]
        total += again[..., : size[0], : size[1]]
    return picture((total / 64)[0], case)


@register("biharmonic", "inpaint", about="biharmonic equation (scikit-image)")
def biharmonic(case: Case) -> np.ndarray:
    """Fill the missing pixels by the biharmonic equation."""
    from skimage.restoration import inpaint_biharmonic

    axis = None if case.y.ndim == 2 else -1
    return inpaint_biharmonic(case.y.astype(np.float64), ~np.asarray(case.mask), channel_axis=axis)


@register("iterated-wiener", "inpaint", about="Wiener filters and known pixels in turns, after Guleryuz")
def iterated_wiener(case: Case) -> np.ndarray:
    """Fill the missing pixels by `dip.guides.inpainted`."""
    weight = torch.from_numpy(np.asarray(case.mask, np.float32))[None, None]
    return picture(guides.inpainted(planes(case.y), weight)[0], case)


@register("interpolation", "inpaint", about="linear interpolation between the known pixels (SciPy)")
def interpolation(case: Case) -> np.ndarray:
    """Interpolate over a triangulation of the known pixels; the nearest one outside of it."""
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

    known = np.asarray(case.mask)
    places, wanted = np.argwhere(known), np.argwhere(~known)
    made = case.y.astype(np.float64)
    values = case.y[known]
    near = NearestNDInterpolator(places, values)(wanted)
    if len(places) > 3:
        between = LinearNDInterpolator(places, values)(wanted)
        near = np.where(np.isnan(between), near, between)
    made[~known] = near
    return made


def sigma(case: Case) -> float:
    """Return the standard deviation of the noise, estimated where nobody says it; never 0."""
    if case.sigma is not None:
        return max(case.sigma, 1e-4)
    return max(noise_level(planes(case.y)), 1e-4)


def declipped(case: Case, *, of: str, **options: Any) -> np.ndarray:
    """Undo in the result of a method what clipping did to the mean of the noise (`dip.noise.Clipped`)."""
    found = find(of).function(case, **options)
    model = clipping(planes(case.y), sigma=case.sigma)
    return found if model is None else picture(model.inverse(planes(found))[0], case)


def _declipped(method: Method) -> Method:
    """A method told the level of the noise, after which the same is undone as in a fit with "fast"."""
    if method.told != "sigma":
        raise ValueError(f"+declipped is for what is told the level of the noise, and {method.name} is not")
    return method.varied(
        "clipping undone",
        function=declipped,
        options={**method.options, "of": method.name},
        identity={task: f"declipped; {method.identity_for(task)}" for task in method.tasks},
    )


register_suffix("declipped", _declipped)


def _each_channel(function: Callable[[np.ndarray], Any], y: np.ndarray) -> np.ndarray:
    if y.ndim == 2:
        return np.asarray(function(y))
    return np.stack([function(y[..., channel]) for channel in range(y.shape[-1])], axis=-1)
