"""Fits of missing pixels that begin with what the filter makes of them: how far they trust it, and come beyond it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import QUICK, photograph, picture

import dip
from dip import guides
from dip.codes import Autoencoding

OWN = {**QUICK, "code": Autoencoding(noise=0, renewed=3)}


def weight_of(mask):
    return torch.from_numpy(np.asarray(mask, np.float32))[None, None]


@pytest.mark.parametrize(("name", "share"), [("coffee", 0.5), ("coffee", 0.2), ("camera", 0.7), ("brick", 0.5)])
def test_held_out_pixels_tell_the_error_of_what_is_filled_in(name, share):
    clean, mask, task = photograph(name, 64, share)
    fit = dip.Fit(task, **OWN)
    first = guides.inpainted(fit.y, weight_of(mask))
    true = (first - clean).square().mean().sqrt()
    assert task.error == pytest.approx(float(true), rel=0.4)  # of 184 pixels a few tell most
    shown = fit.settings.frame.extend(first - first.mean((2, 3), keepdim=True))
    torch.testing.assert_close(fit.code, 0.067 / task.error * shown)


def test_it_is_looked_for_only_where_the_scale_is_not_given(monkeypatch):
    calls, inpainted = [], guides.inpainted
    monkeypatch.setattr(guides, "inpainted", lambda y, weight: calls.append(weight) or inpainted(y, weight))
    mask = np.random.default_rng(0).random((19, 14)) < 0.5
    dip.Fit(dip.Inpaint(picture((19, 14)), mask), **{**OWN, "code": Autoencoding(scale=0.5, noise=0)})
    assert len(calls) == 1
    dip.Fit(dip.Inpaint(picture((19, 14)), mask), **OWN)
    assert len(calls) == 3
    held = weight_of(mask).bool() & (calls[-1] == 0)
    assert 0 < held.sum() < 0.25 * mask.sum()
    assert torch.equal(calls[-1].bool() | held, weight_of(mask).bool())


def test_of_a_large_picture_the_middle_tells_the_error(monkeypatch):
    sizes, inpainted = [], guides.inpainted
    monkeypatch.setattr(guides, "inpainted", lambda y, weight: sizes.append(y.shape[2:]) or inpainted(y, weight))
    monkeypatch.setattr("dip.inpainting._ENOUGH", 40)
    clean, mask, task = photograph(size=96)
    fit = dip.Fit(task, **OWN)
    assert [tuple(size) for size in sizes] == [(96, 96), (40, 40)]
    inside = np.s_[..., 28:68, 28:68]
    whole = inpainted(fit.y, weight_of(mask))[inside] - clean[inside]
    assert task.error == pytest.approx(float(whole.square().mean().sqrt()), rel=0.35)
    mask = mask.copy()
    mask[inside] = False  # it tells nothing
    dip.Fit(dip.Inpaint(clean[0].permute(1, 2, 0).numpy(), mask), **OWN)
    assert tuple(sizes[-1]) == (96, 96)


@pytest.mark.parametrize("known", [1, 2, 9, 80])
def test_of_hardly_any_known_pixels_too_a_fit_begins(known):
    mask = np.zeros((16, 16), bool)
    mask.flat[np.random.default_rng(0).permutation(256)[:known]] = True
    fit = dip.fit(dip.Inpaint(picture(), mask), iters=4, **OWN)
    assert fit.task.error > 0
    assert torch.isfinite(fit.picture).all()


def test_where_nothing_is_missing_there_is_no_error():
    with pytest.warns(RuntimeWarning, match="every pixel as known"):
        fit = dip.fit(dip.Inpaint(picture(), np.ones((16, 16), bool)), iters=4, **OWN)
    assert fit.task.error == 0
    np.testing.assert_array_equal(fit.image, picture())


def test_the_preset_is_ahead_of_the_filter_and_does_not_pass_its_best():
    clean, mask, _ = photograph("coins")
    filtered = guides.inpainted(clean, torch.from_numpy(mask)[None, None].float())
    fit = dip.fit(dip.Inpaint(clean, mask), preset="fast", iters=100, reference=clean)
    error = float((fit.image - clean).square().mean())
    assert error < 0.98 * float((filtered - clean).square().mean())
    assert fit.history["psnr"][-1] > max(fit.history["psnr"]) - 0.1


def test_where_the_filter_is_right_the_fit_leaves_it_so():
    """With a code that has all known pixels a fit would have to learn the whole picture first."""
    rows, columns = np.mgrid[:92, :92]
    stripes = (0.5 + 0.3 * np.sin(0.9 * rows + 0.5 * columns)).astype(np.float32)
    mask = dip.degradations.random_mask(stripes.shape, 0.5, seed=0)
    filtered = guides.inpainted(torch.from_numpy(stripes)[None, None], torch.from_numpy(mask)[None, None].float())
    error = np.square(dip.inpaint(stripes, mask, preset="fast", iters=100) - stripes).mean()
    assert error < 1.1 * float((filtered[0, 0] - torch.from_numpy(stripes)).square().mean())
