"""Restore a JPEG by what its file tells, beside total variation.

    python examples/dejpeg.py

Writes dejpeg.png; --help tells the options.
"""

# %% [markdown]
# # JPEG: an observation with bounds
#
# A JPEG stores the cosine coefficients of each block of 8 x 8 pixels, each rounded to a whole number of steps. The
# steps are in the file. So what was lost is not known, but its bounds are: each coefficient of the picture was within
# half a step of the one that is stored. Very many pictures are; the one that a decoder shows, with each coefficient in
# the middle, has blocks and rings, which no camera ever saw.
#
# Here a network that has never been trained chooses among them.

# %%
import argparse
import io
import sys
from pathlib import Path

import imageio.v3 as iio
import matplotlib.pyplot as plt
import skimage.data
from skimage.restoration import denoise_tv_chambolle
from skimage.util import img_as_ubyte

import dip

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--image", type=Path, help="a picture of your own, which is compressed; its middle is used")
parser.add_argument("--size", type=int, default=160, help="side of the part in pixels (default %(default)s)")
parser.add_argument("--quality", type=int, default=10, help="of the JPEG, 1 to 100 (default %(default)s)")
parser.add_argument("--iters", type=int, default=600, help="iterations (default %(default)s)")
parser.add_argument("--out", type=Path, default="dejpeg.png", help="the figure (default %(default)s)")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # a notebook takes the defaults
dip.files.check_target(options.out, force=True)  # what is wrong with it is said now, and not after the fit
options.out.parent.mkdir(parents=True, exist_ok=True)

picture = dip.files.read(options.image).pixels if options.image else skimage.data.coffee()
top, left = (max(0, n - options.size) // 2 for n in picture.shape[:2])
clean = img_as_ubyte(picture[top : top + options.size, left : left + options.size])

# %% [markdown]
# ## The file
#
# Quality 10 is low, as of a picture that has been passed on too often. What is read back is an array like any other.

# %%
file = io.BytesIO(iio.imwrite("<bytes>", clean, extension=".jpg", quality=options.quality))
jpeg = iio.imread(file, extension=".jpg")
print(f"{len(file.getvalue())} bytes, {8 * len(file.getvalue()) / clean[..., :1].size:.2f} bits a pixel")

# %% [markdown]
# ## Two ways back
#
# Total variation takes the blocks for noise and smooths them; of several strengths the best is shown, which only
# somebody with the original can choose.
#
# `dip.dejpeg` finds the steps in the pixels themselves: decoded coefficients are whole multiples of them. (With the
# file at hand, `jpeg=dip.operators.JPEG.of_file(path)` reads them.) Then it looks for a picture within the bounds.

# %%
axis = -1 if clean.ndim == 3 else None
smoothed = [img_as_ubyte(denoise_tv_chambolle(jpeg, weight, channel_axis=axis)) for weight in (0.01, 0.02, 0.04, 0.08)]
classical = max(smoothed, key=lambda made: dip.metrics.psnr(made, clean))
restored = dip.dejpeg(jpeg, iters=options.iters)

# %% [markdown]
# ## What to see
#
# Look at edges: the rings beside them are gone, and the edges are as sharp as they were, or sharper. Even parts are
# even again, without the staircase of blocks. Texture that was weaker than half a step has left no trace in the file:
# it does not come back, by either.

# %%
panels = {"JPEG": jpeg, "total variation, best strength": classical, "Deep Image Prior": restored, "original": clean}
fig, axes = plt.subplots(1, 4, figsize=(13, 3.8), layout="constrained")
for place, (title, pixels) in zip(axes, panels.items(), strict=True):
    place.imshow(pixels, cmap="gray", interpolation="nearest")
    place.set(xticks=[], yticks=[], title=title)
    if pixels is not clean:
        psnr = dip.metrics.psnr(pixels, clean)
        print(f"{title}: {psnr:.2f} dB")
        place.set_xlabel(f"{psnr:.2f} dB")
fig.savefig(options.out, dpi=100)
print(f"wrote {options.out}")
