"""How far a search without training gets on this CPU, scored on examples that it did not see.

    python -m benchmarks.front_quality --model ../shared/models/minilm-sst2

The search spends at most 128 full-evaluation equivalents on one half of the dev set, probes and the dense model
included, and the front is what none beats in quality and latency; every member's accuracy is then taken on the other
half. Quality is the fidelity to the dense model's outputs, or with `--quality metric` the accuracy: that of a few
hundred examples rewards luck, fidelity hardly. `latency_at_half_point` and `latency_at_one_and_half_points` are the
least latencies, in units of the dense model's, of members that lose at most 0.5 and 1.5 points of accuracy there, null
where none does; latency is that of batch 1 and 32 tokens by this machine's table. In `chosen_unseen_...` the member is
chosen by what the search says alone: the fastest that loses no more quality there, its latency, and the accuracy that
it then loses on the holdout.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.recording import record
from benchmarks.search_runs import Bench
from controller.front import FrontMember
from controller.samplers.frontier import make_frontier
from evaluators.scores import QualityMeasure
from search_spaces.policy import Policy
from workers.protocol import Split, TrialRequest

_BUDGET = 128


def main() -> None:
    """Search, take the front's accuracy on the holdout and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="keeps what was measured; else a scratch one")
    parser.add_argument("--quality", type=QualityMeasure, choices=list(QualityMeasure), default=QualityMeasure.FIDELITY)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(arguments.model, folder, quality=arguments.quality)
        # The last proposal may not exceed the budget, and the dense model takes one evaluation.
        curve = bench.search("frontier", make_frontier, seed=arguments.seed, budget=_BUDGET - 2)
        scored = [bench.member(n + 1, policy, bench.score(policy)) for n, policy in enumerate(curve.policies)]
        policies = {policy.digest: policy for policy in [bench.space.dense_policy(), *curve.policies]}
        front = _on_holdout(bench, bench.front([bench.dense, *scored]), policies)
        dense = _accuracy(bench, bench.space.dense_policy())
    figures: dict[str, Any] = {
        "latency_at_half_point": _least(front, dense, 0.005),
        "latency_at_one_and_half_points": _least(front, dense, 0.015),
        "evaluations": round(curve.points[-1][0] + 1, 3),
        "quality": arguments.quality.value,
    }
    for name, drop in (("half_point", 0.005), ("one_and_half_points", 0.015)):
        within = [row for row in front if row["search"] >= bench.dense.quality - drop]
        chosen = min(within, key=lambda row: row["latency"])
        figures[f"chosen_unseen_{name}"] = [round(chosen["latency"], 4), round(dense - chosen["holdout"], 4)]
    suffix = "" if arguments.quality is QualityMeasure.FIDELITY else f"-by-{arguments.quality}"
    record(f"front_quality-{bench.name}{suffix}", figures, details={"dense_holdout": dense, "front": front})


def _on_holdout(bench: Bench, front: list[FrontMember], policies: Mapping[str, Policy]) -> list[dict[str, float]]:
    """Latency, quality in the search and accuracy on the holdout of each member."""
    rows = []
    for member in front:
        policy = policies[member.policy_digest]
        latency = member.latency_ms / bench.dense.latency_ms
        rows.append({"latency": latency, "search": bench.score(policy).value, "holdout": _accuracy(bench, policy)})
        sys.stderr.write(f"{rows[-1]}\n")
    return rows


def _accuracy(bench: Bench, policy: Policy) -> float:
    request = TrialRequest(trial=0, attempt="", policy=policy, split=Split.HOLDOUT)
    scores = bench.worker.evaluate(request).scores
    return (scores.task_metric or scores.quality).value


def _least(rows: list[dict[str, float]], dense: float, drop: float) -> float | None:
    """The least latency within a drop of accuracy on the holdout; None where no member is."""
    found = [row["latency"] for row in rows if row["holdout"] >= dense - drop - 1e-9]
    return round(min(found), 4) if found else None


if __name__ == "__main__":
    main()
