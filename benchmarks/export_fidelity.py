"""What was searched is what ships: policies are exported, reloaded and set beside the searched models.

    python -m benchmarks.export_fidelity
    python -m benchmarks.export_fidelity --model ../shared/models/minilm-sst2

The first exports policies of mixed formats, pruned widths and branches left out of four models to ONNX and to Hugging
Face folders: `exported` counts them, `equal` those whose two forms both agree with what was searched (largest
difference of a logit at most 1e-4 where nothing is quantized, else cosine at least 0.995; accuracy within 0.3 points,
perplexity within 0.5 %). Models of the shared folder are left out where there is none.

With --model (a folder, or `digits`) artifacts of one model are verified in a fresh process and timed as well: `equal`
counts those released, `max_metric_gap` is the largest gap of the metric (fraction of 1), `max_latency_error` the
largest error of the predicted latency against the measured one (fraction).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import Digits, load_case
from benchmarks.export_forms import compare_exports
from benchmarks.jobs import job_for
from benchmarks.recording import record
from controller.preparation import describe, price
from search_spaces.policy import Policy
from workers.export.artifact import METRIC_TOLERANCE, ArtifactError, ExportRequest, export_artifact
from workers.export.report import ExportReport
from workers.trial import TrialWorker

_SHARED = Path(__file__).parents[2] / "shared"
_SHARED_MODELS = ("minilm-sst2", "glm-tiny")
_EXAMPLES = {"glm-tiny": 32}
"""Examples that are scored where not all are: windows of 256 bytes here."""


def main() -> None:
    """Export policies and print how well they agree with the search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of one model, or digits: artifacts are verified and timed")
    parser.add_argument("--cases", nargs="+", default=[*Digits, *_SHARED_MODELS], help="models for the two forms")
    parser.add_argument("--policies", type=int, help="of each model; 8, or 5 with --model")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.model is None:
        _both_forms(arguments.cases, arguments.policies or 8, arguments.seed)
    else:
        model = None if arguments.model == "digits" else Path(arguments.model)
        _artifacts(model, arguments.policies or 5, arguments.seed)


def _both_forms(cases: list[str], policies: int, seed: int) -> None:
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in cases:
        model = Digits(name) if name in list(Digits) else _SHARED / "models" / name
        if isinstance(model, Path) and not model.is_dir():
            sys.stderr.write(f"{name}: left out, there is no {model}\n")
            continue
        with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as folder:
            case = load_case(model, Path(folder), evaluation=_EXAMPLES.get(name))
            found[name] = compare_exports(case, policies=policies, folder=Path(folder), seed=seed)
        for row in found[name]:
            sys.stderr.write(f"{name}: {row}\n")
    rows = [row for part in found.values() for row in part]
    whole = set(cases) >= {*Digits, *_SHARED_MODELS}
    record(
        "export_fidelity" if whole else f"export_fidelity-{'-'.join(cases)}-forms",
        {
            "exported": len(rows),
            "equal": sum(row["onnx"]["equal"] and row["huggingface"]["equal"] for row in rows),
            "onnx_min_cosine": min(row["onnx"]["cosine"] for row in rows),
            "onnx_max_difference_unquantized": max(
                (row["onnx"]["max_difference"] for row in rows if not row["quantized"]), default=None
            ),
            "huggingface_max_difference": max(row["huggingface"]["max_difference"] for row in rows),
            "max_metric_gap": max(abs(row[form]["metric_gap"]) for row in rows for form in ("onnx", "huggingface")),
        },
        details={"models": found},
    )


def _artifacts(model: Path | None, policies: int, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as folder:
        job = job_for(model, Path(folder))
        description = describe(job)
        priced = price(job, description, _show)
        worker = TrialWorker(description.spec)
        generator = random.Random(seed)
        reports: list[ExportReport] = []
        failures = []
        for number in range(policies):
            policy = priced.description.space.random_policy(generator)
            try:
                reports.append(_export(worker, policy, number, Path(folder)))
            except ArtifactError as error:
                failures.append(str(error))
                sys.stderr.write(f"policy {number}: {error}\n")
                continue
            _describe(number, reports[-1])
    gaps = [abs(report.metric_gap) for report in reports]
    errors = [abs(report.latency_error) for report in reports if report.latency_error is not None]
    record(
        f"export_fidelity-{job.name}",
        {
            "exported": policies,
            "equal": len(reports),
            "max_metric_gap": max(gaps, default=None),
            "max_latency_error": max(errors, default=None),
        },
        details={
            "metric_tolerance": METRIC_TOLERANCE,
            "failures": failures,
            "policies": [report.model_dump(mode="json") for report in reports],
        },
    )


def _export(worker: TrialWorker, policy: Policy, number: int, folder: Path) -> ExportReport:
    return export_artifact(
        worker,
        ExportRequest(
            spec=worker.spec,
            study="export_fidelity",
            trial=number,
            policy=policy,
            out=folder / f"artifact-{number}",
            render_card=lambda report: report.policy_digest,
        ),
    )


def _describe(number: int, report: ExportReport) -> None:
    holdout = report.splits["holdout"]
    error = "" if report.latency_error is None else f" ({report.latency_error:+.1%})"
    sys.stderr.write(
        f"policy {number}: searched {holdout.searched_metric:.4f}, exported {holdout.metric:.4f}, cosine "
        f"{holdout.cosine:.6f}; predicted {report.latency_predicted_ms:.3f} ms, measured "
        f"{report.latency_measured_ms:.3f} ms{error}\n"
    )


def _show(stage: str, done: int, total: int) -> None:
    if done == total:
        sys.stderr.write(f"{stage}: {total}\n")


if __name__ == "__main__":
    main()
