"""Enlarge a small picture by 4, with no other picture ever seen.

    python examples/super_resolve.py                     # scikit-image's coffee, a few minutes on two cores
    python examples/super_resolve.py --image photo.jpg   # the middle of a photograph of your own

Writes super_resolve.png; --help tells the options.
"""

# %% [markdown]
# # Super-resolution: four times as high and wide
#
# Sixteen unknown pixels stand behind each one that was measured. Interpolation puts something smooth between the
# known ones. Deep Image Prior asks the network for a *large* picture that, made small again, is the one we have; of
# the many that are, the network comes to one with clean edges first: it makes a large picture, and the loss compares
# at the small size.

# %%
import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
from PIL import Image
from skimage.util import img_as_ubyte

import dip

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--image", type=Path, help="a picture of your own; 192 pixels square are cut from its middle")
parser.add_argument("--iters", type=int, default=1000, help="iterations (default %(default)s)")
parser.add_argument("--out", type=Path, default="super_resolve.png", help="the figure (default %(default)s)")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # a notebook takes the defaults
dip.files.check_target(options.out, force=True)  # what is wrong with it is said now, and not after the fit
options.out.parent.mkdir(parents=True, exist_ok=True)

FACTOR, SIZE = 4, 192
picture = skimage.data.coffee()[60:252, 200:392]
if options.image:
    picture = img_as_ubyte(dip.files.read(options.image).pixels)  # what Pillow makes small
top, left = (max(0, n - SIZE) // 2 for n in picture.shape[:2])
original = picture[top : top + SIZE, left : left + SIZE]
original = original[: len(original) // FACTOR * FACTOR, : original.shape[1] // FACTOR * FACTOR]


def resized(image, height, width, method):
    """Return an 8-bit picture at another size."""
    return np.asarray(Image.fromarray(image).resize((width, height), method))


height, width = original.shape[:2]
small = resized(original, height // FACTOR, width // FACTOR, Image.Resampling.LANCZOS)

# %% [markdown]
# ## The fit
#
# `kernel` says how the small picture came to be (here and by default: a Lanczos filter, as most programs do it). If
# yours is the mean over blocks of pixels, as a camera's "binning" makes it, say `kernel="box"`: with a wrong kernel
# the network invents what has to be there to explain the difference. With the preset "fast" the network is shown a
# picture that comes down to the small one, at first by interpolation, then from its own average, under strong noise.

# %%
restored = dip.super_resolve(
    small,
    FACTOR,
    iters=options.iters,
    kernel="lanczos2",
    preset="fast",
)

# %% [markdown]
# ## What to see
#
# Look at the rim of the cup, enlarged in the lower row: with bicubic interpolation it is soft and runs in small steps,
# in the network's picture it is an even line. The bubbles on the coffee, finer than a pixel of the small picture, come
# back in neither: what was not measured is not there, and the network does not know what coffee looks like.

# %%
panels = {
    "given (nearest)": resized(small, height, width, Image.Resampling.NEAREST),
    "bicubic": resized(small, height, width, Image.Resampling.BICUBIC),
    "Deep Image Prior": restored,
    "original": original,
}
fig, axes = plt.subplots(2, 4, figsize=(12, 6.9), layout="constrained")
detail = np.s_[height // 2 : height // 2 + height // 3, : width // 3]
for column, (title, image) in zip(axes.T, panels.items(), strict=True):
    if image is not original:
        psnr = dip.metrics.psnr(image, original)
        print(f"{title}: {psnr:.2f} dB")
        title += f"\n{psnr:.2f} dB"
    column[0].set_title(title, fontsize=10)
    for axis, part in zip(column, (image, image[detail]), strict=True):
        axis.imshow(part, cmap="gray", interpolation="nearest")
        axis.set(xticks=[], yticks=[])
fig.savefig(options.out, dpi=100)
print(f"wrote {options.out}")
