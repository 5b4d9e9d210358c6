"""Noise impedance: a convolutional network fits a natural picture soon, and noise late or never.

    python examples/noise_impedance.py                            # 128 pixels, a few minutes on two cores
    python examples/noise_impedance.py --size 512 --iters 2400    # full size, an hour

Writes noise_impedance.png; --help tells the options.
"""

# %% [markdown]
# # Noise impedance: why Deep Image Prior works
#
# The same network, with the same number of weights, is fitted to four pictures: a photograph, the same with noise
# added, the same with its pixels in random order, and pure noise. What differs is how *long* that takes: the network
# lets structure pass and resists noise. Everything else in this package lives on that difference: stop in time, and
# you have the picture without the noise.
#
# The setting is that of figure 2 of Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior" (CVPR 2018), with the network
# of the preset `paper-jpeg`: 8, 16, 32, 64, 128 channels down and up, skip connections at the two coarsest scales
# only, a code of 3 channels, Adam with a learning rate of 0.01. The preset adds fresh noise to the code at each
# iteration, which makes the network resist noise still more; it is left out here (`--jitter 0.0333` brings it back),
# as in the plain problem that the figure is about: the smallest loss for one fixed code.

# %%
import argparse
import datetime
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
from skimage.util import img_as_float

import dip

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--image", type=Path, help="a picture of your own in place of the astronaut")
parser.add_argument("--size", type=int, default=128, help="side of the square cut from it (default %(default)s)")
parser.add_argument("--iters", type=int, default=1000, help="iterations; the full size is 2400 (default %(default)s)")
parser.add_argument("--jitter", type=float, default=0.0, help="noise on the code (default %(default)s; preset: 1/30)")
parser.add_argument("--norm-scale", default="uniform", help="first scales of the batch normalisations, or one")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--json", type=Path, help="write the curves and all settings to this file as well")
parser.add_argument("--checkpoints", type=Path, help="a folder: the same command goes on from there after a break")
parser.add_argument("--out", type=Path, default="noise_impedance.png", help="the figure (default %(default)s)")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # a notebook takes the defaults
dip.files.check_target(options.out, force=True)  # what is wrong with it is said now, and not after the fit
options.out.parent.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Four pictures to fit

# %%
photo = dip.files.read(options.image).pixels if options.image else skimage.data.astronaut()
photo = img_as_float(photo)
top, left = (max(0, n - options.size) // 2 for n in photo.shape[:2])
if not options.image and options.size <= 256:
    top, left = 20, 130  # the face
photo = photo[top : top + options.size, left : left + options.size]
rng = np.random.default_rng(options.seed)
targets = {
    "photograph": photo,
    "photograph + noise": dip.degradations.gaussian(photo, sigma=25, seed=options.seed),
    "pixels shuffled": rng.permutation(photo.reshape(-1, *photo.shape[2:])).reshape(photo.shape),
    "uniform noise": rng.random(photo.shape),
}

# %% [markdown]
# ## Four fits
#
# Each fit pauses at a few moments, where its output is kept for the figure (and its whole state in a file, with
# `--checkpoints`).

# %%
if options.checkpoints:
    options.checkpoints.mkdir(parents=True, exist_ok=True)
moments = sorted({max(1, round(options.iters * share)) for share in (0.01, 0.03, 0.1, 0.3, 1)})
network = {"norm_scale": options.norm_scale}
fits, snapshots = {}, {}
for name, target in targets.items():
    fit = dip.Fit(dip.Denoise(target), preset="paper-jpeg", network=network, jitter=options.jitter, seed=options.seed)
    snapshots[name] = [target]
    for moment in moments:
        kept = options.checkpoints and options.checkpoints / f"{name}-{moment}.checkpoint"
        if kept and kept.exists():
            fit.load(kept)
        else:
            fit.run(moment - fit.iteration)
            if kept:
                fit.save(kept)
        snapshots[name].append(dip.images.from_tensor(fit.output, fit.task.layout))
    fits[name] = fit


def first_below(loss, level):
    """Return the first iteration (from 1) at which the loss is under a level, None if it never is."""
    below = np.flatnonzero(loss < level)
    return int(below[0]) + 1 if below.size else None


SHARES = (0.5, 0.2, 0.1, 0.05)  # of the target's variance, which is what the best uniform colour leaves
variance = {name: float(target.var(axis=(0, 1)).mean()) for name, target in targets.items()}
reached = {n: {s: first_below(fits[n].history["loss"], s * variance[n]) for s in SHARES} for n in targets}
for name, fit in fits.items():
    loss = fit.history["loss"][-1]
    when = ", ".join(f"{1 - share:.0%} at {at or 'no iteration'}" for share, at in reached[name].items())
    print(f"{name}: {-10 * np.log10(loss):.2f} dB (loss {loss:.5f}) at {fit.iteration}; explained: {when}")

# %% [markdown]
# ## What to see
#
# Left: the photograph's curve falls first. The noisy one's goes down with it, and comes to rest above it by the noise
# that the network resists (dotted: the variance of that noise). Shuffled pixels and pure noise stay where one uniform
# colour would be for a hundred iterations and more, although shuffling has changed nothing but the *order* of the
# pixels.
#
# Right: the fits in the second row look like those in the first, not like their own target. As long as that is so is
# the time to stop.

# %%
colours = dict(zip(targets, ("tab:green", "tab:blue", "tab:orange", "tab:red"), strict=True))
fig = plt.figure(figsize=(14, 5.6), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=[1, 1.5])
axis = left.subplots()
for name, fit in fits.items():
    axis.semilogx(np.arange(1, fit.iteration + 1), fit.history["loss"], color=colours[name], label=name)
noise = float(np.mean((targets["photograph + noise"] - photo) ** 2))
axis.axhline(noise, color="tab:blue", ls=":", lw=1, label="variance of the added noise")
axis.set(xlabel="iteration", ylabel="loss (mean squared error)", ylim=(0, 1.25 * max(variance.values())))
axis.legend(loc="center right", fontsize=9)
axis.grid(alpha=0.3)
axes = right.subplots(len(targets), 1 + len(moments))
for row, (name, pictures) in zip(axes, snapshots.items(), strict=True):
    for axis, picture, title in zip(row, pictures, ["target", *moments], strict=True):
        axis.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        if axis in axes[0]:
            axis.set_title(title if title == "target" else f"iteration {title}", fontsize=9)
    row[0].set_ylabel(name, color=colours[name], fontsize=9)
fig.savefig(options.out, dpi=100)
print(f"wrote {options.out}")

# %%
if options.json:
    at = sorted({*np.unique(np.geomspace(1, options.iters, 120).round().astype(int)).tolist(), options.iters})
    any_fit = next(iter(fits.values()))
    settings = {k: v for k, v in any_fit.fingerprint().items() if k not in ("dip", "image", "z", "network")}
    report = {
        "experiment": "noise impedance",
        "notes": "loss = mean squared error, picture in [0, 1]; photograph + noise: sigma 25, clipped; "
        "reached: first iteration at which the loss is under that share of the target's variance",
        "picture": options.image.name if options.image else "skimage.data.astronaut",
        "size": list(photo.shape[:2]),
        "iterations": options.iters,
        "settings": settings | {"preset": "paper-jpeg", "network": network},
        "seed": options.seed,
        "device": str(any_fit.device),
        "environment": dip.devices.environment(),
        "date": datetime.date.today().isoformat(),
        "seconds": {name: round(fit.seconds) for name, fit in fits.items()},
        "variance": variance | {"added noise": noise},
        "final_loss": {name: fit.history["loss"][-1] for name, fit in fits.items()},
        "reached": reached,
        "iteration": at,
        "loss": {n: [float(f"{fit.history['loss'][i - 1]:.5g}") for i in at] for n, fit in fits.items()},
    }
    options.json.write_text(json.dumps(report, indent=1) + "\n")
