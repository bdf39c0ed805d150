"""What was searched is what ships: random policies are exported, reloaded in a fresh process, scored and timed.

    python -m benchmarks.export_fidelity --model ../shared/models/minilm-sst2

Without --model the digits transformer of the demonstration is trained and used. `equal` counts artifacts whose metric
lies within tolerance of the searched one and whose logits agree; `max_metric_gap` is the largest gap of the metric
(fraction of 1), `max_latency_error` the largest error of the predicted latency against the measured one (fraction).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from benchmarks.jobs import job_for
from benchmarks.recording import record
from controller.preparation import describe, price
from search_spaces.policy import Policy
from workers.export.artifact import METRIC_TOLERANCE, ArtifactError, ExportReport, ExportRequest, export_artifact
from workers.trial import TrialWorker


def main() -> None:
    """Export policies and print how well they agree with the search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the model; the digits transformer without it")
    parser.add_argument("--policies", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as folder:
        job = job_for(arguments.model, Path(folder))
        description = describe(job)
        priced = price(job, description, _show)
        worker = TrialWorker(description.spec)
        generator = random.Random(arguments.seed)
        reports: list[ExportReport] = []
        failures = []
        for number in range(arguments.policies):
            policy = priced.description.space.random_policy(generator)
            try:
                reports.append(_export(worker, policy, number, Path(folder)))
            except ArtifactError as error:
                failures.append(str(error))
                sys.stderr.write(f"policy {number}: {error}\n")
                continue
            _describe(number, reports[-1])
    gaps = [abs(report.metric_gap) for report in reports]
    errors = [abs(report.latency_error) for report in reports]
    record(
        f"export_fidelity-{job.name}",
        {
            "exported": arguments.policies,
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
    sys.stderr.write(
        f"policy {number}: searched {holdout.searched_metric:.4f}, exported {holdout.metric:.4f}, cosine "
        f"{holdout.cosine:.6f}; predicted {report.latency_predicted_ms:.3f} ms, measured "
        f"{report.latency_measured_ms:.3f} ms ({report.latency_error:+.1%})\n"
    )


def _show(stage: str, done: int, total: int) -> None:
    if done == total:
        sys.stderr.write(f"{stage}: {total}\n")


if __name__ == "__main__":
    main()
