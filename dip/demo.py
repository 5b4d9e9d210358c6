"""The demo: a photograph, noise, and what a network that never saw another picture makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dip import degradations, files, metrics
from dip.callbacks import duration, shows_progress
from dip.denoising import Denoise
from dip.plot import side_by_side
from dip.solver import Fit

__all__ = ["ABOUT", "EXAMPLES", "ITERATIONS", "photograph", "run"]

SIGMA = 25
PRESET = "fast"
ITERATIONS = 300

ABOUT = f"""\
See what it does: take a photograph (256 x 256 pixels of the astronaut that scikit-image carries), add noise
(Gaussian, sigma {SIGMA} of 255, clipped), restore it, and write before, after and original side by side.

The settings are those of the preset "{PRESET}", with {ITERATIONS} of its iterations, which take half a minute to a
minute on 2 CPU cores."""

EXAMPLES = """\
examples:
  dip demo
  dip demo -o early.png --iters 50       too early: the network has not come to the details yet"""


class _Lines:
    """Tell how far the fit is, in about ten lines: for logs, where a progress bar would not be seen."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self.every = max(1, total // 10)
        self._total, self._say = total, say
        self._started = time.perf_counter()

    def __call__(self, fit: Fit) -> None:
        passed = time.perf_counter() - self._started
        psnr = fit.history.last("psnr")
        self._say(f"  iteration {fit.iteration} of {self._total}, {duration(passed)}, PSNR {psnr:.2f} dB")


def photograph() -> np.ndarray:
    """Return the photograph: (256, 256, 3), uint8.

    The face in scikit-image's astronaut (a photograph by NASA, in the public domain, which comes with the package:
    nothing is downloaded). It is cut out and not made smaller: that would leave more detail in each pixel than
    can be told from noise of this strength.
    """
    from skimage.data import astronaut

    return astronaut()[:256, 96:352].copy()


def run(
    path: Path,
    *,
    say: Callable[[str], None] = print,
    iters: int = ITERATIONS,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    progress: bool = True,
) -> bool:
    """Degrade the photograph, restore it, and write the picture of it.

    Parameters
    ----------
    path : Path
        Where to write before, after and original.
    say : callable
        Takes each line of text.
    iters : int
        Iterations.
    seed : int
        Of the noise and of the network.
    device : str
        As for `dip.fit`.
    force : bool, default False
        Replace the file if it exists.
    progress : bool, default True
        Show a bar in a terminal or notebook, and lines elsewhere.

    Returns
    -------
    bool
        False if Ctrl-C ended it early; the picture so far is written then.

    Raises
    ------
    OSError, ValueError
        The file exists or cannot be written; an option is not what it should be.
    """
    files.check_target(path, force=force)
    clean = photograph()
    noisy = degradations.gaussian(clean, SIGMA, seed=seed)
    before = metrics.psnr(noisy, clean)
    watched = shows_progress()
    fit = Fit(
        Denoise(noisy),
        preset=PRESET,
        seed=seed,
        device=device,
        reference=clean,
        progress=progress and watched,
        callbacks=[_Lines(iters, say)] if progress and not watched else [],
    )
    say(f"noisy:    {before:.2f} dB (PSNR against the original; more is better, 6 dB are half the error)")
    fit.run(iters)
    restored = fit.image
    after = metrics.psnr(restored, clean)
    labels = [f"noisy, {before:.1f} dB", f"restored, {after:.1f} dB", "original"]
    # force: what exists was checked above, and --force given where it does
    files.write(path, side_by_side([noisy, restored, clean], labels), force=True)
    gain, took = after - before, duration(fit.seconds)
    say(f"restored: {after:.2f} dB, {gain:+.2f} dB, after {fit.iteration} iterations in {took}")
    if fit.stop_reason == "interrupted":
        say(f"interrupted; {path}: noisy, restored so far, original")
        return False
    say(f"{path}: noisy, restored, original; look at the face and the suit")
    return True
