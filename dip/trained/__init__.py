"""Denoisers trained on data, to hold the Deep Image Prior against: models, data, training, inference."""

from dip.trained.architectures import create, names
from dip.trained.inference import Denoiser, load, models
from dip.trained.recipe import Recipe
from dip.trained.sweeps import sweep
from dip.trained.training import Training, train

__all__ = ["Denoiser", "Recipe", "Training", "create", "load", "models", "names", "sweep", "train"]
