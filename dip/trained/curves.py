"""Learning curves as a picture."""

from __future__ import annotations

import io
import math
from typing import Any

__all__ = ["draw", "figure_class"]

_PANELS = {
    "train_loss": ("training loss", True),
    "validation_loss": ("validation loss", True),
    "psnr_against_clean": ("PSNR against clean pictures (dB)", False),
}


def figure_class() -> Any:
    """Return matplotlib's figure, which touches no global state.

    Raises
    ------
    ImportError
        matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('matplotlib is missing; pip install "deep-image-prior[plot]"') from error
    return Figure


def draw(histories: dict[str, dict[str, list[float]]], *, title: str = "") -> bytes:
    """Draw the losses and the PSNR of one training or several, epoch by epoch.

    Parameters
    ----------
    histories : dict
        By the name of the training, its history (`dip.trained.Training`).
    title : str
        Above the picture.

    Returns
    -------
    bytes
        A PNG.

    Raises
    ------
    ImportError
        matplotlib is missing.
    """
    foot = 0.2 * ((len(histories) + 1) // 2) * (len(histories) > 1)  # inches of the legend
    height = 3.6 + foot
    figure = figure_class()(figsize=(12, height))
    # by hand: to let matplotlib find a layout takes longer than to draw
    figure.subplots_adjust(left=0.06, right=0.99, bottom=(0.55 + foot) / height, top=1 - 0.65 / height, wspace=0.2)
    axes = figure.subplots(1, len(_PANELS))
    for axis, (name, (label, logarithmic)) in zip(axes, _PANELS.items(), strict=True):
        for number, (run, history) in enumerate(histories.items(), 1):
            values = [value if value is not None and math.isfinite(value) else math.nan for value in history[name]]
            wide = len(histories) > 1 and number % 2  # every other one, so that of two equal ones both are seen
            look = {"linewidth": 5, "alpha": 0.4} if wide else {"marker": "." if len(values) < 20 else None}
            axis.plot(range(1, len(values) + 1), values, label=run, **look)
            if logarithmic and values and min(values) > 0:
                axis.set_yscale("log")
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_title(label, fontsize="medium")
        axis.grid(alpha=0.3)
    if len(histories) > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=2, fontsize="small")
    if title:
        figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
