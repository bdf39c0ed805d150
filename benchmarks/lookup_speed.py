"""How many policies a second the solver prices, on one core.

    python -m benchmarks.lookup_speed

The sampler's grid of a Llama-shaped model of 12 blocks (24 units of 8 widths in 3 formats), its latencies from a table
of invented times. `policies_per_second` is the median over repeats of one million random policies, each priced in
latency and in size; `max_deviation` is the largest relative difference from adding up operators one by one.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import random
import statistics
import time

import numpy as np

from benchmarks.recording import record
from controller.samplers.choices import costs_in_order, grid_of
from controller.samplers.context import SamplerContext
from evaluators.costs import CostModel
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import Entry, Fingerprint, LatencyTable, Provenance
from evaluators.latency.workload import Workload
from search_spaces.space import SearchSpace, SpaceConfig, build_space
from search_spaces.units import Branch, ModelStructure, Producer, Unit, UnitKind
from workers.profile import required_operators

BLOCKS = 12
POLICIES = 1_000_000
REPEATS = 5
CHECKED = 500
WORKLOAD = Workload(batch=1, sequence_length=128)


def main() -> None:
    """Time the solver's lookup and print policies a second."""
    space = _space()
    costs = CostModel(space.structure, LatencyPredictor(_table(space), WORKLOAD))
    grid = grid_of(SamplerContext(seed=0, space=space, cost_of=costs))
    options = np.random.default_rng(0).integers(grid.counts, size=(POLICIES, grid.units))
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        priced = grid.estimate(options)
        seconds.append(time.perf_counter() - started)
    policies = [space.from_parameters(grid.parameters(point)) for point in options[:CHECKED]]
    naive = np.array([costs_in_order(costs(policy)) for policy in policies])
    record(
        "lookup_speed",
        {
            "policies_per_second": round(POLICIES / statistics.median(seconds)),
            "max_deviation": float(np.abs(priced[:CHECKED] / naive - 1).max()),
        },
        details={"units": grid.units, "options_of_a_unit": grid.counts[:2].tolist()},
    )


def _space() -> SearchSpace:
    units = tuple(unit for block in range(BLOCKS) for unit in (_attention(block), _feed_forward(block)))
    structure = ModelStructure(architecture="llama-shaped", units=units, fixed=(), fixed_bytes=0)
    keep = tuple(step / 8 for step in range(1, 9))
    formats = ("fp32", "w8a8", "w4")
    return build_space(structure, SpaceConfig(keep=keep), target_formats=formats, channel_multiple=8)


def _attention(block: int) -> Unit:
    return Unit(
        name=f"layer.{block}.attention",
        kind=UnitKind.ATTENTION,
        groups=16,
        producers=tuple(Producer(layer=f"{block}.{name}", rows_per_group=64) for name in ("q", "k", "v")),
        consumer=f"{block}.o",
        columns_per_group=64,
        in_features=1024,
        out_features=1024,
        branch=Branch(module=f"{block}.attention"),
    )


def _feed_forward(block: int) -> Unit:
    return Unit(
        name=f"layer.{block}.feed_forward",
        kind=UnitKind.FEED_FORWARD,
        groups=2816,
        producers=tuple(Producer(layer=f"{block}.{name}", rows_per_group=1) for name in ("gate", "up")),
        consumer=f"{block}.down",
        columns_per_group=1,
        in_features=1024,
        out_features=1024,
        branch=Branch(module=f"{block}.feed_forward"),
        activation="silu",
    )


def _table(space: SearchSpace) -> LatencyTable:
    generator = random.Random(0)
    return LatencyTable(
        target="invented",
        fingerprint=Fingerprint(device="none", runtime="none", runtime_version="0", threads=1, os="none"),
        provenance=Provenance(measured_at=None),
        entries=tuple(
            Entry.of(operator, generator.uniform(0.01, 1)) for operator in required_operators(space, WORKLOAD)
        ),
    )


if __name__ == "__main__":
    main()
