"""An artifact scored on new data in its own runtime, beside the dense model that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from evaluators.quality import QualityEvaluator
from evaluators.scores import QualityMeasure
from search_spaces.architectures import UnsupportedModelError
from workers.data import DataConfig, load_rows
from workers.export.verify import forward_of
from workers.model import ModelConfig, ModelError, load_model, load_task
from workers.targets.device import DEVICES
from workers.trial import run_model


@dataclass(frozen=True, slots=True, kw_only=True)
class RescoreRequest:
    """What to score.

    Attributes:
        artifact: Folder of the artifact.
        target: Name of the target whose runtime reads it.
        model: The dense model that it was made from.
        data: The new data, with absolute paths; all its rows are scored.
        examples: Most rows that are scored, drawn at random; None for all.
        seed: Seed of the draw.
        batch: Examples in one call, as the artifact was verified.
        threads: Threads of the runtime.
        measure: What quality is.
    """

    artifact: Path
    target: str
    model: ModelConfig
    data: DataConfig
    examples: int | None = None
    seed: int = 0
    batch: int = 1
    threads: int = 1
    measure: QualityMeasure = QualityMeasure.METRIC


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """Scores on the new data, example by example in one order.

    Attributes:
        metric: Name of what was measured.
        examples: Examples that were scored.
        model: Quality of the artifact on each; empty where fidelity is asked for and the dense model is out of reach.
        dense: Quality of the dense model on each; None where it is out of reach.
        unreachable: Why the dense model is out of reach; None where it is not.
    """

    metric: str
    examples: int
    model: tuple[float, ...]
    dense: tuple[float, ...] | None
    unreachable: str | None = None


def rescore(request: RescoreRequest) -> Rescored:
    """Score the artifact, and the dense model where it can be read.

    Raises:
        DataError: The data can't be read, or have no row.
        TaskError: An input or label does not fit the model.
        ModelError: The artifact has no configuration or tokenizer that can be read.
    """
    task = load_task(ModelConfig(id=str(request.artifact), task=request.model.task))
    examples = load_rows(request.data, task, examples=request.examples, seed=request.seed)
    evaluator = QualityEvaluator(task, examples, batch=request.batch, measure=request.measure)
    running = DEVICES.get(request.target)(request.threads).open(request.artifact)
    outputs = evaluator.run(forward_of(running.logits))
    metric = request.measure.name_with(task.metric)
    try:
        dense_outputs = evaluator.run(partial(run_model, load_model(request.model).model))
    except (ModelError, UnsupportedModelError) as error:
        model = () if request.measure is QualityMeasure.FIDELITY else evaluator.score(outputs).per_example
        return Rescored(metric=metric, examples=len(examples), model=model, dense=None, unreachable=str(error))
    evaluator.set_dense(dense_outputs)
    return Rescored(
        metric=metric,
        examples=len(examples),
        model=evaluator.score(outputs).per_example,
        dense=evaluator.score(dense_outputs).per_example,
    )
