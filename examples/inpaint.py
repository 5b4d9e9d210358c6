"""Take the writing off a photograph: fill in pixels that are missing.

    python examples/inpaint.py                       # scikit-image's coffee, a few minutes on two cores
    python examples/inpaint.py --image photo.jpg     # the middle of a photograph of your own

Writes inpaint.png; --help tells the options.
"""

# %% [markdown]
# # Inpainting: reading between the letters
#
# Somebody has written across a photograph. The network is asked for a picture that agrees with the photograph
# wherever it can still be seen; what it puts under the letters is not asked at all, and comes from its own liking for
# structure.
#
# **Which way round is the mask?** `True` (or 1, or 255, white in a file) says: *this pixel is known*. `False` (0,
# black) says: *fill this in*. The mask has height and width of the picture and no colours.
#
# If your own mask marks the scratches instead, turn it over: `dip.inpaint(picture, ~scratches)`.

# %%
import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
from skimage.restoration import inpaint_biharmonic
from skimage.util import img_as_float32

import dip

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--image", type=Path, help="a picture of your own; 192 pixels square are cut from its middle")
parser.add_argument("--iters", type=int, default=300, help="iterations (default %(default)s)")
parser.add_argument("--out", type=Path, default="inpaint.png", help="the figure (default %(default)s)")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # a notebook takes the defaults
dip.files.check_target(options.out, force=True)  # what is wrong with it is said now, and not after the fit
options.out.parent.mkdir(parents=True, exist_ok=True)

SIZE = 192
picture = skimage.data.coffee()[60:252, 200:392]
if options.image:
    picture = img_as_float32(dip.files.read(options.image).pixels)  # what matplotlib shows
top, left = (max(0, n - SIZE) // 2 for n in picture.shape[:2])
original = picture[top : top + SIZE, left : left + SIZE]

known = dip.degradations.text_mask(original.shape[:2], size=24)  # True = known, False = under a letter
damaged = original.copy()
damaged[~known] = original.max()  # what stands there does not matter: the fit never looks at it
print(f"missing: {1 - known.mean():.1%} of the pixels")

# %% [markdown]
# ## The fit
#
# The paper's preset for text has 128 channels, wide skip connections and 6001 iterations. The preset "fast" takes 300:
# a filter fills in the missing pixels, and the network learns to correct it, at known pixels that it is not shown.
# Known pixels come back exactly as they were given (`keep_known=False` would return the network's own version).
#
# The other way is scikit-image's biharmonic inpainting: the smoothest surface through the edges of the hole.

# %%
restored = dip.inpaint(damaged, known, preset="fast", iters=options.iters)
assert np.array_equal(restored[known], original[known])

colours = {"channel_axis": -1} if original.ndim == 3 else {}
smooth = inpaint_biharmonic(damaged, ~known, **colours)  # scikit-image's mask is the other way round!
smooth = (np.clip(smooth, 0, 1) * 255).round().astype(np.uint8) if original.dtype == np.uint8 else smooth

# %% [markdown]
# ## What to see
#
# The words are gone in both. Strokes as thin as these are an easy case, and the smooth surface is a strong rival. The
# lower row shows the rim of the cup, where letters lie across an edge: that is where the two differ. The PSNR is over
# the missing pixels alone; the others are the same in all pictures.

# %%


def psnr_at(image, where):
    """Return the PSNR over the pixels in `where`."""
    return dip.metrics.psnr(image[where][None], original[where][None], **colours)


panels = {"given": damaged, "biharmonic": smooth, "Deep Image Prior": restored, "original": original}
fig, axes = plt.subplots(2, 4, figsize=(12, 6.9), layout="constrained")
height, width = original.shape[:2]
detail = np.s_[height // 2 : height // 2 + height // 3, : width // 3]
for column, (title, image) in zip(axes.T, panels.items(), strict=True):
    if image is not original:
        psnr = psnr_at(image, ~known)
        print(f"{title}: {psnr:.2f} dB")
        title += f"\n{psnr:.2f} dB on the missing pixels"
    column[0].set_title(title, fontsize=10)
    for axis, part in zip(column, (image, image[detail]), strict=True):
        axis.imshow(part, cmap="gray")
        axis.set(xticks=[], yticks=[])
fig.savefig(options.out, dpi=100)
print(f"wrote {options.out}")
