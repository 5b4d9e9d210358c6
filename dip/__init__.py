"""Deep Image Prior: restore one degraded image by fitting an untrained network to it."""

from dip import (
    averaging,
    callbacks,
    codes,
    datasets,
    degradations,
    devices,
    files,
    images,
    losses,
    metrics,
    networks,
    noise,
    operators,
    presets,
    stopping,
    trained,
)
from dip._version import __version__
from dip.checkpoint import CheckpointError
from dip.deblurring import Deblur
from dip.decompression import Dejpeg
from dip.denoising import Denoise
from dip.guard import DivergenceError
from dip.inpainting import Inpaint
from dip.reconstruction import Reconstruct
from dip.restore import deblur, dejpeg, denoise, fit, inpaint, reconstruct, super_resolve
from dip.several import run_all
from dip.solver import Fit
from dip.tasks import SuperResolve

__all__ = [
    "CheckpointError",
    "Deblur",
    "Dejpeg",
    "Denoise",
    "DivergenceError",
    "Fit",
    "Inpaint",
    "Reconstruct",
    "SuperResolve",
    "__version__",
    "averaging",
    "callbacks",
    "codes",
    "datasets",
    "deblur",
    "degradations",
    "dejpeg",
    "denoise",
    "devices",
    "files",
    "fit",
    "images",
    "inpaint",
    "losses",
    "metrics",
    "networks",
    "noise",
    "operators",
    "presets",
    "reconstruct",
    "run_all",
    "stopping",
    "super_resolve",
    "trained",
]
