"""Names of samplers, known without importing any: checking a job must not load Optuna."""

from importlib.metadata import entry_points

ENTRY_POINT_GROUP = "paretrim.samplers"
"""Entry points of other distributions, each under its sampler's name."""

BUILT_IN = ("evolution", "frontier", "gp", "nsga2", "nsga3", "random", "reinforce", "tpe")
"""Samplers that come with Paretrim, in alphabetical order."""


def sampler_names() -> tuple[str, ...]:
    """Return the names of all samplers that a job may have, built-in ones first."""
    plugged_in = sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)} - set(BUILT_IN))
    return (*BUILT_IN, *plugged_in)
