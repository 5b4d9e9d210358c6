"""Fits in crops: what is compared with what, and that the tiles of the last pass are one picture."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch

import dip
from dip import crops
from dip.codes import Frame
from dip.networks import EncoderDecoder

SMALL = {"down": (8, 8), "up": (8, 8), "skip": (4, 4)}


def network(**options: object) -> EncoderDecoder:
    given = {"down": [8] * 3, "up": [8] * 3, "skip": [2] * 3, "generator": torch.Generator().manual_seed(0), **options}
    return EncoderDecoder(4, 2, **given)


def photograph(height: int = 128, width: int = 160) -> np.ndarray:
    return skimage.data.astronaut()[20 : 20 + height, 150 : 150 + width]


NETWORKS = {
    "plain": {},
    "wide kernels": {"kernel_down": 5, "kernel_up": 5, "kernel_skip": 3},
    "lanczos": {"downsampling": "lanczos3"},
    "average, nearest": {"downsampling": "average", "upsampling": "nearest"},
    "zeros around": {"padding": "zero"},
    "two scales": {"down": [8] * 2, "up": [8] * 2, "skip": [0] * 2},
}


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_a_network_sees_no_further_than_it_says(options):
    net = network(**options).double().eval()
    size = net.padded_size(2 * net.reach + 40, 1)
    code = torch.rand(1, 4, size[0], size[1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    code.requires_grad_()
    row = size[0] // 2 + 3
    net(code)[0, :, row].sum().backward()
    seen = code.grad.abs().sum((0, 1, 3)).nonzero()
    furthest = max(row - int(seen.min()), int(seen.max()) - row)
    assert furthest <= net.reach
    assert net.reach < 2.5 * furthest + 2 * net.multiple  # and is no excuse for taking everything


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_tiles_are_what_the_network_makes_of_the_whole_code(options, monkeypatch):
    monkeypatch.setattr(crops, "_PASS", 8)
    net = network(**options)
    code = torch.rand(1, 4, 200, 136, generator=torch.Generator().manual_seed(1))
    sample = [(slice(0, 48), slice(8, 56)), (slice(80, 128), slice(88, 136))]
    crops.measure(net, code, torch.float32, sample)
    crops.freeze(net)
    tiled = crops.whole(net, code, 48, torch.float32)
    assert [type(layer).__name__ for layer in net.modules() if not layer.training] == ["BatchNorm2d"] * len(
        crops.norms_of(net)
    )
    statistics = {name: tensor.clone() for name, tensor in net.state_dict().items() if "running" in name}
    with torch.no_grad():
        at_once = net.eval()(code)
    torch.testing.assert_close(tiled, at_once, atol=2e-5, rtol=0)
    monkeypatch.setattr(net, "reach", 0)  # without the margin there would be seams
    seams = crops.whole(net, code, 48, torch.float32)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in statistics.items())
    assert (seams - at_once).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("height", "width"), [(200, 136), (48, 136), (96, 96), (136, 800), (56, 56)], ids=lambda side: str(side)
)
def test_the_most_of_a_pass_is_what_a_network_sees(height, width, monkeypatch):
    monkeypatch.setattr(crops, "_PASS", 8)
    net, seen = network(), []
    net.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2:]))
    crops.whole(net, torch.zeros(1, 4, height, width), 48, torch.float32)
    most = crops.most_in_pass(net, 48, Frame.around((height, width), (height, width)))
    assert most == tuple(map(max, zip(*seen, strict=True)))


def test_statistics_are_the_mean_over_the_sample():
    net = network()
    code = torch.rand(1, 4, 96, 64, generator=torch.Generator().manual_seed(1))
    sample = crops.Crops(Frame.around((96, 64), (96, 64)), 32, 8, seed=3).sample(5, seed=4)
    assert len(set(map(str, sample))) > 2
    crops.measure(net, code, torch.float32, sample)
    assert all(layer.training for layer in net.modules())
    first = net.down[0]
    with torch.no_grad():
        means = [first[0](code[..., rows, columns]).mean((0, 2, 3)) for rows, columns in sample]
    torch.testing.assert_close(first[1].running_mean, torch.stack(means).mean(0))
    assert first[1].momentum == 0.1


@pytest.mark.parametrize("kernel", ["lanczos2", "lanczos3", "box", "gaussian"])
@pytest.mark.parametrize(("factor", "phase"), [(2, 0.5), (3, 0.0), (4, 1.0)])
def test_a_crop_of_the_large_picture_is_compared_with_its_own_part_of_the_small_one(kernel, factor, phase):
    task = dip.SuperResolve(np.zeros((30, 41, 3), np.float32), factor, kernel=kernel, phase=phase)
    height, width = task.shape[1:]
    frame = Frame.around((height, width), (height + (-height) % 16 + 16, width + (-width) % 16 + 16))
    made = torch.rand(1, 3, frame.height, frame.width, generator=torch.Generator().manual_seed(2))
    y = task.forward(frame.crop(made))
    view = crops.Crops(frame, 48, 16, seed=0, factor=factor, support=task.support)
    for _ in range(40):
        part = view.part(made)
        prediction, beside, weight = view.compared(task.forward(view.picture(part)), y, None)
        assert weight is None
        assert prediction.numel()
        torch.testing.assert_close(prediction, beside, atol=1e-6, rtol=0)


def test_every_pixel_is_seen_and_none_much_less_than_the_rest():
    frame = Frame.around((150, 90), (160, 96))
    view = crops.Crops(frame, 64, 32, seed=0)
    where = torch.arange(150 * 90, dtype=torch.float32).reshape(1, 1, 150, 90)
    count = torch.zeros(150 * 90)
    for _ in range(400):
        made = view.part(frame.extend(where))
        x, y, _ = view.compared(view.picture(made), where, None)
        assert torch.equal(x, y)
        count[y.flatten().long()] += 1
    assert count.min() > 0.3 * count.mean()


def test_a_reference_is_looked_at_in_every_tenth_pass():
    noisy = photograph(40, 60)
    fit = dip.fit(dip.Denoise(noisy), reference=noisy, tile=48, network=SMALL, iters=19, progress=False)
    assert fit.settings.tiles == 2
    with pytest.raises(
        KeyError, match=r"'psnr', only loss; in crops \(tile=\) the reference is looked at in every tenth"
    ):
        fit.history["psnr"]
    assert fit.run(1).history.iterations("psnr").tolist() == [20]


def test_a_tile_that_holds_the_picture_changes_nothing():
    noisy = dip.degradations.gaussian(photograph(40, 60), 25, seed=0)
    options = {"iters": 4, "network": SMALL, "progress": False}
    np.testing.assert_array_equal(dip.denoise(noisy, tile=64, **options), dip.denoise(noisy, **options))


def test_a_fit_in_crops_denoises_as_one_in_a_piece_does():
    clean = photograph()
    noisy = dip.degradations.gaussian(clean, 25, seed=0)
    options = {"network": SMALL, "preset": "fast", "progress": False, "reference": clean}
    whole = dip.fit(dip.Denoise(noisy), iters=120, **options)
    fit = dip.fit(dip.Denoise(noisy), iters=360, tile=64, lr=0.01, **options)
    assert fit.settings.tiles == 6
    assert fit.settings.iters == 6 * 750
    assert dip.Fit(dip.Denoise(noisy), tile=64, **options).settings.lr == pytest.approx(0.003)
    got, had, wanted = (dip.metrics.psnr(image, clean) for image in (fit.image, noisy, whole.image))
    assert got > had + 4
    assert got > wanted - 0.3
    assert fit.history.iterations("psnr").tolist() == list(range(60, 361, 60))


def test_what_is_fitted_at_last_is_what_makes_the_whole():
    """From the middle of the run on the statistics stay, and the network is one and the same function of z."""
    noisy = dip.degradations.gaussian(photograph(64, 96), 25, seed=0)
    fit = dip.Fit(dip.Denoise(noisy), tile=48, network=SMALL, jitter=0.0, lr=0.01, precision="float32", progress=False)
    seen, rates = [], []

    def watch(fit: dip.Fit) -> None:
        seen.append([norm.running_var.clone() for norm in crops.norms_of(fit.network)])
        rates.append(fit._optimizer.param_groups[0]["lr"])

    fit.callbacks.append(watch)
    fit.run(400)
    assert fit._view.frozen_at == 200
    assert not any(torch.equal(a, b) for a, b in zip(seen[0], seen[199], strict=True))
    assert all(torch.equal(a, b) for later in seen[201:] for a, b in zip(seen[200], later, strict=True))
    assert rates[:200] == [0.01] * 200
    assert rates[200] == pytest.approx(0.00005)
    assert 0.002 < max(rates[200:]) < 0.005
    assert rates[-1] == pytest.approx(0.00025, rel=0.01)
    with torch.no_grad():
        at_once = fit.network.eval()(fit.code)
    torch.testing.assert_close(fit.output, fit.settings.frame.crop(at_once), atol=2e-5, rtol=0)
    fit.run(10)  # and on from there, slowly
    assert rates[-10] < 0.001


def test_a_resumed_fit_in_crops_is_the_same(tmp_path):
    noisy = dip.degradations.gaussian(photograph(70, 100), 25, seed=0)
    options = {"tile": 48, "network": SMALL, "code": dip.codes.Denoised(renewed=1), "progress": False}
    saved = {5: tmp_path / "5.ckpt", 50: tmp_path / "50.ckpt", 55: tmp_path / "55.ckpt"}

    def keep(fit: dip.Fit) -> None:
        if fit.iteration in saved:
            fit.save(saved[fit.iteration])

    straight = dip.fit(dip.Denoise(noisy), iters=60, callbacks=[keep], **options)
    assert straight._view.frozen_at == 50
    for path in saved.values():
        resumed = dip.fit(dip.Denoise(noisy), iters=60, resume=path, **options)
        np.testing.assert_array_equal(resumed.image, straight.image)


def test_the_code_is_renewed_once_for_all_tiles_until_the_statistics_are_frozen():
    noisy = dip.degradations.gaussian(photograph(70, 100), 25, seed=0)
    codes: list[torch.Tensor] = []
    options = {"tile": 48, "network": SMALL, "code": dip.codes.Denoised(renewed=2), "progress": False}
    keep = [lambda fit: codes.append(fit.code.clone())]
    fit = dip.fit(dip.Denoise(noisy), iters=100, callbacks=keep, **options)
    assert (fit.settings.tiles, fit._view.frozen_at) == (6, 50)
    changed = [i for i in range(1, 100) if not torch.equal(codes[i], codes[i - 1])]
    assert changed == [12, 24, 36, 48]  # iterations, counted from 0


def test_a_fit_that_fails_right_after_the_statistics_were_frozen_goes_back_to_there():
    calls = []

    def loss(prediction: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return (prediction - y).square().mean() * (float("nan") if len(calls) == 51 else 1)

    noisy = dip.degradations.gaussian(photograph(70, 100), 25, seed=0)
    with pytest.warns(RuntimeWarning, match="became nan at iteration 51; went back to the state of iteration 50"):
        fit = dip.fit(dip.Denoise(noisy), tile=48, network=SMALL, iters=70, loss=loss, progress=False)
    assert fit._view.frozen_at == 50
    assert np.isfinite(fit.history["loss"][51:]).all()


def test_a_picture_is_there_at_any_time():
    noisy = dip.degradations.gaussian(photograph(70, 100), 25, seed=0)
    fit = dip.Fit(dip.Denoise(noisy), tile=48, network=SMALL, progress=False)
    with pytest.raises(RuntimeError, match="not been run"):
        _ = fit.image
    fit.step()
    first = fit.image
    assert first.shape == noisy.shape
    fit.callbacks.append(lambda fit: fit.stop("enough") if fit.iteration == 30 else None)
    fit.run(100)
    assert (fit.iteration, fit.stop_reason) == (30, "enough")
    assert not np.array_equal(fit.image, first)


def test_inpainting_and_super_resolution_in_crops():
    clean = photograph(80, 100)
    known = np.random.default_rng(0).random((80, 100)) < 0.5
    filled = dip.inpaint(clean, known, tile=48, iters=3, network=SMALL, progress=False)
    np.testing.assert_array_equal(filled[known], clean[known])
    large = dip.super_resolve(clean, 2, tile=96, iters=3, network=SMALL, progress=False)
    assert large.shape == (160, 200, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "tile"),
        ({"tile": 50}, "multiple of 4 pixels.*take tile=52"),
        ({"tile": 4}, "take tile="),
        ({"tile": 48, "stop": dip.stopping.WindowedVariance()}, "option stop looks at the whole picture"),
        ({"tile": 48, "optimize_code": True}, "optimize_code"),
        ({"tile": 48, "average": 0.5}, "option average is of pictures of the whole"),
        ({"tile": 48, "optimizer": "lbfgs", "jitter": 0.0}, "lbfgs"),
        ({"tile": 48, "network": torch.nn.Conv2d(32, 3, 3, padding=1)}, "reach"),
    ],
)
def test_what_does_not_go_with_crops_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dip.Fit(dip.Denoise(photograph()), **{"network": SMALL, **options})


def test_operators_that_may_look_anywhere_are_refused():
    task = dip.Reconstruct(np.zeros((1, 3, 64, 64), np.float32), torch.nn.Identity(), (3, 64, 64))
    with pytest.raises(ValueError, match=r"tile=32: the operator of dip\.Reconstruct"):
        dip.Fit(task, network=SMALL, tile=32)


def test_where_the_memory_does_not_suffice_crops_are_advised_and_do(monkeypatch):
    large = np.broadcast_to(np.uint8(7), (2048, 2048, 3))
    monkeypatch.setattr(dip.devices, "free_memory", lambda device: 5 * 2**30)
    with pytest.raises(MemoryError, match=r"2048 x 2048 pixels .* would take about .*; fit it in crops \(tile=512\)"):
        dip.Fit(dip.Denoise(large), precision="float32")
    assert dip.settings.resolve(dip.Denoise(large), {"precision": "float32", "tile": 512}).tiles == 16
