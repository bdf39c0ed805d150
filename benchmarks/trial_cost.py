"""What a trial costs: against the bare dense forward pass, and against doing it without a store of variants.

    python -m benchmarks.trial_cost --model ../shared/models/minilm-sst2

Random policies of the default space are assembled from stored variants and scored; right before and after each the
dense model runs over the same examples. `trial_over_forward` is the median ratio of a trial to the mean of its two
neighbours. `naive_over_trial` is the median ratio of doing the same from the files (load, calibrate, prune, solve,
quantize, evaluate) to a trial; in `naive_given_moments_over_trial` what calibration gives is at hand.
`half_prefix_over_whole` is the median ratio of a trial whose units in the first half of the model are the last trial's
to running it whole; `probe_over_whole` is the mean ratio over probes of single units, for which the activations of the
dense model are kept. Without --model a ResNet is trained on digits.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.cases import Case, load_case
from benchmarks.recording import record
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace, SpaceConfig, build_space
from workers.assemble import Assembler
from workers.calibrate import Calibration
from workers.model import load_model
from workers.targets import TARGETS
from workers.variant_store import VariantStore
from workers.variants import VariantMaker

Result = TypeVar("Result")
_PREFIXES = 10
"""Trials that share the first half of their units with the one before."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the model; a ResNet on digits without it")
    parser.add_argument("--policies", type=int, default=30)
    parser.add_argument("--naive", type=int, default=3, help="policies that are also made without a store")
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as folder:
        case = load_case(arguments.model, Path(folder), evaluation=arguments.examples)
        measure(case, arguments, Path(folder) / "variants")


def measure(case: Case, arguments: argparse.Namespace, folder: Path) -> None:
    """Fill a store, then time trials, bare passes and naive runs in turn."""
    structure = case.loaded.structure
    target = TARGETS.get("cpu-onnxruntime")
    space = build_space(
        structure, SpaceConfig(), target_formats=target.formats, channel_multiple=target.channel_multiple
    )
    calibration = case.calibration()
    maker = VariantMaker(case.loaded.model, structure.units, calibration)
    store = VariantStore(folder)
    made, filling = _timed(lambda: _fill(store, maker, space))
    assembler = Assembler(case.loaded.model, structure, lambda unit, choice: store.get_or_make(maker, unit, choice))
    generator = random.Random(arguments.seed)
    policies = [space.random_policy(generator) for _ in range(arguments.policies)]
    ratios, trials = _trials(case, assembler, policies, space.dense_policy())
    _, collecting = _timed(lambda: _collect(case.calibration(), space))
    naive = []
    for policy in policies[: arguments.naive]:
        _, seconds = _timed(partial(_without_store, case, calibration, policy))
        naive.append(seconds)
        sys.stderr.write(f"without a store {seconds:.2f} s\n")
    trial = statistics.median(trials)
    record(
        f"trial_cost-{case.name}",
        {
            "trial_over_forward": statistics.median(ratios),
            "naive_over_trial": (statistics.median(naive) + collecting) / trial,
            "naive_given_moments_over_trial": statistics.median(naive) / trial,
            **_prefixes(case, assembler, space, policies),
            "variants": made,
        },
        details={
            "ratios": ratios,
            "trial_s": trials,
            "naive_s": naive,
            "fill_s": filling,
            "calibrate_s": collecting,
            "store_mb": store.size_bytes / 1e6,
            "threads": arguments.threads,
            "examples": arguments.examples,
        },
    )


def _trials(case: Case, assembler: Assembler, policies: list[Policy], dense: Policy) -> tuple[list[float], list[float]]:
    """Ratios of trials to bare passes, and seconds of trials."""

    def bare() -> float:
        assembler.apply(dense)
        return _timed(lambda: [assembler.logits(c.inputs, c.examples_per_call) for c in case.evaluator.calls])[1]

    ratios, trials = [], []
    before = bare()
    for number, policy in enumerate(policies):
        _, seconds = _timed(partial(case.evaluate, assembler, policy))
        after = bare()
        ratios.append(2 * seconds / (before + after))
        trials.append(seconds)
        sys.stderr.write(f"trial {number}: {seconds:.2f} s, {ratios[-1]:.2f} of a bare pass\n")
        before = after
    return ratios, trials


def _prefixes(case: Case, assembler: Assembler, space: SearchSpace, policies: Sequence[Policy]) -> dict[str, float]:
    """What trials save whose first blocks are those of the last trial, or of the dense model."""
    dense = space.dense_policy()
    names = [unit_space.unit.name for unit_space in space.unit_spaces]
    second_half = names[len(names) // 2 :]
    assembler.remember(case.evaluator.calls)
    case.evaluate(assembler, dense)

    def ratio(policy: Policy) -> float:
        assembler.apply(policy)
        # Inputs in another mapping are not recognised, so that the model runs whole.
        whole = [
            _timed(lambda: case.evaluator.run(lambda inputs, size: assembler.logits(dict(inputs), size)))[1]
            for _ in range(2)
        ][1]
        return _timed(partial(case.evaluate, assembler, policy))[1] / whole

    halves = []
    for policy, other in itertools.pairwise(policies[: 1 + _PREFIXES]):
        case.evaluate(assembler, policy)
        halves.append(ratio(policy.replace(**{name: other[name] for name in second_half})))
    probes = [ratio(dense.replace(**{name: space.choices(name)[-1]})) for name in names]
    return {"half_prefix_over_whole": statistics.median(halves), "probe_over_whole": statistics.mean(probes)}


def _fill(store: VariantStore, maker: VariantMaker, space: SearchSpace) -> int:
    """Make every variant of the space; how many there are."""
    wanted = [(s.unit, choice) for s in space.unit_spaces for choice in space.choices(s.unit.name)]
    for unit, choice in wanted:
        store.get_or_make(maker, unit, choice)
    return len(wanted)


def _collect(calibration: Calibration, space: SearchSpace) -> None:
    """The calibration that a first trial without a store waits for."""
    for unit in space.structure.units:
        if unit.producers:
            calibration.moments(unit.consumer)
            calibration.fisher(unit)


def _without_store(case: Case, calibration: Calibration, policy: Policy) -> None:
    """From the files to the score of one policy."""
    loaded = load_model(case.config)
    maker = VariantMaker(loaded.model, loaded.structure.units, calibration)
    case.evaluate(Assembler(loaded.model, loaded.structure, maker.make), policy)


def _timed(run: Callable[[], Result]) -> tuple[Result, float]:
    started = time.perf_counter()
    result = run()
    return result, time.perf_counter() - started


if __name__ == "__main__":
    main()
