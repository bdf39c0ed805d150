"""What recovery wins back of the accuracy that compression to a quarter of the dense latency cost.

    python -m benchmarks.recovery --model ../shared/models/minilm-sst2

The policy keeps the same share of every unit in w8a8, as large as 0.25 times the dense latency allows. It is trained on
`train.tsv` with distillation and rounding during training, without either, and with neither. `recovered_share` is the
share of the lost accuracy that the first wins back, on both halves of the dev set; `recovered_share_holdout` on the
half that no training step and no choice has seen.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.jobs import job_for
from benchmarks.recording import record
from controller.preparation import describe, price
from search_spaces.policy import Choice, Policy
from search_spaces.units import UnitKind
from workers.protocol import Split
from workers.recover import RecoveryReport, recover
from workers.recovery.config import QuantizationMode, RecoveryConfig
from workers.trial import TrialWorker

LATENCY_RATIO = 0.25
FORMAT = "w8a8"
_SHARES = tuple(share / 48 for share in range(48, 0, -1))


def main() -> None:
    """Train and print what was won back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path(".paretrim/benchmarks/recovery"), help="table and variants")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--examples", type=int, help="training examples; all without it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ratio", type=float, default=LATENCY_RATIO, help="latency over the dense one")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    job = job_for(arguments.model, arguments.folder)
    priced = price(job, describe(job), _show)
    worker = TrialWorker(replace(priced.description.spec, threads=arguments.threads))
    policy = quarter_policy(worker, arguments.ratio)
    dense = worker.space.dense_policy()
    dense_metric = _metrics(worker, dense)
    base = RecoveryConfig(
        source=str(arguments.model.parents[1] / "data" / "sst2" / "train.tsv"),
        epochs=arguments.epochs,
        examples=arguments.examples,
        hidden=1.0,
    )
    ways = {
        "distillation_and_qat": base,
        "without_distillation": base.model_copy(update={"beta": 0.0, "hidden": 0.0}),
        "without_qat": base.model_copy(update={"quantization": QuantizationMode.OFF}),
        "with_neither": base.model_copy(update={"beta": 0.0, "hidden": 0.0, "quantization": QuantizationMode.OFF}),
    }
    details, shares = {}, {}
    for name, config in ways.items():
        started = time.monotonic()
        report = recover(worker, policy, config, lambda done, total: _show("training", done, total)).report
        shares[name] = _share(worker, report, dense_metric)
        details[name] = {**report.model_dump(mode="json"), "seconds": time.monotonic() - started}
        sys.stderr.write(f"{name}: {report.before} -> {report.after}, dense {dense_metric}, shares {shares[name]}\n")
    ratio = worker.costs.costs(policy).latency_ms / worker.costs.costs(dense).latency_ms
    record(
        f"recovery-{job.name}",
        {
            "recovered_share": shares["distillation_and_qat"]["both"],
            "recovered_share_holdout": shares["distillation_and_qat"]["holdout"],
            **{name: found["both"] for name, found in shares.items() if name != "distillation_and_qat"},
            "latency_ratio": round(ratio, 4),
            "epochs": arguments.epochs,
        },
        details={"dense": dense_metric, "trainings": details},
    )


def quarter_policy(worker: TrialWorker, ratio: float) -> Policy:
    """The uniform policy in w8a8 that keeps as much as the latency allows.

    Raises:
        ValueError: Not even the smallest is as fast.
    """
    target = ratio * worker.costs.costs(worker.space.dense_policy()).latency_ms
    for share in _SHARES:
        policy = _uniform(worker, share)
        if worker.costs.costs(policy).latency_ms <= target:
            return policy
    raise ValueError(f"a uniform policy must reach {target:.4g} ms; none does; raise --ratio")


def _uniform(worker: TrialWorker, share: float) -> Policy:
    choices = {}
    for unit in worker.structure.units:
        offered = worker.space.choices(unit.name)
        if unit.kind is UnitKind.EMBEDDING:
            choices[unit.name] = worker.space.dense_policy()[unit.name]
            continue
        kept = [choice for choice in offered if choice.format == FORMAT and choice.keep]
        nearest = min(kept, key=lambda choice: abs(choice.keep / unit.groups - share))
        choices[unit.name] = Choice(nearest.keep, FORMAT)
    return Policy(choices)


def _metrics(worker: TrialWorker, policy: Policy) -> dict[str, float]:
    model = worker.separate_model(policy)
    return {split.value: worker.quality_of(model, split).value for split in (Split.SEARCH, Split.HOLDOUT)}


def _share(worker: TrialWorker, report: RecoveryReport, dense: Mapping[str, float]) -> dict[str, float]:
    """Share of the loss that was won back, on both splits together and on the holdout."""
    sizes = {"search": len(worker.splits.search), "holdout": len(worker.splits.holdout)}

    def total(metrics: Mapping[str, float]) -> float:
        return sum(sizes[name] * metrics[name] for name in sizes) / sum(sizes.values())

    def won(before: float, after: float, whole: float) -> float:
        return round((after - before) / (whole - before), 4) if whole > before else 0.0

    before, after = report.before, report.after
    return {
        "both": won(total(before), total(after), total(dense)),
        "holdout": won(before["holdout"], after["holdout"], dense["holdout"]),
    }


def _show(stage: str, done: int, total: int) -> None:
    sys.stderr.write(f"{stage}: {done} of {total}\n")


if __name__ == "__main__":
    main()
