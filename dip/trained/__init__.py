"""Denoisers trained on data, to hold the Deep Image Prior against: models, data, training, inference."""

from dip.trained.architectures import create, names
from dip.trained.inference import Denoiser, load, models

__all__ = ["Denoiser", "create", "load", "models", "names"]
