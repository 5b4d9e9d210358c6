"""A small network and small pictures, with which a fit takes milliseconds an iteration."""

from __future__ import annotations

import numpy as np
import skimage.data
import torch

import dip

NET = {"down": [8, 8], "up": [8, 8], "skip": [4, 4]}
QUICK = {"network": NET, "precision": "float32", "code": dip.codes.Uniform(8)}


def picture(shape=(16, 16, 3), dtype="float32", seed=0, white=None):
    """A smooth picture with some noise, (H, W) or (H, W, C), from black to the type's white (or the one given)."""
    rng = np.random.default_rng(seed)
    height, width, *channels = shape
    y, x = np.mgrid[:height, :width] / max(height, width)
    smooth = 0.5 + 0.3 * np.sin(5 * x + 3 * y)
    if channels:
        smooth = smooth[..., None] * np.linspace(0.6, 1, channels[0])
    clean = np.clip(smooth + 0.05 * rng.standard_normal(shape), 0, 1)
    if white is None:
        white = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    scaled = clean * white
    return (np.rint(scaled) if np.issubdtype(dtype, np.integer) else scaled).astype(dtype)


def with_holes(shape=(19, 14, 3), *, weights=(0.0, 0.5, 1.0), **options):
    """A task with missing pixels, and the weights (1, 1, H, W) of what is known."""
    mask = np.random.default_rng(0).choice(np.float32(weights), size=shape[:2])
    return dip.Inpaint(picture(shape), mask, **options), torch.from_numpy(mask)[None, None]


def photograph(name="coffee", size=96, share=0.5):
    """The clean picture (1, C, H, W), what is known of it, and the task."""
    clean = getattr(skimage.data, name)()[100 : 100 + size, 200 : 200 + size] / np.float32(255)
    mask = dip.degradations.random_mask(clean.shape[:2], share, seed=0)
    x = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(clean).transpose(2, 0, 1)))[None]
    return x, mask, dip.Inpaint(np.where(mask if clean.ndim == 2 else mask[..., None], clean, np.nan), mask)


def quick_fit(task=None, iters=5, **options):
    """A fit of the small network; of a small RGB picture where no task is given."""
    return dip.fit(dip.Denoise(picture()) if task is None else task, iters=iters, **{**QUICK, **options})


def trained_state(fit):
    """Copies of all that an optimiser's step changes, by name, for comparisons bit by bit."""
    found = {}

    def collect(value, name):
        if isinstance(value, dict | list):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                collect(item, f"{name} {key}")
        else:
            found[name] = value.detach().clone() if isinstance(value, torch.Tensor) else value

    collect(fit.network.state_dict(), "network")
    collect(fit._optimizer.state_dict()["state"], "optimizer")
    collect(fit.code, "code")
    collect(fit._average.value, "average")
    return found


def assert_equal_states(one, two):
    """Compare what `trained_state` returned, bit by bit."""
    assert one.keys() == two.keys()
    for name, value in one.items():
        same = torch.equal(value, two[name]) if isinstance(value, torch.Tensor) else value == two[name]
        assert same, name


def lightly_filtered(x, y, weight):
    """(1, C, H, W) after a light Wiener filter, with the known pixels of y put back."""
    return weight * y + (1 - weight) * dip.guides.wiener(x, x, 0.005, step=4)[0]


def within(x, fit):
    """What is made, (C, H, W), no darker or brighter than the noisy picture of the fit is, as (H, W, C)."""
    return np.moveaxis(np.clip(x, *(one((2, 3))[0, :, None, None].numpy() for one in (fit.y.amin, fit.y.amax))), 0, -1)
