"""How far a search without training gets on this CPU, scored on examples that it did not see.

    python -m benchmarks.front_quality --model ../shared/models/minilm-sst2

The search spends at most 128 full-evaluation equivalents on one half of the dev set, probes and the dense model
included; every front member is then scored on the other half. `latency_at_half_point` and
`latency_at_one_and_half_points` are the least latencies, in units of the dense model's, of members that lose at most
0.5 and 1.5 points there; latency is that of batch 1 and 32 tokens by this machine's table. In `chosen_unseen_...` the
member is chosen by its search score alone: the fastest that loses no more there, and what it then loses on the holdout.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.recording import record
from benchmarks.search_runs import Bench
from controller.samplers.frontier import make_frontier
from workers.protocol import Split, TrialRequest

_BUDGET = 128


def main() -> None:
    """Search, score the front on the holdout and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="keeps what was measured; else a scratch one")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(arguments.model, folder)
        # The last proposal may not exceed the budget, and the dense model takes one evaluation.
        curve = bench.search("frontier", make_frontier, seed=arguments.seed, budget=_BUDGET - 2)
        scored = [bench.member(n + 1, policy, bench.score(policy)) for n, policy in enumerate(curve.policies)]
        front = bench.front([bench.dense, *scored])
        policies = {policy.digest: policy for policy in [bench.space.dense_policy(), *curve.policies]}
        rows = []
        for member in front:
            request = TrialRequest(trial=0, attempt="", policy=policies[member.policy_digest], split=Split.HOLDOUT)
            holdout = bench.worker.evaluate(request).scores.quality.value
            rows.append(
                {"latency": member.latency_ms / bench.dense.latency_ms, "search": member.quality, "holdout": holdout}
            )
            sys.stderr.write(f"{rows[-1]}\n")
        dense_request = TrialRequest(trial=0, attempt="", policy=bench.space.dense_policy(), split=Split.HOLDOUT)
        dense = bench.worker.evaluate(dense_request).scores.quality.value
    figures: dict[str, Any] = {
        "latency_at_half_point": _least(rows, dense, 0.005),
        "latency_at_one_and_half_points": _least(rows, dense, 0.015),
        "evaluations": round(curve.points[-1][0] + 1, 3),
    }
    for name, drop in (("half_point", 0.005), ("one_and_half_points", 0.015)):
        within = [row for row in rows if row["search"] >= bench.dense.quality - drop]
        chosen = min(within, key=lambda row: row["latency"])
        figures[f"chosen_unseen_{name}"] = [round(chosen["latency"], 4), round(dense - chosen["holdout"], 4)]
    record(f"front_quality-{bench.name}", figures, details={"dense_holdout": dense, "front": rows})


def _least(rows: list[dict[str, float]], dense: float, drop: float) -> float:
    return round(min(row["latency"] for row in rows if row["holdout"] >= dense - drop - 1e-9), 4)


if __name__ == "__main__":
    main()
