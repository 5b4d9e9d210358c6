"""The filter of groups of patches that are alike, against one by hand, in cells and in turns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from scipy.linalg import hadamard

from dip import groups, guides
from dip.wiener import wiener


def as_tensor(pixels):
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float()


def filtered(picture, pilot, sigma, weight, offset=(0, 0)):
    """What is returned where nothing need be written in place."""
    out = picture.clone()
    groups.Groups(weight, picture.shape[1]).filter(picture, pilot, sigma, offset, out=out)
    return out


def holes(height, width, *places):
    weight = torch.ones(1, 1, height, width)
    for rows, columns in places:
        weight[..., rows, columns] = 0
    return weight


def grouped_by_hand(picture, pilot, level, offset, weight):
    """The filter of groups of (H, W, C), with all of the border, and what is known of each pixel, (H, W)."""
    known = np.pad(weight, 7, mode="edge")
    luminance_and_differences = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    colours = luminance_and_differences if picture.shape[2] == 3 else np.eye(picture.shape[2])
    picture, pilot = (np.pad(x @ colours.T, ((7, 7), (7, 7), (0, 0)), mode="edge") for x in (picture, pilot))
    rows, columns = (n - 7 for n in picture.shape[:2])
    low = np.add.outer(np.arange(8), np.arange(8)) < 4
    seen = range(1 if picture.shape[2] == 3 else picture.shape[2])
    told = {
        place: np.concatenate([dctn(pilot[place[0] :, place[1] :, c][:8, :8], norm="ortho")[low] for c in seen])
        for place in np.ndindex(rows, columns)
    }
    along = hadamard(16) / 4
    total, weights = np.zeros(picture.shape), np.zeros(picture.shape)
    for top in range(offset[0], rows, 8):
        for left in range(offset[1], columns, 8):
            about = known[max(top - 4, 0) : top + 12, max(left - 4, 0) : left + 12]
            if (about == 1).all():
                continue
            near = [p for p in told if max(abs(p[0] - top), abs(p[1] - left)) <= 12]
            near.sort(key=lambda place: np.square(told[place] - told[top, left]).sum())
            patches = [np.s_[i : i + 8, j : j + 8] for i, j in near[:16]]
            for c in range(picture.shape[2]):
                noisy, power = (
                    np.tensordot(along, [dctn(x[patch][..., c], norm="ortho") for patch in patches], 1)
                    for x in (picture, pilot)
                )
                kept = power**2 / (power**2 + level**2)
                kept[0, 0, 0] = 1
                for patch, made in zip(patches, np.tensordot(along.T, kept * noisy, 1), strict=True):
                    counts = max(known[patch].mean(), 1e-4) / (kept**2).sum()
                    total[patch][..., c] += counts * idctn(made, norm="ortho")
                    weights[patch][..., c] += counts
    filtered = np.where(weights > 0, total / np.where(weights > 0, weights, 1), picture)
    return filtered[7:-7, 7:-7] @ colours


@pytest.mark.parametrize("cell", [(120, 240), (16, 8), (8, 24)], ids=str)
@pytest.mark.parametrize(("shape", "offset"), [((20, 44, 1), (0, 0)), ((17, 48, 3), (3, 6)), ((9, 50, 2), (7, 1))])
def test_groups_are_of_the_patches_that_are_most_alike(shape, offset, cell, monkeypatch):
    monkeypatch.setattr(groups, "_CELL", cell)
    generator = np.random.default_rng(0)
    pilot = generator.random(shape)
    noisy = pilot + generator.normal(0, 0.1, shape)
    half = np.full(shape[:2], 0.5, np.float32)  # all have groups, and count the same
    some = generator.random(shape[:2]).astype(np.float32) * (np.arange(shape[1]) < 10)
    hole = np.ones(shape[:2], np.float32)
    hole[:3, -4:] = 0
    for weight in (half, some, hole):
        found = filtered(as_tensor(noisy), as_tensor(pilot), 0.2, torch.from_numpy(weight)[None, None], offset)
        by_hand = grouped_by_hand(noisy, pilot, 0.2, offset, weight)
        np.testing.assert_allclose(found[0].permute(1, 2, 0), by_hand, rtol=0, atol=2e-5)
    assert np.isclose(by_hand, noisy).all(2).any()  # as it was, where no patch is


def test_a_filter_is_used_again_and_in_place():
    x = torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(0))
    weight = holes(40, 30, (slice(10, 14), slice(3, 9)))
    again, found = groups.Groups(weight, 3), []
    for sigma, offset in [(0.1, (0, 0)), (0.2, (3, 5))]:
        pilot = x.clone()
        again.filter(x, pilot, sigma, offset, out=pilot)
        assert torch.equal(pilot, filtered(x, x, sigma, weight, offset))
        found.append(pilot)
    assert not torch.equal(*found)


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (63, 100), (64, 96)])
def test_every_missing_pixel_is_in_one_place(size, monkeypatch):
    monkeypatch.setattr(groups, "_CELL", (16, 24))
    generator = torch.Generator().manual_seed(0)
    for share in (0, 0.001, 0.01, 0.5):
        weight = (torch.rand(1, 1, *size, generator=generator) >= share).float()
        times = torch.zeros(size)
        for place in groups.Groups(weight, 1).places:
            times[place] += 1
        assert times[weight[0, 0] == 0].eq(1).all()
        assert times.max() <= 1
    assert times.min() == 1  # with half of the pixels missing


def test_what_is_far_from_all_holes_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(groups, "_CELL", (8, 16))
    x = torch.rand(1, 1, 96, 128, generator=torch.Generator().manual_seed(0))
    hole = slice(0, 6), slice(100, 106)
    weight = holes(96, 128, hole)
    x[..., 50:, :] = x[..., :50] = torch.nan
    found = filtered(x, x, 0.1, weight)
    assert found[..., *hole].isfinite().all()
    assert torch.equal(found.isnan(), x.isnan())


def test_what_repeats_is_found_in_groups():
    rows, columns = np.mgrid[:64, :64]
    tiles = torch.from_numpy(((rows // 3 + columns // 5) % 2).astype(np.float32))[None, None]
    noisy = tiles + 0.2 * torch.randn(tiles.shape, generator=torch.Generator().manual_seed(0))
    all_of_it = torch.full((1, 1, 64, 64), 0.5)
    errors = [
        float((x - tiles).square().mean()) for x in (filtered(noisy, tiles, 0.2, all_of_it), *wiener(noisy, tiles, 0.2))
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (8, 3)])
def test_groups_of_a_picture_smaller_than_a_patch(size):
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    found = filtered(x, x, 0.0, torch.full((1, 1, *size), 0.5), (7, 7))
    torch.testing.assert_close(found, x, rtol=0, atol=1e-5)


def test_a_turn_in_cells_is_that_of_the_whole(monkeypatch):
    """All of the known pixels are put back, at first, and the others go further than the filter says."""
    generator = torch.Generator().manual_seed(0)
    x, picture = torch.rand(2, 1, 1, 60, 90, generator=generator)
    weight = holes(60, 90, (slice(3, 6), slice(5, 9)), (slice(50, 51), slice(60, 90)))
    weight[..., 30, 30] = 0.25
    monkeypatch.setattr(groups, "_CELL", (8, 8))
    found = groups.in_turns(x, picture, weight, [0.1, 0.05])
    first = filtered(x, x, 0.1, weight)
    further = torch.lerp(x + 1.9 * (first - x), picture, weight)
    # (where nothing was filtered the pilot of the second turn stays what the turns began with)
    second = first.clone()
    groups.Groups(weight, 1).filter(further, first, 0.05, (0, 7), out=second)
    torch.testing.assert_close(found, torch.lerp(second, picture, weight))
    assert torch.equal(found[weight == 1], picture[weight == 1])


def test_in_the_turns_of_inpainting_patches_begin_everywhere(monkeypatch):
    offsets = []
    monkeypatch.setattr(groups.Groups, "filter", lambda self, x, pilot, sigma, offset, out: offsets.append(offset))
    guides.inpainted(torch.rand(1, 1, 9, 9), holes(9, 9, (slice(None), 4)), times=64)
    assert sorted(offsets) == [(row, column) for row in range(8) for column in range(8)]
