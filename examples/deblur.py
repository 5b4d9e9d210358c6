"""Sharpen a micrograph whose blur is known, beside Richardson-Lucy.

    python examples/deblur.py

Writes deblur.png; --help tells the options.
"""

# %% [markdown]
# # Deconvolution: a blur that is known
#
# A microscope shows each point of a specimen as a small spot, the *point spread function* (PSF). What it records is the
# specimen convolved with the PSF, and noise: `y = h * x + n`. The PSF can be measured, on a bead that is smaller than
# what can be resolved, or computed.
#
# Dividing by what the blur has left of each frequency would bring the detail back, and the noise with it, a hundred
# times as strong. So one has to know which of all specimens that fit the data are plausible. Here a network that has
# never been trained says so.

# %%
import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
from scipy.ndimage import convolve
from skimage.restoration import richardson_lucy
from skimage.util import img_as_float32

import dip

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--image", type=Path, help="a sharp picture of your own, which is blurred; its middle is used")
parser.add_argument("--size", type=int, default=160, help="side of the part in pixels (default %(default)s)")
parser.add_argument("--iters", type=int, default=800, help="iterations (default %(default)s)")
parser.add_argument("--out", type=Path, default="deblur.png", help="the figure (default %(default)s)")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # a notebook takes the defaults
dip.files.check_target(options.out, force=True)  # what is wrong with it is said now, and not after the fit
options.out.parent.mkdir(parents=True, exist_ok=True)

picture = dip.files.read(options.image).pixels if options.image else skimage.data.immunohistochemistry()
top, left = (max(0, n - options.size) // 2 for n in picture.shape[:2])
clean = img_as_float32(picture[top : top + options.size, left : left + options.size])

# %% [markdown]
# ## The measurement
#
# The blur is made by scipy, not by our own operator: an inversion that only undoes its own arithmetic proves nothing.
# Noise of 2 gray levels of 255 comes on top; that much is in any photograph.

# %%
psf = dip.operators.gaussian_psf(1.6)
kernel = psf if clean.ndim == 2 else psf[..., None]
noise = np.random.default_rng(0).normal(0, 2 / 255, clean.shape)
blurred = (convolve(clean, kernel, mode="mirror") + noise).astype(np.float32)

# %% [markdown]
# ## Two ways back
#
# Richardson-Lucy is what microscopes come with. It has to be stopped, too: each iteration sharpens, and strengthens the
# noise. Of several counts the best is shown, which only somebody with the sharp picture can choose.
#
# `dip.deblur` finds out how strong the noise is, and how far it may go from that.


# %%
def lucy(count):
    """Return what so many iterations of Richardson-Lucy make of each channel."""
    planes = blurred[..., None] if blurred.ndim == 2 else blurred
    rim = len(psf)  # it takes what lies beyond the border for black, so the picture goes on there, mirrored
    around = np.pad(planes.clip(0), [(rim, rim), (rim, rim), (0, 0)], mode="reflect")
    channels = [richardson_lucy(plane, psf, num_iter=count)[rim:-rim, rim:-rim] for plane in np.moveaxis(around, -1, 0)]
    return np.stack(channels, axis=-1).reshape(clean.shape).astype(np.float32)


classical = max((lucy(count) for count in (3, 5, 10, 20, 40)), key=lambda made: dip.metrics.psnr(made, clean))
restored = dip.deblur(blurred, psf, preset="fast", iters=options.iters)

# %% [markdown]
# ## What to see
#
# Look at the outlines of the nuclei, and at what should be even between them. Richardson-Lucy brings the outlines
# back with a grain that is not in the specimen: noise that has passed through the inverse of the blur. The fit has
# them as sharp, with less of the grain. Detail that is finer than what the blur has left is found by neither.

# %%
panels = {"blurred": blurred, "Richardson-Lucy, best count": classical, "Deep Image Prior": restored, "sharp": clean}
fig, axes = plt.subplots(1, 4, figsize=(13, 3.8), layout="constrained")
for axis, (title, pixels) in zip(axes, panels.items(), strict=True):
    axis.imshow(pixels.clip(0, 1), cmap="gray", interpolation="nearest")
    axis.set(xticks=[], yticks=[], title=title)
    if pixels is not clean:
        psnr = dip.metrics.psnr(pixels, clean)
        print(f"{title}: {psnr:.2f} dB")
        axis.set_xlabel(f"{psnr:.2f} dB")
fig.savefig(options.out, dpi=100)
print(f"wrote {options.out}")
