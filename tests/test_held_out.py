"""Fits of missing pixels to known ones that the network is not shown."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from small import NET, QUICK, assert_equal_states, photograph, picture, trained_state, with_holes

import dip
from dip import groups, guides
from dip.codes import HeldOut

# How well the filters fill in does not matter here; what fits make of it: test_filled_in.py.
pytestmark = pytest.mark.usefixtures("few_turns")

OWN = {**QUICK, "code": HeldOut(folds=3), "network": {**NET, "sigmoid": False}, "jitter": 0.0, "flips": 1}


def holes(size=(24, 20)):
    """A task of which some half of the pixels is missing, and the weights of what is known."""
    return with_holes((*size, 3), weights=(0.0, 1.0))


def dealt(task, folds=3):
    """What is made without one fold of the known pixels each, and of all, and the weights of what is known of them."""
    weight = task.load().weight
    whole, pictures, shown = task.held_out(folds, tuple(slice(0, n) for n in weight.shape[2:]))
    return torch.cat([pictures, whole]), torch.cat([shown, weight])


def unrefined(task):
    """The task without its last turns, to see what they are given."""
    task.refined = lambda x: x
    return task


def test_each_known_pixel_is_held_out_once_and_the_pictures_do_not_know_it():
    task, weight = holes()
    dip.Fit(task, **OWN)
    pictures, shown = dealt(task)
    held = weight - shown
    assert pictures.shape == (4, 3, 24, 20)
    assert torch.equal(held.sum(0, keepdim=True), weight)
    assert not held[-1].any()
    counts = held[:-1].sum((1, 2, 3))
    assert counts.max() - counts.min() <= 1
    for one, known in zip(pictures, shown, strict=True):
        other = torch.where(known > 0, task.load().y, 0.7)  # whatever the held out pixels hold
        torch.testing.assert_close(one[None], guides.inpainted(other, known[None]))


def test_the_code_has_every_fold_and_the_network_sees_one_at_a_time():
    task, _ = holes((21, 18))
    fit = dip.Fit(task, **OWN)
    pictures, shown = dealt(task)
    frame, seen = fit.settings.frame, []
    expected = frame.extend(torch.cat([pictures - 0.5, 0.2 * (shown - 0.5)], dim=1))
    torch.testing.assert_close(torch.cat([fit._view._codes, fit.code]), expected)
    fit.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    mirrors = ([], [2], [3], [2, 3])
    for _ in range(40):
        fit.step()
    found = [
        next((k, tuple(m)) for k in range(3) for m in mirrors if torch.equal(one.flip(m), fit._view._codes[k, None]))
        for one in seen
    ]
    assert {k for k, _ in found} == {0, 1, 2}
    assert len({m for _, m in found}) == 4
    assert found[0][1] == ()  # they begin after an iteration


@pytest.mark.parametrize("sigmoid", [False, True])
def test_the_loss_is_of_the_held_out_pixels_and_the_network_corrects_the_filter(sigmoid):
    task, weight = holes()
    fit = dip.Fit(task, **{**OWN, "network": {**NET, "sigmoid": sigmoid}, "flips": 0})
    pictures, shown = dealt(task)
    made = []
    fit.network.register_forward_hook(lambda *all: made.append(all[-1].detach().clone()))
    for _ in range(5):
        fit.step()
        output = made[-1]
        correction = 0.3 * (output - 0.5) if sigmoid else 0.03 * output
        losses = []
        for k in range(3):
            held = weight - shown[k, None]
            x = pictures[k, None] + fit.settings.frame.crop(correction)
            losses.append(float((held * (x - fit.y).square()).sum() / held.sum() / 3))
        assert min(abs(loss - fit.history["loss"][-1]) for loss in losses) < 1e-6


@pytest.mark.parametrize(("flips", "kept"), [(0, 0.75), (1, 0.75), (1, 1.0)])
def test_what_is_returned_is_made_of_all_known_pixels_in_mirrors(flips, kept):
    task, weight = holes()
    fit = dip.fit(unrefined(task), iters=6, **{**OWN, "flips": flips, "code": HeldOut(3, kept)})
    mirrors = ([], [2], [3], [2, 3]) if flips else ([],)
    with torch.no_grad():
        made = sum(fit.network(fit.code.flip(m)).flip(m) for m in mirrors) / len(mirrors)
    expected = (dealt(task)[0][-1:] + kept * 0.03 * fit.settings.frame.crop(made)).clamp(0, 1)
    torch.testing.assert_close(fit.current, expected)
    assert torch.equal(fit.output, fit.current)
    whole = torch.lerp(expected, fit.y, weight)
    torch.testing.assert_close(torch.from_numpy(fit.image).permute(2, 0, 1)[None], whole)


def test_far_from_what_is_known_the_filter_is_left_alone():
    """The correction is in proportion to what is known nearby, beside the least that was shown at a held out pixel."""
    weight = torch.ones(1, 1, 40, 44)
    weight[..., 10:30, 10:34] = 0
    task = dip.Inpaint(picture((40, 44, 3)), weight)
    fit = dip.fit(unrefined(task), iters=3, lr=0.1, **{**OWN, "flips": 0, "code": HeldOut(3, kept=1.0)})
    pictures, shown = dealt(task)
    near = uniform_filter(shown.numpy()[:, 0], (1, 7, 7), mode="nearest")
    trust = (near[-1] / near[:-1][(weight - shown)[:-1, 0].numpy() > 0].min()).clip(max=1)
    assert not trust[13:27, 13:31].any()
    assert trust[weight[0, 0].numpy() > 0].min() > 0.9
    with torch.no_grad():
        made = fit.settings.frame.crop(fit.network(fit.code))
    expected = (pictures[-1:] + torch.from_numpy(trust) * 0.03 * made).clamp(0, 1)
    torch.testing.assert_close(fit.current, expected)


def test_where_every_known_pixel_is_alone_the_correction_does_not_fade():
    mask = np.zeros((40, 48), bool)
    mask[::8, ::8] = True  # of the 7 x 7 pixels about some that are missing none is known, either
    task = dip.Inpaint(picture((40, 48, 3)), mask)
    fit = dip.fit(unrefined(task), iters=3, lr=0.1, **{**OWN, "flips": 0})
    with torch.no_grad():
        made = fit.settings.frame.crop(fit.network(fit.code))
    torch.testing.assert_close(fit.current, (dealt(task)[0][-1:] + 0.75 * 0.03 * made).clamp(0, 1))


def test_in_the_end_ten_turns_of_groups_refine_the_corrected_picture(monkeypatch):
    task, weight = holes()
    given, refined = [], task.refined
    monkeypatch.setattr(task, "refined", lambda x: refined(given.append(x) or x))
    fit = dip.fit(task, iters=6, lr=0.1, **OWN)
    x = pilot = given[-1]
    for turn, level in enumerate(np.geomspace(0.01, 0.005, 10)):
        groups.Groups(weight, 3).filter(x, pilot := pilot.clone(), level, divmod(7 * turn % 64, 8), out=pilot)
        x = torch.lerp(x + 1.9 * (pilot - x), fit.y, weight)
    found = torch.lerp(pilot, fit.y, weight)
    assert (found - given[-1]).abs().max() > 1e-3
    torch.testing.assert_close(fit.current, found.clamp(0, 1))


def test_looking_changes_nothing():
    clean = picture((24, 20, 3), seed=1)
    plain = dip.fit(holes()[0], iters=12, **OWN)
    watched = dip.fit(holes()[0], iters=12, reference=clean, callbacks=[lambda fit: fit.current], **OWN)
    assert torch.equal(plain.current, watched.current)
    assert watched.history.iterations("psnr").tolist() == [10]
    error = np.square(dip.fit(holes()[0], iters=20, reference=clean, **OWN).image - clean).mean()
    last = dip.fit(holes()[0], iters=20, reference=clean, **OWN).history["psnr"][-1]
    assert last == pytest.approx(-10 * np.log10(error), abs=1e-3)


def test_the_learning_rate_falls_in_the_second_half():
    rates = []
    fit = dip.Fit(
        holes()[0], lr=0.01, callbacks=[lambda fit: rates.append(fit._optimizer.param_groups[0]["lr"])], **OWN
    )
    fit.run(20)
    np.testing.assert_allclose(rates[:11], 0.01)
    np.testing.assert_allclose(rates[11:], 0.01 * np.arange(9, 0, -1) / 10)


@pytest.mark.parametrize("tile", [None, 16])
def test_a_resumed_fit_goes_on_bit_for_bit(tmp_path, tile):
    size, path = (40, 36), tmp_path / "a.ckpt"
    options = {**OWN, "tile": tile}
    whole = dip.fit(holes(size)[0], iters=60, **options)
    stopped = dip.Fit(holes(size)[0], checkpoint=path, callbacks=[lambda f: f.iteration == 23 and f.stop()], **options)
    stopped.run(60)
    resumed = dip.fit(holes(size)[0], iters=60, resume=path, **options)
    assert torch.equal(whole.picture, resumed.picture)
    states = [
        {k: v for k, v in trained_state(fit).items() if not k.startswith("network") or k.endswith(("weight", "bias"))}
        for fit in (whole, resumed)
    ]
    assert_equal_states(*states)


def test_of_a_crop_in_which_nothing_is_known_nothing_is_learnt():
    mask = np.zeros((64, 64), bool)
    mask[4:28, 4:28] = np.random.default_rng(0).random((24, 24)) < 0.5
    options = {**QUICK, "network": NET, "code": dip.codes.Uniform(8)}
    fit = dip.fit(dip.Inpaint(picture((64, 64, 3)), mask), iters=30, tile=16, **options)
    assert fit.recoveries == []
    assert 0 in fit.history["loss"]
    assert fit.history["loss"].max() > 0
    assert np.isfinite(fit.image).all()


def test_weights_between_none_and_one_are_dealt_out_whole():
    weight = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    task = dip.Inpaint(picture(), weight)
    dip.fit(task, iters=2, **OWN)
    _, shown = dealt(task)
    held = torch.from_numpy(weight) - shown[:-1]
    assert torch.equal(held.sum(0)[0], torch.from_numpy(weight))
    assert ((held == 0) | (held == torch.from_numpy(weight))).all()


def test_each_fold_comes_once_in_as_many_iterations():
    fit = dip.Fit(holes()[0], **OWN)
    folds = 3
    seen = []
    for _ in range(4 * folds):
        fit.step()
        seen.append(fit._view._fold)
    rounds = [seen[first : first + folds] for first in range(0, len(seen), folds)]
    assert all(sorted(one) == list(range(folds)) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_progress_of_the_filter_is_shown_where_it_is_asked_for(monkeypatch):
    for wanted in (True, False):
        written = io.StringIO()
        monkeypatch.setattr("sys.stderr", written)
        dip.Fit(holes()[0], progress=wanted, **OWN)
        assert ("filling in" in written.getvalue()) is wanted
        assert ("100%" in written.getvalue()) is wanted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stop": dip.stopping.WindowedVariance()}, "the option stop looks at the picture of each iteration"),
        ({"optimize_code": True}, "the option optimize_code changes the one code"),
        ({"optimizer": "lbfgs"}, "the option optimizer with lbfgs"),
        ({"average": 0.5}, "the option average is of pictures that follow each other by the same code"),
    ],
)
def test_what_looks_at_each_iteration_is_refused(options, words):
    with pytest.raises(ValueError, match=rf"{words}.*folds=3.*other known pixels.*fast-sparse"):
        dip.Fit(holes()[0], **{**OWN, **options})


def test_other_tasks_and_too_few_known_pixels_are_refused():
    words = r"code=HeldOut\(folds=3, kept=0.75\) is made of known pixels: it is for dip.Inpaint, not for denoise"
    with pytest.raises(ValueError, match=words):
        dip.Fit(dip.Denoise(picture()), **OWN)
    with pytest.raises(ValueError, match="consistent=True is for tasks that can correct a picture, all but inpaint"):
        dip.Fit(holes()[0], consistent=True, **OWN)
    mask = np.zeros((16, 16), bool)
    mask[3, :2] = True
    with pytest.raises(ValueError, match=r"2 known pixels cannot be dealt out to 3 folds.*fast-sparse.*fewer"):
        dip.Fit(dip.Inpaint(picture(), mask), **OWN)
    mask[3, 2] = True
    assert np.isfinite(dip.inpaint(picture(), mask, iters=3, **OWN)).all()
    with pytest.raises(ValueError, match=r"folds=1: .*2 or more"):
        HeldOut(1)
    with pytest.raises(ValueError, match="folds must be"):
        HeldOut(0)
    with pytest.raises(ValueError, match="kept must be"):
        HeldOut(kept=0)
    with pytest.raises(ValueError, match=r"kept=1.5 is more than the whole correction; allowed: above 0"):
        HeldOut(kept=1.5)
    with pytest.raises(ValueError, match="drawn from a filled-in picture"):
        HeldOut().draw(dip.codes.Frame.around((8, 8), (8, 8)), torch.Generator())


def test_with_another_code_the_preset_neither_mirrors_nor_does_without_jitter():
    fit = dip.Fit(holes()[0], preset="fast", code="uniform", network=NET)
    assert (fit.settings.flips, fit.settings.jitter) == (0, 0.03)
    fit = dip.Fit(holes()[0], preset="fast", code=HeldOut(2), network=NET)
    assert (fit.settings.flips, fit.settings.jitter) == (1, 0.0)


def test_the_preset_tells_where_few_pixels_are_known(monkeypatch):
    monkeypatch.setattr(guides, "inpainted", guides.filled)  # what is filled in does not matter
    task, weight = holes()
    known = int(weight.sum())
    with pytest.warns(RuntimeWarning, match=f'{known} known pixels are few.*below some 4000.*preset="fast-sparse"'):
        dip.Fit(task, preset="fast")
    dip.Fit(task, preset="fast", code=HeldOut(3))  # asked for
    _, _, task = photograph(size=128)
    dip.Fit(task, preset="fast")  # 8192


def test_memory_counts_the_codes_of_all_folds():
    few, many = (dip.Fit(holes()[0], **{**OWN, "code": HeldOut(k)}).settings.memory for k in (2, 12))
    assert many - few == 10 * 4 * 24 * 20 * 4


def of_one_side():
    """A task of which pixels are missing on the right, but for a hole in which nothing is known; and its weights."""
    mask = np.ones((40, 56), bool)
    mask[:, 38:] = np.random.default_rng(0).random((40, 18)) < 0.7
    mask[4:36, 2:30] = False
    return dip.Inpaint(picture((40, 56, 3)), mask), torch.from_numpy(mask)[None, None].float()


def test_of_a_picture_larger_than_a_tile_a_part_is_learnt_from():
    task, weight = of_one_side()
    fit = dip.Fit(unrefined(task), **{**OWN, "tile": 32})
    rows, columns = fit._view._inner.place
    assert (rows.stop - rows.start, columns) == (32, slice(24, 56))  # with more holes than hole
    whole, pictures, shown = task.held_out(3, (rows, columns))
    assert pictures.shape == (3, 3, 32, 32)
    assert torch.equal((weight[..., rows, columns] - shown).sum(0)[0], weight[0, 0, rows, columns])
    torch.testing.assert_close(whole, guides.inpainted(fit.y, weight))
    about = (..., slice(max(rows.start - 32, 0), rows.stop + 32), slice(0, 56))
    for one, known in zip(pictures, shown, strict=True):
        there = weight.clone()
        there[0, :, rows, columns] = known
        made = guides.inpainted(fit.y[about], there[about])[..., -32:]
        torch.testing.assert_close(one[None], made[0, :, rows.start - about[1].start :][None, :, :32])
    torch.testing.assert_close(fit.code, fit.settings.frame.extend(torch.cat([whole - 0.5, 0.2 * (weight - 0.5)], 1)))
    torch.testing.assert_close(fit._view._codes, torch.cat([pictures - 0.5, 0.2 * (shown - 0.5)], 1))
    passes = []
    fit.network.register_forward_hook(lambda _, given, out: passes.append((given[0], out.detach().clone())))
    for _ in range(8):
        fit.step()
    seen, made = passes[-1]
    assert seen.shape[2:] == made.shape[2:] == (32, 32)
    mirrors = ([], [2], [3], [2, 3])
    ((fold, m),) = [(k, m) for k in range(3) for m in mirrors if torch.equal(seen.flip(m), fit._view._codes[k, None])]
    there = weight[..., rows, columns] - shown[fold]
    x = pictures[fold] + 0.03 * made.flip(m)
    loss = float((there * (x - fit.y[..., rows, columns]).square()).sum() / there.sum() / 3)
    assert fit.history["loss"][-1] == pytest.approx(loss, rel=1e-5)


def test_the_whole_is_made_by_what_was_learnt_of_a_part():
    task, weight = of_one_side()
    fit = dip.fit(unrefined(task), iters=40, tile=32, lr=0.1, **OWN)
    whole, *_ = task.held_out(3, fit._view._inner.place)
    fit.network.eval()
    with torch.no_grad():
        made = sum(fit.network(fit.code.flip(m)).flip(m) for m in ([], [2], [3], [2, 3])) / 4
    fit.network.train()
    trust = fit._view._kept / 0.75
    assert trust[..., weight[0, 0] > 0].min() > 0.9
    assert trust[..., 8:32, 6:26].max() == 0
    expected = (whole + 0.75 * trust * 0.03 * fit.settings.frame.crop(made)).clamp(0, 1)
    assert (expected - whole).abs().max() > 1e-3
    torch.testing.assert_close(fit.current, expected, rtol=0, atol=1e-5)
    assert torch.equal(dip.fit(unrefined(of_one_side()[0]), iters=40, tile=32, lr=0.1, **OWN).current, fit.current)


@pytest.mark.parametrize(("height", "width", "tile"), [(640, 900, 512), (2048, 2048, 512), (3000, 4000, 1024)])
def test_tiles_of_the_pass_over_a_large_picture_are_larger(height, width, tile):
    frame = dip.codes.Frame.around((height, width), (height, width))
    assert dip.excerpt.pass_tile(512, frame) == tile
    assert tile == 512 or height * width >= 8 * tile**2


def test_of_a_large_picture_a_part_is_learnt_from_without_being_asked():
    def settled(height, width, **options):
        task = dip.Inpaint(np.broadcast_to(np.float32(0.5), (height, width)), np.ones((height, width), bool))
        return dip.settings.resolve(task, {"preset": "fast", **options})

    usual, large = settled(1024, 512), settled(1024, 544)
    assert (usual.tile, large.tile) == (None, 512)
    assert (large.tiles, large.iters, large.lr) == (1, usual.iters, usual.lr)
    assert large.memory < usual.memory
    assert settled(2048, 2048).memory < 2.5 * large.memory  # of 7.5 times the pixels: an iteration takes as much
    assert [settled(1024, 544, tile=tile).tile for tile in (256, 1024)] == [256, None]
    assert settled(1024, 544, code=dip.codes.Uniform(8)).tile is None
    assert settled(1024, 544, network=torch.nn.Conv2d(2, 1, 3, padding=1)).tile is None  # which can't make the whole
    deep = settled(1024, 544, network={"down": (8,) * 7, "up": (8,) * 7, "skip": (0,) * 7})
    assert deep.tile == 512
    assert dip.settings.memory(dip.presets.get("inpaint", "fast"), (1, 1024, 544), large.device) == large.memory
