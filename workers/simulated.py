"""A worker that computes nothing: scores follow from the policy by formula, faults come on order.

With it the controller is tested alone, with real processes and in seconds.
"""

import hashlib
import math
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from evaluators.latency.table import EnergyBasis
from evaluators.rungs import rung_order, rung_sizes
from evaluators.scores import Costs, Quality, Scores
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace, SpaceConfig, build_space
from search_spaces.units import Branch, ModelStructure, Producer, Unit, UnitKind
from workers.protocol import TrialReport, TrialRequest

DENSE_QUALITY = 0.9
SIMULATED_EXAMPLES = 64
"""Examples of the simulated split."""
_TARGET_FORMATS = ("fp32", "w8a8", "w4")


class Fault(StrEnum):
    """What goes wrong."""

    DIE = "die"
    """The process is killed (-9)."""
    RAISE = "raise"
    OUT_OF_MEMORY = "out_of_memory"
    NAN = "nan"
    """The quality is not a number."""
    HANG = "hang"
    """The evaluation does not return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedConfig:
    """How a simulated worker behaves; calling it makes the worker, so it serves as the worker's factory.

    Attributes:
        space: What policies choose from.
        seed: Seed of sensitivities and noise.
        noise: Standard deviation of the noise on quality; the same policy always gets the same.
        rung_noise: Standard deviation of a single example's part in the noise on the quality of a rung, which shrinks
            with the examples of the rung and is gone on the whole split.
        races: Whether a policy that does not pass its bar stops on the first rung.
        seconds: Wall time of each evaluation.
        faults: Trial number to what goes wrong with it.
        fault_folder: Where it is noted which fault has struck, so that each strikes once; None strikes always.
        journal: File to which each finished evaluation appends its trial's number; None for none.
    """

    space: SearchSpace
    seed: int = 0
    noise: float = 0.0
    rung_noise: float = 0.0
    races: bool = False
    seconds: float = 0.0
    faults: dict[int, Fault] = field(default_factory=dict)
    fault_folder: Path | None = None
    journal: Path | None = None

    def __call__(self) -> "SimulatedWorker":
        """Make the worker."""
        return SimulatedWorker(self)


class SimulatedWorker:
    """Scores policies by formula."""

    def __init__(self, config: SimulatedConfig) -> None:
        self._config = config
        self._costs = SimulatedCosts(config.space)
        self._acts: dict[Fault, Callable[[], None]] = {
            Fault.DIE: lambda: os.kill(os.getpid(), signal.SIGKILL),
            Fault.RAISE: _raise,
            Fault.OUT_OF_MEMORY: _run_out_of_memory,
            Fault.HANG: lambda: time.sleep(3600),
        }

    def evaluate(self, request: TrialRequest) -> TrialReport:
        """Score one policy, or run into the fault that was ordered for its trial."""
        config = self._config
        fault = config.faults.get(request.trial)
        if fault is not None and not self._strikes(request.trial):
            fault = None
        if fault is not None and fault in self._acts:
            self._acts[fault]()
        time.sleep(config.seconds)
        quality = simulated_score(request.policy, config, request.rung)
        bar = request.bar if config.races else None
        if bar is not None and (quality.value < bar.threshold or (bar.strict and quality.value == bar.threshold)):
            share = rung_sizes(SIMULATED_EXAMPLES)[0] / SIMULATED_EXAMPLES
            quality = replace(quality, per_example=(), rung=None, share=share)
        if fault is Fault.NAN:
            quality = replace(quality, value=math.nan, kl_to_dense=0.0)
        if config.journal is not None:
            with config.journal.open("a") as journal:
                journal.write(f"{request.trial}\n")
        scores = Scores(quality=quality, costs=self._costs(request.policy))
        return TrialReport(trial=request.trial, attempt=request.attempt, scores=scores)

    def _strikes(self, trial: int) -> bool:
        folder = self._config.fault_folder
        if folder is None:
            return True
        try:
            (folder / f"fault-{trial}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SimulatedCosts:
    """Exact costs by formula: fixed work plus the weights of every unit, as their format has them."""

    space: SearchSpace

    def __call__(self, policy: Policy) -> Costs:
        """Return the costs of a policy."""
        size_bytes = self.space.structure.fixed_bytes
        latency_ms, energy_mj, peak_memory_bytes = 0.5, 0.1, 64
        for unit in self.space.structure.units:
            choice = policy[unit.name]
            speed = FORMATS.get(choice.format).weight_bits / 32
            for _, rows, columns in unit.layer_shapes(choice.keep):
                size_bytes += FORMATS.get(choice.format).weight_bytes(rows, columns)
                latency_ms += rows * columns * (0.1 + 0.9 * speed) / 1e4
                energy_mj += rows * columns * speed**2 / 1e4
                peak_memory_bytes = max(peak_memory_bytes, 4 * (rows + columns))
        return Costs(
            latency_ms=latency_ms,
            size_bytes=size_bytes,
            energy_mj=energy_mj,
            energy_basis=EnergyBasis.ESTIMATED,
            peak_memory_bytes=peak_memory_bytes,
        )


def simulated_quality(policy: Policy, config: SimulatedConfig) -> float:
    """Return the quality of a policy: the dense one's, less a loss for each unit, plus noise; 0 to 1.

    A unit's loss grows with the square of what is pruned and with the bits that are missing; units differ in how
    sensitive they are.
    """
    loss = 0.0
    for unit in config.space.structure.units:
        sensitivity = 0.02 + 0.2 * _uniform(config.seed, unit.name)
        loss += sensitivity * _unit_loss(policy[unit.name], unit.groups)
    generator = random.Random(f"{config.seed}:{policy.digest}")
    noise = generator.gauss(0.0, config.noise) if config.noise else 0.0
    return min(1.0, max(0.0, DENSE_QUALITY - loss + noise))


def simulated_score(policy: Policy, config: SimulatedConfig, rung: int | None = None) -> Quality:
    """Return the score of a policy on the 64 examples of the simulation, or on a rung of them.

    Of two policies, the better one is right wherever the other is.
    """
    value = simulated_quality(policy, config)
    per_example = tuple(float(i < value * SIMULATED_EXAMPLES) for i in range(SIMULATED_EXAMPLES))
    kl_to_dense = max(0.0, DENSE_QUALITY - value)
    sizes = rung_sizes(SIMULATED_EXAMPLES)
    share = 1.0
    if rung is None or rung >= len(sizes) - 1:
        rung = None
    else:
        share = sizes[rung] / SIMULATED_EXAMPLES
        per_example = tuple(per_example[row] for row in rung_order(SIMULATED_EXAMPLES)[: sizes[rung]])
        spread = config.rung_noise * math.sqrt((1 - share) / sizes[rung])
        value += random.Random(f"{config.seed}:{policy.digest}:{rung}").gauss(0.0, spread) if spread else 0.0
    return Quality(
        metric="accuracy",
        value=min(1.0, max(0.0, value)),
        per_example=per_example,
        kl_to_dense=kl_to_dense,
        seconds=config.seconds,
        rung=rung,
        share=share,
    )


def simulated_structure(units: int = 4, *, groups: int = 8) -> ModelStructure:
    """Return a small structure of residual feed-forward units, for spaces of simulated studies."""
    width = 8 * groups
    return ModelStructure(
        architecture="simulated",
        units=tuple(
            Unit(
                name=f"layer.{index}.feed_forward",
                kind=UnitKind.FEED_FORWARD,
                groups=groups,
                producers=(Producer(layer=f"layer.{index}.up", rows_per_group=8),),
                consumer=f"layer.{index}.down",
                columns_per_group=8,
                in_features=width,
                out_features=width,
                branch=Branch(module=f"layer.{index}"),
                activation="gelu",
            )
            for index in range(units)
        ),
        fixed=(),
        fixed_bytes=10_000,
    )


def simulated_space(units: int = 4, config: SpaceConfig | None = None, *, groups: int = 8) -> SearchSpace:
    """Return the space of a simulated structure, with three formats."""
    structure = simulated_structure(units, groups=groups)
    return build_space(structure, config or SpaceConfig(), target_formats=_TARGET_FORMATS, channel_multiple=8)


def _unit_loss(choice: Choice, groups: int) -> float:
    pruned = 1 - choice.keep / groups
    missing_bits = 1 - FORMATS.get(choice.format).weight_bits / 32 if choice.keep else 0.0
    return pruned**2 + 0.1 * missing_bits**8


def _uniform(seed: int, name: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big") / 2**32


def _raise() -> None:
    raise RuntimeError("ordered by the simulation")


def _run_out_of_memory() -> None:
    raise MemoryError("ordered by the simulation")
