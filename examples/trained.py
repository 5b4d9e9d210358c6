"""Compare a fit, which has seen one picture, with denoisers that were trained on thousands.

    python examples/trained.py                 # a test picture, some minutes on two cores
    python examples/trained.py --image my.png  # a clean picture of your own; noise is put on it

Writes trained.png; --help tells the options.
"""

# %% [markdown]
# # With and without training
#
# A denoiser that was trained on data knows what pictures look like, and what *noise* looked like in its training. The
# Deep Image Prior knows neither: it has the one noisy picture. So the trained one should be good where the noise is
# what it has learned to take away, in far less time, and have no advantage where it is something else.
#
# The models come with the package: `dip.trained.models()` lists them, with what they were trained on.

# %%
import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import skimage.data
from skimage.util import img_as_float32

import dip

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--image", type=Path, help="a clean picture of your own; its middle is used")
parser.add_argument("--iters", type=int, default=600, help="iterations of each fit (default %(default)s)")
parser.add_argument("--models", nargs="+", default=["cnn5-residual-bn", "dncnn-small"], help="of dip models")
parser.add_argument("--out", type=Path, default="trained.png", help="where the figure goes (default %(default)s)")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # a notebook takes the defaults
dip.files.check_target(options.out, force=True)  # what is wrong with it is said now, and not after the fit
options.out.parent.mkdir(parents=True, exist_ok=True)

if options.image:
    photo = img_as_float32(dip.files.read(options.image).pixels)
    top, left = (max(0, (side - 128) // 2) for side in photo.shape[:2])
    clean = photo[top : top + 128, left : left + 128]
else:
    clean = img_as_float32(skimage.data.astronaut()[30:158, 150:278])

# %% [markdown]
# ## Three kinds of noise
#
# - Gaussian noise of sigma 25 (on the scale of 0 to 255): what `cnn5-residual-bn` was trained on.
# - Gaussian noise of sigma 50: `dncnn-small` was trained on all levels up to 55, the other one has never seen it.
# - Impulse noise: a tenth of the values is black or white. Neither has seen that.
#
# For Gaussian noise the fit takes the preset `fast`, which begins from the picture after filters. These
# take noise for Gaussian and let points through, so for impulse noise the fit begins from a random code, as the
# paper's, and with the L1 loss: a few values that are far off do not count for more than they should. That is all that
# has to be known of the noise.

# %%
noises = {
    "Gaussian, sigma 25": dip.degradations.gaussian(clean, 25, seed=0),
    "Gaussian, sigma 50": dip.degradations.gaussian(clean, 50, seed=0),
    "impulse, 10 %": dip.degradations.impulse(clean, 0.1, seed=0),
}
network = {"down": [64] * 5, "up": [64] * 5}  # half the paper's channels: quicker
rows = {}
for name, noisy in noises.items():
    impulse = name.startswith("impulse")
    fit = {"network": network, "jitter": 0.01, "loss": "l1"} if impulse else {"preset": "fast"}
    rows[name] = {
        "noisy": noisy,
        "Deep Image Prior": dip.denoise(noisy, iters=options.iters, **fit),
        **{model: dip.denoise(noisy, backend="trained", model=model) for model in options.models},
    }

# %% [markdown]
# ## What to see
#
# First row: the trained models, small ones, are a little behind, in thousandths of the time. Second row: the model that
# was trained for weaker noise leaves half of it; the one that knows this level too does not. Third row: the trained
# models smear the points or let them stand, and the fit hardly notices them.
#
# So take a trained model where your noise is what it was trained on and time counts, or a large one. Where you cannot
# say what the noise is, or where a model would have to invent what your picture does not hold, the fit asks for nothing
# but your picture.

# %%
fig, axes = plt.subplots(
    len(rows), 3 + len(options.models), figsize=(3 * (3 + len(options.models)), 10), layout="constrained"
)
for line, (name, pictures) in zip(axes, rows.items(), strict=True):
    for axis, (title, picture) in zip(line, {**pictures, "original": clean}.items(), strict=True):
        axis.imshow(picture.clip(0, 1), cmap="gray", interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        if picture is not clean:
            psnr = dip.metrics.psnr(picture, clean)
            print(f"{name}, {title}: {psnr:.2f} dB")
            title += f"\n{psnr:.2f} dB"
        axis.set_title(title, fontsize=10)
    line[0].set_ylabel(name)
fig.savefig(options.out, dpi=80)
print(f"wrote {options.out}")
