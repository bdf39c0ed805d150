"""The samplers that a job may name."""

import hashlib
import math
import warnings
from dataclasses import replace
from typing import Protocol

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from controller.sampler_names import ENTRY_POINT_GROUP
from controller.samplers.context import SamplerContext
from controller.samplers.evolution import make_evolution
from controller.samplers.frontier import make_frontier
from controller.samplers.gaussian_process import make_gp
from controller.samplers.genetic import NSGAIIISampler, NSGAIISampler
from controller.samplers.grid_sampler import distributions_of
from controller.samplers.reinforce import make_reinforce
from search_spaces.registry import Registry


class SamplerFactory(Protocol):
    """Makes a sampler for one study."""

    def __call__(self, context: SamplerContext) -> BaseSampler:
        """Return a sampler whose proposals depend on the context and on the study's trials alone."""


SAMPLERS: Registry[SamplerFactory] = Registry("sampler", entry_point_group=ENTRY_POINT_GROUP)
"""All samplers. One of another distribution comes by an entry point of the sampler's own name, whose module registers
the factory when it is imported: a job may name it, as jobs are checked by names alone (`sampler_names`)."""


_LARGEST_POPULATION = 50
_SMALLEST_POPULATION = 8


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


SAMPLERS.register("frontier")(make_frontier)


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
    return NSGAIISampler(distributions_of(context.space), seed=context.seed, population_size=_population(context))


@SAMPLERS.register("nsga3")
def make_nsga3(context: SamplerContext) -> BaseSampler:
    """Genetic search that keeps what is nearest to directions spread over the front, one for each of the population.

    Reference:
        Deb and Jain, "An evolutionary many-objective optimization algorithm using reference-point-based nondominated
        sorting approach", IEEE Transactions on Evolutionary Computation 18, 2014.
    """
    population, free = _population(context), len(context.objectives) - 1
    divisions = next(p for p in range(population, 0, -1) if math.comb(p + free, free) <= population)
    with warnings.catch_warnings():
        # Optuna calls it experimental, which the user can't change.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return NSGAIIISampler(
            distributions_of(context.space),
            seed=context.seed,
            population_size=population,
            dividing_parameter=divisions,
        )


@SAMPLERS.register("random")
def make_random(context: SamplerContext) -> BaseSampler:
    """Uniform draws of every parameter."""
    return RandomSampler(seed=context.seed)


SAMPLERS.register("evolution")(make_evolution)
SAMPLERS.register("gp")(make_gp)
SAMPLERS.register("reinforce")(make_reinforce)


def _population(context: SamplerContext) -> int:
    return min(_LARGEST_POPULATION, max(_SMALLEST_POPULATION, 2 * len(context.space.parameters())))
