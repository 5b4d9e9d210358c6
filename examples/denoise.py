"""Remove the noise from one photograph, with no other photograph ever seen.

    python examples/denoise.py                       # a noisy test picture, a few minutes on two cores
    python examples/denoise.py --image my_noisy.png  # a noisy picture of your own

Writes denoise.png; --help tells the options.
"""

# %% [markdown]
# # Denoising a picture of your own
#
# A network that has never been trained is fitted to *one noisy picture*: from a fixed random code `z` it has to
# produce that picture. It finds the picture long before it finds the noise, so we stop in between and keep what it
# has by then.
#
# The noisy picture below is made from a clean one, only to be able to *measure* the result: the network never sees
# the clean one. Noise is given as its standard deviation on the scale of 0 to 255.

# %%
import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import skimage.data
from skimage.util import img_as_float32

import dip

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--image", type=Path, help="a noisy picture of your own; the whole of it is restored")
parser.add_argument("--iters", type=int, default=1000, help="most iterations to do (default %(default)s)")
parser.add_argument("--out", type=Path, default="denoise.png", help="where the figure goes (default %(default)s)")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # a notebook takes the defaults
dip.files.check_target(options.out, force=True)  # what is wrong with it is said now, and not after the fit
options.out.parent.mkdir(parents=True, exist_ok=True)

if options.image:
    clean, noisy = None, img_as_float32(dip.files.read(options.image).pixels)  # what matplotlib shows
else:
    clean = skimage.data.astronaut()[30:158, 150:278]
    noisy = dip.degradations.gaussian(clean, sigma=25, seed=0)

# %% [markdown]
# ## The fit
#
# `dip.denoise(noisy)` would be enough to get the picture. `dip.fit` returns the whole result, so that we can look
# inside.
#
# - `network` halves the channels of the paper's network: quicker, a little worse.
# - `jitter` is noise added to the code at each iteration, which slows the fit of noise, and of everything else. The
#   paper's 1/30 suits a large network and picture; a small one does with less.
# - `stop` watches how much the output still moves. It moves less and less while the picture is being fitted and more
#   again once the noise is; the picture of the quietest moment is returned. No clean picture is needed for that.
# - `reference` adds the PSNR against the clean picture to the history, and nothing else.

# %%
fit = dip.fit(
    dip.Denoise(noisy),
    iters=options.iters,
    network={"down": [64] * 5, "up": [64] * 5},
    jitter=0.01,
    stop=dip.stopping.WindowedVariance(window=50, patience=300, earliest=150),
    reference=clean,
)
print(f"{fit.iteration} iterations in {fit.seconds:.0f} s; stopped by: {fit.stop_reason}")
last_output = dip.images.from_tensor(fit.output, fit.task.layout)

# %% [markdown]
# ## What to see
#
# Top: the *last output* of the network has begun to copy the noise: look at smooth places, such as the background.
# *Returned* is the average of many outputs, taken at the moment that the rule chose: noise differs from one output to
# the next and averages out, edges do not.
#
# Bottom left: the loss only ever falls, and does not tell when to stop. Bottom right: the quality of the single
# outputs rises, then falls as the noise is fitted; what is returned stays at the level where the rule found the
# quietest moment.

# %%
panels = {"given (noisy)": noisy, f"last output, iteration {fit.iteration}": last_output, "returned": fit.image}
if clean is not None:
    panels["original, never seen"] = clean
fig = plt.figure(figsize=(12, 7), layout="constrained")
top, bottom = fig.subfigures(2, 1, height_ratios=[1, 0.8])
for axis, (title, picture) in zip(top.subplots(1, len(panels)), panels.items(), strict=True):
    axis.imshow(picture, cmap="gray", interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    if clean is not None and picture is not clean:
        psnr = dip.metrics.psnr(picture, clean)
        print(f"{title}: {psnr:.2f} dB")
        title += f"\n{psnr:.2f} dB"
    axis.set_title(title, fontsize=10)

left, right = bottom.subplots(1, 2)
at = fit.history.iterations("loss")
left.loglog(at, fit.history["loss"], color="tab:gray")
left.set(xlabel="iteration", ylabel="loss (mean squared error)")
if clean is None:
    right.set_axis_off()
else:
    right.plot(at, fit.history["psnr_output"], color="tab:orange", lw=0.7, label="single outputs")
    right.plot(at, fit.history["psnr"], color="tab:blue", lw=2, label="returned, if it ended here")
    right.set(xlabel="iteration", ylabel="PSNR in dB")
    right.legend(loc="lower right")
    right.grid(alpha=0.3)
fig.savefig(options.out, dpi=100)
print(f"wrote {options.out}")
