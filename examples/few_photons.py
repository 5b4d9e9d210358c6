"""Restore a picture of few photons, whose noise grows with the light.

    python examples/few_photons.py

Writes few_photons.png; --help tells the options.
"""

# %% [markdown]
# # Few photons: noise that grows with the light
#
# Light comes in photons, and they come at random: where `k` are expected, `k ± √k` are counted. So a bright pixel has
# more noise than a dark one, in numbers, and a dark one more in proportion. A telescope's picture, or that of a
# fluorescence microscope, has hardly any other noise.
#
# A fit by the squared error takes the noise for the same everywhere. In such a picture most is sky, so it is the sky's
# little noise that is found, and what a galaxy has is far above it: for the fit that is picture.

# %%
import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
from skimage.util import img_as_float32

import dip

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--image", type=Path, help="a picture of your own that gets noise; its middle is used")
parser.add_argument("--size", type=int, default=160, help="side of the part in pixels (default %(default)s)")
parser.add_argument("--photons", type=float, default=20, help="in a white pixel, in the mean (default %(default)s)")
parser.add_argument("--iters", type=int, default=750, help="iterations (default %(default)s)")
parser.add_argument("--out", type=Path, default="few_photons.png", help="the figure (default %(default)s)")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # a notebook takes the defaults
dip.files.check_target(options.out, force=True)  # what is wrong with it is said now, and not after the fit
options.out.parent.mkdir(parents=True, exist_ok=True)

picture = dip.files.read(options.image).pixels if options.image else skimage.data.hubble_deep_field()
top, left = (max(0, n - options.size) // 2 for n in picture.shape[:2])
clean = img_as_float32(picture[top : top + options.size, left : left + options.size])

# %% [markdown]
# ## What is counted
#
# White is 1 here, and one photon is a small part of it, a twentieth by default. What is counted may be above white: it
# is not cut off, since that would make the mean of a bright pixel too dark.

# %%
counted = np.random.default_rng(0).poisson(clean * options.photons) / np.float32(options.photons)

# %% [markdown]
# ## Two fits
#
# The second is told no more than what kind of noise it is. How much one photon is worth, and whether there is a
# camera's own noise besides, is found in the picture. It is then brought to a scale on which the noise is the same
# everywhere (nearly a square root), fitted there, and brought back. Where you know your camera, say it:
# `noise=dip.noise.PoissonGaussian(gain, sigma, offset)`, in the numbers of the image.

# %%
alike = dip.denoise(counted, preset="fast", noise="gaussian", iters=options.iters)
fit = dip.fit(dip.Denoise(counted, noise="poisson"), preset="fast", iters=options.iters)
print(f"found: {fit.task.words or 'nothing'}")

# %% [markdown]
# ## What to see
#
# Both have an even sky. In the first the galaxies keep their grain, as it was counted; in the second they are smooth,
# and the faint ones that are above the noise are still there. The original has noise of its own, which nobody can bring
# back.

# %%
panels = {"counted": counted, "noise the same everywhere": alike, "noise of photons": fit.image, "original": clean}
fig, axes = plt.subplots(1, 4, figsize=(13, 3.8), layout="constrained")
for axis, (title, pixels) in zip(axes, panels.items(), strict=True):
    axis.imshow(pixels.clip(0, 1) ** 0.5, cmap="gray", interpolation="nearest")  # brightened, so that the sky is seen
    axis.set(xticks=[], yticks=[], title=title)
    if pixels is not clean:
        psnr = dip.metrics.psnr(pixels, clean)
        print(f"{title}: {psnr:.2f} dB")
        axis.set_xlabel(f"{psnr:.2f} dB")
fig.savefig(options.out, dpi=100)
print(f"wrote {options.out}")
