"""What searching pruning and bit width together is worth: hypervolumes at equal evaluations.

    python -m benchmarks.joint_value --model digits
    python -m benchmarks.joint_value --model ../shared/models/minilm-sst2

All four searches use the `frontier` sampler and spend the same full-evaluation equivalents: `joint` over both axes,
`prune_only` in the base format, `bits_only` with every unit whole, and `sequential`, which prunes with one half of the
budget and then, with the other half, searches the formats of up to four members spread over the pruned front.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.recording import record
from benchmarks.search_runs import Bench, Curve
from controller.front import FrontMember
from controller.samplers.frontier import make_frontier
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace

_STARTS = 4


def main() -> None:
    """Search four times for each seed and print the hypervolumes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits", help="'digits', or the folder of a model that has an example")
    parser.add_argument("--folder", type=Path, help="keeps what was measured; else a scratch one")
    parser.add_argument("--budget", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    is_digits = arguments.model == "digits"
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(None if is_digits else Path(arguments.model), folder, examples=None if is_digits else 128)
        rows = [_compare(bench, seed, arguments.budget) for seed in range(arguments.seeds)]
    figures = {name: round(statistics.median(row[name] for row in rows), 4) for name in rows[0]}
    record(
        f"joint_value-{bench.name}",
        {"model": bench.name, **figures},
        details={"budget": arguments.budget, "by_seed": rows},
    )


def _compare(bench: Bench, seed: int, budget: int) -> dict[str, float]:
    whole = bench.space
    prune = _within(whole, formats=True)
    bits = _within(whole, keeps=True)
    found = {
        "joint": bench.volume(_members(bench, [_search(bench, whole, seed, budget)])),
        "prune_only": bench.volume(_members(bench, [_search(bench, prune, seed, budget)])),
        "bits_only": bench.volume(_members(bench, [_search(bench, bits, seed, budget)])),
        "sequential": bench.volume(_sequential(bench, prune, seed, budget)),
    }
    sys.stderr.write(f"seed {seed}: {found}\n")
    return found


def _search(bench: Bench, space: SearchSpace, seed: int, budget: float) -> Curve:
    return bench.search("frontier", make_frontier, seed=seed, budget=budget, space=space)


def _sequential(bench: Bench, prune: SearchSpace, seed: int, budget: int) -> list[FrontMember]:
    first = _search(bench, prune, seed, budget / 2)
    front = bench.front(_members(bench, [first]))
    step = max(1, (len(front) - 1) / (_STARTS - 1))
    starts = [front[round(number * step)] for number in range(min(_STARTS, len(front)))]
    by_digest = {policy.digest: policy for policy in first.policies}
    curves = [first]
    for start in starts:
        space = _formats_of(bench.space, by_digest[start.policy_digest])
        curves.append(_search(bench, space, seed, budget / 2 / len(starts)))
    return _members(bench, curves)


def _members(bench: Bench, curves: list[Curve]) -> list[FrontMember]:
    policies = [policy for curve in curves for policy in curve.policies]
    return [bench.member(number + 1, policy, bench.score(policy)) for number, policy in enumerate(policies)]


def _within(space: SearchSpace, *, keeps: bool = False, formats: bool = False) -> SearchSpace:
    """The space with every unit whole, or with every unit in the base format."""
    units = []
    for unit_space in space.unit_spaces:
        fixed_keeps = unit_space.keeps[:1] if keeps else unit_space.keeps
        fixed_formats = (space.base_format,) if formats else unit_space.formats
        units.append(replace(unit_space, keeps=fixed_keeps, formats=fixed_formats))
    return replace(space, unit_spaces=tuple(units))


def _formats_of(space: SearchSpace, policy: Policy) -> SearchSpace:
    """The space with every unit kept as a policy keeps it."""
    units = [replace(s, keeps=(policy[s.unit.name].keep,)) for s in space.unit_spaces]
    return replace(space, unit_spaces=tuple(units))


if __name__ == "__main__":
    main()
