"""Samplers by name: each proposes parameters to an Optuna study."""

from controller.samplers.context import SamplerContext as SamplerContext
from controller.samplers.registry import SAMPLERS as SAMPLERS
from controller.samplers.registry import SamplerFactory as SamplerFactory
from controller.samplers.registry import make_sampler as make_sampler
