"""The samplers that a job may name."""

import hashlib
from dataclasses import replace
from typing import Protocol

from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from controller.samplers.context import SamplerContext
from search_spaces.registry import Registry


class SamplerFactory(Protocol):
    """Makes a sampler for one study."""

    def __call__(self, context: SamplerContext) -> BaseSampler:
        """Return a sampler whose proposals depend on the context and on the study's trials alone."""


SAMPLERS: Registry[SamplerFactory] = Registry("sampler", entry_point_group="paretrim.samplers")


def make_sampler(name: str, context: SamplerContext, *, trials_so_far: int) -> BaseSampler:
    """Make a sampler for a study that has some trials already.

    A sampler's random state is not stored. With the job's seed alone a resumed study would propose what it proposed
    before, so the seed is derived from both.

    Args:
        name: Registered name.
        context: What the sampler may know; its seed is the job's.
        trials_so_far: Trials that the study has when the sampler is made.

    Raises:
        RegistryError: No such sampler.
    """
    derived = hashlib.sha256(f"{context.seed}:{trials_so_far}".encode()).digest()
    return SAMPLERS.get(name)(replace(context, seed=int.from_bytes(derived[:4], "big")))


@SAMPLERS.register("tpe")
def make_tpe(context: SamplerContext) -> BaseSampler:
    """Tree-structured Parzen estimator over all parameters jointly; running trials count as bad ones.

    Every proposal has the same parameters, so there is nothing to gain from grouping them.

    Reference:
        Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011; for several objectives Ozaki
        et al., "Multiobjective tree-structured Parzen estimator", JAIR 73, 2022.
    """
    return TPESampler(seed=context.seed, multivariate=True, constant_liar=True)


@SAMPLERS.register("nsga2")
def make_nsga2(context: SamplerContext) -> BaseSampler:
    """Genetic search by non-dominated sorting, with constrained domination.

    Reference:
        Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Transactions on Evolutionary
        Computation 6, 2002.
    """
    return NSGAIISampler(seed=context.seed, population_size=min(50, max(8, 2 * len(context.space.parameters()))))


@SAMPLERS.register("random")
def make_random(context: SamplerContext) -> BaseSampler:
    """Uniform draws of every parameter."""
    return RandomSampler(seed=context.seed)
