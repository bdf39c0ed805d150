"""Proof of an artifact, in a process of its own: its runtime loads it, it is scored, timed and counted.

Run as `python -m workers.export.verify REQUEST.json`; the measurement is written where the request says.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from workers.export.early_exit.record import ExitMeasurement
from workers.export.measurement import ClassReport, Measurement, SplitMeasurement, VerifyRequest
from workers.export.throughput import clients_for, measure_throughput
from workers.protocol import Split
from workers.targets.base import TARGETS
from workers.targets.device import DEVICES, RunningModel
from workers.targets.timing import TimingStats, summarise

if TYPE_CHECKING:
    from torch import Tensor

    from evaluators.quality import Forward, Outputs, QualityEvaluator
    from evaluators.tasks import Task
    from workers.data import Splits

WHOLE = "whole_"
"""Stands in front of a split's name where outputs are of the model without its early exit."""
_ROUNDS = 5
_RUNS_A_ROUND = 40


class VerifyError(RuntimeError):
    """The artifact could not be loaded or run in a process of its own."""


def verify_in_fresh_process(request: VerifyRequest, *, timeout_s: float = 1800) -> Measurement:
    """Start a process that loads the artifact, and read what it measured.

    Raises:
        VerifyError: The process failed or took longer than `timeout_s`; the message ends with its last lines.
    """
    path = request.measurement.with_suffix(".request.json")
    # -P keeps packages in the user's folder from hiding ours.
    path.write_text(request.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "workers.export.verify", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout_s)  # noqa: S603
        return Measurement.model_validate_json(request.measurement.read_text(encoding="utf-8"))
    except subprocess.CalledProcessError as error:
        last = "\n".join(str(error.stderr).strip().splitlines()[-5:])
        raise VerifyError(
            f"the artifact does not run in a process of its own (exit code {error.returncode}):\n{last}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise VerifyError(
            f"the artifact took longer than {timeout_s:g} s to be verified; use fewer examples"
        ) from error
    finally:
        path.unlink(missing_ok=True)


def measure(request: VerifyRequest) -> Measurement:
    """Load the artifact here, score it and time it."""
    import torch

    from workers.data import load_splits
    from workers.export.recount import count_files
    from workers.model import ModelConfig, load_task

    torch.set_num_threads(1)
    task = load_task(ModelConfig(id=str(request.artifact), task=request.task))
    splits = load_splits(request.data, task, seed=request.seed)
    device = DEVICES.get(request.target)(request.threads)
    inputs = task.random_inputs(request.batch, request.sequence_length, seed=0)
    before = _resident_bytes()
    running = device.open(request.artifact)
    running.logits(inputs)
    loaded, peak = _resident_bytes() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    scoring = _Scoring(request, task, splits)
    found = {split.value: scoring.compare(running.logits, split) for split in request.splits}
    classes = scoring.classes()
    folder = _score_folder(request, scoring) if request.folder_too else None
    timed = request.artifact if request.whole is None else request.whole
    models = [running if request.whole is None else device.open(request.whole)]
    models += [] if request.dense is None else [device.open(request.dense)]
    timing = _time_in_turn(models, inputs)
    throughput = measure_throughput(
        lambda: partial(device.open(timed).logits, inputs),
        clients=clients_for(request.threads),
        examples=request.batch,
    )
    return Measurement(
        splits=found,
        folder=folder,
        classes=classes,
        latency_ms=timing[0].median_ms,
        latency_undisturbed_ms=timing[0].undisturbed_ms,
        latency_p99_ms=timing[0].p99_ms,
        latency_spread_ms=timing[0].spread_ms,
        dense_latency_ms=timing[1].median_ms if len(timing) > 1 else None,
        throughput=throughput,
        weights=count_files(request.artifact, TARGETS.get(request.target).form),
        file_bytes=sum(path.stat().st_size for path in running.files),
        loaded_bytes=loaded,
        peak_memory_bytes=peak,
        runtime=running.runtime,
        early_exit=None if request.whole is None else _measure_exit(request, task, splits, [running, *models]),
    )


def _score_folder(request: VerifyRequest, scoring: _Scoring) -> SplitMeasurement:
    """Score the Hugging Face form, which has no early exit."""
    known = "" if request.whole is None else WHOLE
    return scoring.compare(_folder_logits(request.artifact), request.splits[-1], known=known)


def _measure_exit(
    request: VerifyRequest, task: Task, splits: Splits, models: Sequence[RunningModel]
) -> ExitMeasurement:
    from workers.export.early_exit.measure import measure_exit

    by_name = {split.value: getattr(splits, split.value) for split in request.splits}
    return measure_exit(models, request.artifact, task, by_name, threads=request.threads)


class _Scoring:
    """Scores models on splits, beside what was searched.

    Args:
        request: Where the searched outputs lie.
        task: The task.
        splits: The examples.
    """

    def __init__(self, request: VerifyRequest, task: Task, splits: Splits) -> None:
        self._request, self._task, self._splits = request, task, splits
        self._last: tuple[Split, Outputs] | None = None

    def compare(
        self, logits: Callable[[Mapping[str, Tensor]], Tensor], split: Split, *, known: str = ""
    ) -> SplitMeasurement:
        """Score a model on a split, call by call as it is deployed.

        Args:
            logits: The model.
            split: The split.
            known: What stands in front of the split's name where the searched outputs lie.
        """
        import numpy as np
        import torch

        from evaluators.quality import Outputs, QualityEvaluator

        evaluator = QualityEvaluator(self._task, getattr(self._splits, split.value), batch=self._request.batch)
        outputs = evaluator.run(forward_of(logits))
        self._last = split, outputs
        with np.load(self._request.logits) as searched:
            expected = Outputs(
                per_example_N=torch.from_numpy(searched[f"{known}{split.value}_scores"]),
                logits_MC=torch.from_numpy(searched[f"{known}{split.value}"]),
                seconds=0.0,
            )
        return _compare(evaluator, expected, outputs)

    def classes(self) -> ClassReport | None:
        """The split that was scored last, class by class; None where answers are no classes."""
        import numpy as np

        from workers.export.classes import class_report

        if self._last is None or not self._task.right_or_wrong:
            return None
        split, outputs = self._last
        labels = [example.label for example in getattr(self._splits, split.value)]
        answers_NC = outputs.logits_MC
        if not all(isinstance(label, int) for label in labels) or answers_NC.shape[0] != len(labels):
            return None
        names = _class_names(self._request.artifact, answers_NC.shape[1])
        return class_report(np.array(labels), answers_NC.argmax(1).numpy(), names)


def forward_of(logits: Callable[[Mapping[str, Tensor]], Tensor]) -> Forward:
    """Run a model as an evaluator asks for it: stacked examples are cut into the calls that they belong to."""
    import torch

    def forward(inputs: Mapping[str, Tensor], examples_per_call: int) -> Tensor:
        calls = range(0, len(next(iter(inputs.values()))), examples_per_call)
        parts = [logits({name: tensor[at : at + examples_per_call] for name, tensor in inputs.items()}) for at in calls]
        return torch.cat(parts)

    return forward


def _class_names(folder: Path, count: int) -> list[str]:
    known = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label") or {}
    return [str(known.get(str(index), index)) for index in range(count)]


def _folder_logits(folder: Path) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """The model that `paretrim.load` gives, as it is called."""
    import torch

    from workers.export.loading import load_folder

    model = load_folder(folder)

    def logits(inputs: Mapping[str, Tensor]) -> Tensor:
        with torch.inference_mode():
            found: Tensor = model(**inputs).logits
        return found

    return logits


def _resident_bytes() -> int:
    """Resident memory of this process now; its largest so far where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def _time_in_turn(models: Sequence[RunningModel], inputs: Mapping[str, Tensor]) -> list[TimingStats]:
    """Time the artifact, and the dense model in turn with it so that a drift of the clock hits both."""
    import numpy as np

    times_ms: list[list[float]] = [[] for _ in models]
    quiet_ms: list[list[float]] = [[] for _ in models]
    for _ in range(_ROUNDS):
        for place, model in enumerate(models):
            times_ms[place].extend(model.time(inputs, runs=_RUNS_A_ROUND))
            quiet_ms[place].extend(model.time(inputs, runs=_RUNS_A_ROUND, quiet=True))
    return [summarise(np.array(all_ms), np.array(some_ms)) for all_ms, some_ms in zip(times_ms, quiet_ms, strict=True)]


def _compare(evaluator: QualityEvaluator, searched: Outputs, exported: Outputs) -> SplitMeasurement:
    import torch

    searched_NC, exported_NC = searched.logits_MC, exported.logits_MC
    difference_NC = (searched_NC - exported_NC).abs()
    cosine = torch.nn.functional.cosine_similarity(searched_NC.flatten(), exported_NC.flatten(), dim=0)
    return SplitMeasurement(
        examples=len(exported.per_example_N),
        metric=evaluator.score(exported).value,
        searched_metric=evaluator.score(searched).value,
        max_logit_difference=float(difference_NC.max()),
        mean_logit_difference=float(difference_NC.mean()),
        cosine=float(cosine),
    )


def main(path: str) -> None:
    """Measure what the request file asks for."""
    request = VerifyRequest.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))
    request.measurement.write_text(measure(request).model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
