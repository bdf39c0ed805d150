"""How wrong predicted latencies are: random policies, predicted from a table and measured end to end.

    python -m benchmarks.latency_error --model ../shared/models/minilm-sst2 --target cpu-onnxruntime

For each workload a table of the model's default space is measured (or taken from --folder), with its correction. Then
policies are drawn whose latencies are uniform over the range from dense to smallest, none of them one that the
correction was fitted on, and timed end to end in many interleaved rounds; times are those of undisturbed runs.
`median_error_pct` and `p90_error_pct` are of the absolute errors, `kendall_tau` is the rank correlation of predicted
and measured times, `inside_interval` the share of policies whose measured time lies in the interval of its prediction,
which 90 % are expected to; each is the worst of the workloads, and `by_workload` has them apart, with the width of the
interval (`interval_pct`, either way).
`uncorrected_median_error_pct` is what plain sums of operators err by. `profiled_s` is the time that the table took with
its correction, exports included (nothing where --folder has it), `resumed_s` that of asking for it again.
Without --model a vision transformer on digits, whose tokens the model fixes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from benchmarks.recording import record
from controller.tables.measuring import TableRequest, measure_table
from evaluators.latency.lookup import LatencyPrediction, LatencyPredictor
from evaluators.latency.table import LatencyTable
from examples.digits import train_digits_model, write_digits
from search_spaces.policy import Policy
from search_spaces.space import SpaceConfig, build_space
from workers.model import ModelConfig, load_model, load_structure
from workers.profile import required_operators
from workers.profiling.policies import mixed_policies
from workers.profiling.whole import time_models
from workers.targets import TARGETS, TargetConfig
from workers.targets.device import DEVICES
from workers.trial import workload_of
from workers.whole_models import export_whole_models

_FIGURES = (
    "median_error_pct",
    "p90_error_pct",
    "kendall_tau",
    "inside_interval",
    "interval_pct",
    "profiled_s",
    "resumed_s",
)
_WORKLOADS = ((1, 32), (8, 64))


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the model; a vision transformer on digits without it")
    parser.add_argument("--target", default="cpu-onnxruntime")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--policies", type=int, default=30)
    parser.add_argument("--batch", type=int, help="one workload in place of batch 1 of 32 and 8 of 64 tokens")
    parser.add_argument("--sequence-length", type=int, help="its tokens; left out for images")
    parser.add_argument("--rounds", type=int, default=40, help="passes over the policies")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of a policy in a pass")
    parser.add_argument("--folder", type=Path, help="keeps the tables; else a scratch one")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        name, model = _model(arguments.model, folder)
        rows = [
            _compare(_request(model, target, folder), arguments)
            for target in _targets(arguments, fixed=load_structure(model).tokens is not None)
        ]
    _print(f"latency_error-{name}-{arguments.target}", rows)


def _model(path: Path | None, folder: Path) -> tuple[str, ModelConfig]:
    if path is None:
        if not (folder / "model" / "model.safetensors").exists():
            write_digits(folder / "data")
            train_digits_model(folder / "data", folder / "model")
        return "digits-vit", ModelConfig(id=str(folder / "model"), task="image-classification")
    task = "causal-lm" if path.name.startswith("glm") else "text-classification"
    return path.name, ModelConfig(id=str(path), task=task)


def _targets(arguments: argparse.Namespace, *, fixed: bool) -> list[TargetConfig]:
    """One a workload; `fixed` says that the model fixes the tokens."""
    workloads = _WORKLOADS if arguments.batch is None else ((arguments.batch, arguments.sequence_length),)
    return [
        TargetConfig(
            name=arguments.target,
            batch=batch,
            sequence_length=None if fixed else length,
            threads=arguments.threads,
        )
        for batch, length in workloads
    ]


def _request(model: ModelConfig, target: TargetConfig, folder: Path) -> TableRequest:
    structure, declared = load_structure(model), TARGETS.get(target.name)
    space = build_space(
        structure, SpaceConfig(), target_formats=declared.formats, channel_multiple=declared.channel_multiple
    )
    workload = workload_of(target, structure)
    return TableRequest(
        model=model,
        target=target,
        space=space,
        workload=workload,
        operators=required_operators(space, workload),
        out=folder / f"{target.name}-{target.threads}t.json",
    )


def _compare(request: TableRequest, arguments: argparse.Namespace) -> dict[str, Any]:
    """Predict and measure the policies of one workload."""
    table, profiled_s = _measured(request)
    again, resumed_s = _measured(request)
    assert again == table
    predictor = LatencyPredictor(table, request.workload, structure=request.space.structure)
    plain = LatencyPredictor(table.model_copy(update={"corrections": ()}), request.workload)
    policies = _policies(request, plain, arguments.policies, arguments.seed)
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as folder:
        device = DEVICES.get(request.target.name)(request.target.threads)
        models = list(
            export_whole_models(
                load_model(request.model),
                policies,
                request.workload,
                device,
                Path(folder),
                progress=lambda done, total: _say(f"exported {done} of {total}", done % 10 == 0),
            )
        )
        measured = time_models(
            [model.timed for model in models],
            threads=request.target.threads,
            rounds=arguments.rounds,
            runs=arguments.runs,
            progress=lambda done, total: _say(f"timed {done} of {total}", done % 100 == 0),
        )
    structure = request.space.structure
    predicted = [predictor.predict(structure, policy) for policy in policies.values()]
    sums = [plain.policy_ms(structure, policy) for policy in policies.values()]
    return {
        "workload": f"{request.workload.batch}x{request.workload.sequence_length}",
        **_errors([p.latency_ms for p in predicted], measured),
        "uncorrected_median_error_pct": _errors(sums, measured)["median_error_pct"],
        "inside_interval": _inside(predicted, measured),
        "interval_pct": None if predictor.correction is None else predictor.correction.margin_pct,
        "profiled_s": round(profiled_s, 1),
        "resumed_s": round(resumed_s, 2),
        "correction": _correction(table, request),
        "notes": table.provenance.notes,
        "policies": [
            {"policy": digest, "sum_ms": raw, "predicted_ms": p.latency_ms, "measured_ms": ms}
            for digest, raw, p, ms in zip(policies, sums, predicted, measured, strict=True)
        ],
    }


def _measured(request: TableRequest) -> tuple[LatencyTable, float]:
    """The table, and the seconds that it took."""
    started = time.monotonic()
    table = measure_table(request, lambda stage, done, total: _say(f"{stage} {done} of {total}", done == total))
    return table, time.monotonic() - started


def _policies(request: TableRequest, plain: LatencyPredictor, count: int, seed: int) -> dict[str, Policy]:
    """Different policies by digest."""
    found: dict[str, Policy] = {}
    while len(found) < count:
        drawn = mixed_policies(request.space, plain, count - len(found), seed=seed, uniform=True)
        found |= {policy.digest: policy for policy in drawn}
        seed += 1
    return found


def _errors(predicted_ms: list[float], measured_ms: list[float]) -> dict[str, float]:
    errors = 100 * np.abs(np.array(predicted_ms) / np.array(measured_ms) - 1)
    return {
        "median_error_pct": float(np.median(errors)),
        "p90_error_pct": float(np.quantile(errors, 0.9)),
        "max_error_pct": float(errors.max()),
        "kendall_tau": float(kendalltau(predicted_ms, measured_ms).statistic),
    }


def _inside(predicted: list[LatencyPrediction], measured_ms: list[float]) -> float | None:
    """Share of the measured times that lie in the interval of their prediction; None where there is none."""
    inside = [
        p.low_ms <= ms <= p.high_ms
        for p, ms in zip(predicted, measured_ms, strict=True)
        if p.low_ms is not None and p.high_ms is not None
    ]
    return float(np.mean(inside)) if inside else None


def _correction(table: LatencyTable, request: TableRequest) -> Mapping[str, Any]:
    fit = table.correction(request.workload, request.space.structure)
    return {} if fit is None else fit.model_dump(mode="json")


def _print(name: str, rows: list[dict[str, Any]]) -> None:
    figures = {
        "median_error_pct": max(row["median_error_pct"] for row in rows),
        "p90_error_pct": max(row["p90_error_pct"] for row in rows),
        "kendall_tau": min(row["kendall_tau"] for row in rows),
        "inside_interval": min((share for row in rows if (share := row["inside_interval"]) is not None), default=None),
        "by_workload": {
            row["workload"]: {key: round(row[key], 3) for key in _FIGURES if row[key] is not None} for row in rows
        },
    }
    record(
        name, {key: round(x, 3) if isinstance(x, float) else x for key, x in figures.items()}, details={"rows": rows}
    )


def _say(text: str, wanted: bool) -> None:
    if wanted:
        sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
