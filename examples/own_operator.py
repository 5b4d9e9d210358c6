"""Reconstruct a CT slice from a few X-ray views, through a forward operator of one's own.

    python examples/own_operator.py

Writes own_operator.png; --help tells the options.
"""

# %% [markdown]
# # A forward operator of one's own: computed tomography from few views
#
# A CT scanner never sees the slice `x` itself. From each angle it measures how much the rays were weakened on their
# way, which is the sum of `x` along straight lines: the Radon transform `A`. All angles together are the *sinogram*
# `y`.
#
# Few angles mean a low dose and a short scan, but then the usual reconstruction, filtered back-projection, is full of
# streaks. Deep Image Prior asks for the picture, among those that a network makes easily, whose sinogram is the
# measured one. All that it needs to be told is `A`, as a function of torch operations.

# %%
import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from skimage.transform import iradon, radon, resize
from skimage.util import img_as_float

import dip

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--image", type=Path, help="a picture of your own in place of the phantom; its middle is the slice")
parser.add_argument("--iters", type=int, default=1200, help="iterations (default %(default)s)")
parser.add_argument("--views", type=int, default=24, help="number of angles (default %(default)s)")
parser.add_argument("--out", type=Path, default="own_operator.png", help="the figure (default %(default)s)")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # a notebook takes the defaults
dip.files.check_target(options.out, force=True)  # what is wrong with it is said now, and not after the fit
options.out.parent.mkdir(parents=True, exist_ok=True)

N = 127  # odd, so that there is a pixel in the middle to turn about
if options.image:
    slice_ = dip.files.read(options.image).pixels
    slice_ = img_as_float(slice_ if slice_.ndim == 2 else slice_[..., 1])
    side = min(slice_.shape)
    top, left = ((n - side) // 2 for n in slice_.shape)
    slice_ = slice_[top : top + side, left : left + side]
else:
    slice_ = skimage.data.shepp_logan_phantom()
slice_ = np.clip(resize(slice_, (N, N), anti_aliasing=True), 0, 1)
rows, columns = np.ogrid[:N, :N]
slice_[np.hypot(rows - N // 2, columns - N // 2) > N // 2] = 0  # what leaves the circle is not seen from every angle

# %% [markdown]
# ## The operator
#
# To sum along slanted lines, turn the picture and sum its columns. `grid_sample` interpolates, so gradients flow
# through it to the network. `x` comes as (1, 1, H, W) in [0, 1]; the result has the shape of the measurement.

# %%
angles = np.linspace(0, 180, options.views, endpoint=False)
cos, sin = (torch.from_numpy(f(np.deg2rad(angles))).float() for f in (np.cos, np.sin))
zero = torch.zeros_like(cos)
turns = torch.stack([torch.stack([cos, sin, zero], 1), torch.stack([-sin, cos, zero], 1)], 1)
grid = F.affine_grid(turns, [options.views, 1, N, N], align_corners=True)


def project(x):
    """Return the sinogram, (1, 1, N, N) -> (N, views)."""
    turned = F.grid_sample(x.expand(options.views, -1, -1, -1), grid.to(x.device), align_corners=True)
    return turned.sum(dim=2)[:, 0].T


# %% [markdown]
# ## The measurement, and the reconstruction
#
# The measurement is made by scikit-image's `radon`, not by our own operator: an inversion that only undoes its own
# arithmetic proves nothing. One per cent of noise (of the largest value) comes on top.

# %%
exact = radon(slice_, angles)
noise = np.random.default_rng(0).normal(0, 0.01 * exact.max(), exact.shape)
sinogram = (exact + noise).astype(np.float32)
own = project(torch.from_numpy(slice_)[None, None].float()).numpy()
print(f"own operator against scikit-image's: {np.abs(own - exact).max() / exact.max():.2%} apart at most")

back_projection = np.clip(iradon(sinogram, angles, filter_name="cosine"), 0, 1)  # the best of its filters here
restored = dip.reconstruct(
    sinogram,
    forward=project,
    shape=(N, N),
    iters=options.iters,
    network={"down": [32] * 5, "up": [32] * 5},  # a quarter of the paper's channels
    jitter=0,  # the measurement is nearly clean: no need to hold the network back
)

# %% [markdown]
# ## What to see
#
# Back-projection smears every view across the picture: streaks outside the head, and a mesh of them inside. The fit
# has the same data; the streaks are gone, because a network does not easily make them, and the skull is as thin as it
# should be. Of the three small ellipses at the bottom neither shows more than a trace. Where the data say too little,
# a fit may be wrong and look convincing all the same: mind it when you measure in such pictures.

# %%
panels = {"filtered back-projection": back_projection, "Deep Image Prior": restored, "the slice": slice_}
fig, axes = plt.subplots(1, 4, figsize=(13, 3.9), layout="constrained")
axes[0].imshow(sinogram, cmap="gray", aspect="auto", interpolation="nearest")
axes[0].set(title=f"measured: {options.views} views", xlabel="view", ylabel="position on the detector")
for axis, (title, picture) in zip(axes[1:], panels.items(), strict=True):
    psnr = dip.metrics.psnr(picture, slice_) if picture is not slice_ else None
    axis.imshow(picture, cmap="gray", vmin=0, vmax=0.6 if options.image is None else 1)
    axis.set(title=title, xticks=[], yticks=[], xlabel="" if psnr is None else f"{psnr:.2f} dB")
    if psnr is not None:
        print(f"{title}: {psnr:.2f} dB")
fig.savefig(options.out, dpi=100)
print(f"wrote {options.out}")
