"""How many evaluations the `frontier` sampler saves: hypervolume over full-evaluation equivalents, probes included.

    python -m benchmarks.search_efficiency --model digits
    python -m benchmarks.search_efficiency --model ../shared/models/minilm-sst2

Every policy is really compressed and scored; latency comes from this machine's table. `ratio` is the median over seeds
of what the best stock sampler has spent at its end, divided by what `frontier` needs for the hypervolume that the best
stock sampler has there. `ahead` says whether from 50 evaluations on `frontier` leads at every budget in every seed.
Stock samplers are told everything that Optuna's own studies are told, and repeats cost them nothing. With --folder an
interrupted run is continued.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.samplers import GPSampler, NSGAIISampler, RandomSampler, TPESampler

from benchmarks.curves_plot import draw_curves
from benchmarks.recording import RESULTS, record
from benchmarks.search_runs import Bench, Curve, Make
from controller.samplers.frontier import make_frontier

GP_SECONDS = 120.0
_GP_SECONDS_QUICK = 20.0
STOCK: Mapping[str, Make] = {
    "nsga2": lambda context: NSGAIISampler(seed=context.seed),
    "random": lambda context: RandomSampler(seed=context.seed),
    "multivariate tpe": lambda context: TPESampler(seed=context.seed, multivariate=True),
    "gp": lambda context: GPSampler(seed=context.seed),
    "tpe": lambda context: TPESampler(seed=context.seed),
}
_FROM = 50


def main() -> None:
    """Run all samplers and print who was ahead."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="'digits', or the folder of a model that has an example")
    parser.add_argument(
        "--folder", type=Path, help="keeps model, table, variants, scores and curves; else a scratch one"
    )
    parser.add_argument("--seeds", type=int, help="how many; 5 on digits, else 2")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, help="evaluations of each sampler; 1280 on digits, else 512")
    parser.add_argument("--quick", action="store_true", help="one seed, 96 evaluations, GP for 20 s; keeps no result")
    parser.add_argument("--stock-only", action="store_true", help="fill the folder, print nothing")
    parser.add_argument("--kept-only", action="store_true", help="compare with the stock curves that the folder holds")
    arguments = parser.parse_args()
    is_digits = arguments.model == "digits"
    budget = arguments.budget or (96 if arguments.quick else 1280 if is_digits else 512)
    seeds = arguments.seeds or (1 if arguments.quick else 5 if is_digits else 2)
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(None if is_digits else Path(arguments.model), folder, examples=None if is_digits else 128)
        chosen = range(arguments.first_seed, arguments.first_seed + seeds)
        runs = [(name, seed) for name in STOCK for seed in chosen]
        if arguments.kept_only:
            runs = [(name, seed) for name, seed in runs if bench.stock_file(name, seed, budget).exists()]
        gp_seconds = _GP_SECONDS_QUICK if arguments.quick else GP_SECONDS
        found = [_stock(bench, name, seed, budget, gp_seconds) for name, seed in runs]
        stock = {seed: [curve for curve in found if curve.seed == seed] for seed in chosen}
        if not arguments.stock_only:
            frontier = {
                seed: _told(bench.search("frontier", make_frontier, seed=seed, budget=min(budget, 400)))
                for seed in chosen
            }
            report(bench.name, stock, frontier, keep=not arguments.quick)


def _stock(bench: Bench, name: str, seed: int, budget: int, gp_seconds: float) -> Curve:
    seconds = gp_seconds if name == "gp" else 1e9
    return _told(bench.stock_search(name, STOCK[name], seed=seed, budget=budget, seconds=seconds))


def _told(curve: Curve) -> Curve:
    volumes = " ".join(f"{at}: {curve.at(at):.4f}" for at in (10, 25, 50, 100, 200, 400, 800, 1280))
    sys.stderr.write(f"seed {curve.seed} {curve.sampler}: {volumes}; the sampler took {curve.seconds:.0f} s\n")
    return curve


def report(
    model: str, stock: Mapping[int, Sequence[Curve]], frontier: Mapping[int, Curve], *, keep: bool = True
) -> None:
    """Print the figures; keep them, and draw the curves, unless `keep` is false."""
    by_seed: list[dict[str, Any]] = []
    for seed, ours in frontier.items():
        best = max(stock[seed], key=lambda curve: curve.points[-1][1])
        needed = ours.reaches(best.points[-1][1])
        by_seed.append(
            {
                "seed": seed,
                "best_stock": best.sampler,
                "best_stock_evaluations": best.points[-1][0],
                "hypervolume": best.points[-1][1],
                "frontier_evaluations": needed,
                "ratio": 0.0 if needed is None else best.points[-1][0] / needed,
                "ahead": _is_ahead(ours, stock[seed]),
            }
        )
    middle = sorted(by_seed, key=lambda row: row["ratio"])[len(by_seed) // 2]
    figures: dict[str, Any] = {
        "model": model,
        "frontier_evaluations": middle["frontier_evaluations"],
        "best_stock": middle["best_stock"],
        "best_stock_evaluations": middle["best_stock_evaluations"],
        "ratio": statistics.median(row["ratio"] for row in by_seed),
        "ahead": all(row["ahead"] for row in by_seed),
    }
    curves = [*frontier.values(), *(curve for found in stock.values() for curve in found)]
    if keep:
        draw_curves(curves, RESULTS / f"search_efficiency-{model}")
    kept = [
        {"sampler": c.sampler, "seed": c.seed, "seconds": round(c.seconds, 1), "volumes": _volumes(c)} for c in curves
    ]
    record(f"search_efficiency-{model}", figures, details={"by_seed": by_seed, "curves": kept}, keep=keep)


def _is_ahead(ours: Curve, stock: Sequence[Curve]) -> bool:
    """Whether we lead wherever anyone's hypervolume changes, from the first budget that counts to our own end."""
    end = ours.points[-1][0]
    budgets = {cost for curve in (ours, *stock) for cost, _ in curve.points if _FROM <= cost <= end} | {_FROM}
    return all(ours.at(budget) > curve.at(budget) for budget in budgets for curve in stock)


def _volumes(curve: Curve) -> dict[str, float]:
    """Hypervolume at budgets that grow by a fifth."""
    budgets = sorted({round(1.2**step) for step in range(45)})
    return {str(budget): round(curve.at(budget), 5) for budget in budgets if budget <= curve.points[-1][0] * 1.2}


if __name__ == "__main__":
    main()
