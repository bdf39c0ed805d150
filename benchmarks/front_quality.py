"""How far a search without training gets on this CPU, scored on examples that it did not see.

    python -m benchmarks.front_quality --model ../shared/models/minilm-sst2

The search spends at most 128 full-evaluation equivalents on one half of the dev set, probes and the dense model
included; every front member is then scored on the other half. `latency_at_half_point` and
`latency_at_one_and_half_points` are the least latencies, in units of the dense model's, of members that lose at most
0.5 and 1.5 points there, null where none does; latency is that of batch 1 and 32 tokens by this machine's table.
`by_divergence` gives the same of the policies that none beats in divergence from the dense outputs and latency: the
metric of a few hundred examples rewards luck, the divergence hardly. In `chosen_unseen_...` the member is chosen by its
search score alone: the fastest that loses no more there, and what it then loses on the holdout.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.recording import record
from benchmarks.search_runs import Bench
from controller.front import FrontMember
from controller.samplers.frontier import make_frontier
from search_spaces.policy import Policy
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
        policies = {policy.digest: policy for policy in [bench.space.dense_policy(), *curve.policies]}
        by_metric = _on_holdout(bench, bench.front([bench.dense, *scored]), policies)
        faithful = [replace(m, quality=-bench.score(policies[m.policy_digest]).kl_to_dense) for m in scored]
        by_divergence = _on_holdout(bench, bench.front(faithful), policies)
        dense = _holdout(bench, bench.space.dense_policy())
    figures: dict[str, Any] = {
        "latency_at_half_point": _least(by_metric, dense, 0.005),
        "latency_at_one_and_half_points": _least(by_metric, dense, 0.015),
        "evaluations": round(curve.points[-1][0] + 1, 3),
        "by_divergence": [_least(by_divergence, dense, 0.005), _least(by_divergence, dense, 0.015)],
    }
    for name, drop in (("half_point", 0.005), ("one_and_half_points", 0.015)):
        within = [row for row in by_metric if row["search"] >= bench.dense.quality - drop]
        chosen = min(within, key=lambda row: row["latency"])
        figures[f"chosen_unseen_{name}"] = [round(chosen["latency"], 4), round(dense - chosen["holdout"], 4)]
    record(
        f"front_quality-{bench.name}",
        figures,
        details={"dense_holdout": dense, "front": by_metric, "front_by_divergence": by_divergence},
    )


def _on_holdout(bench: Bench, front: list[FrontMember], policies: Mapping[str, Policy]) -> list[dict[str, float]]:
    """Latency, search score and holdout score of each member."""
    rows = []
    for member in front:
        policy = policies[member.policy_digest]
        latency = member.latency_ms / bench.dense.latency_ms
        rows.append({"latency": latency, "search": bench.score(policy).value, "holdout": _holdout(bench, policy)})
        sys.stderr.write(f"{rows[-1]}\n")
    return rows


def _holdout(bench: Bench, policy: Policy) -> float:
    request = TrialRequest(trial=0, attempt="", policy=policy, split=Split.HOLDOUT)
    return bench.worker.evaluate(request).scores.quality.value


def _least(rows: list[dict[str, float]], dense: float, drop: float) -> float | None:
    """The least latency within a drop on the holdout; None where no member is."""
    found = [row["latency"] for row in rows if row["holdout"] >= dense - drop - 1e-9]
    return round(min(found), 4) if found else None


if __name__ == "__main__":
    main()
