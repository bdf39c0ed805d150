"""Models and data that compression is measured on: one of the shared folder's, or one trained on digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor

from evaluators.quality import QualityEvaluator, StackedCalls, stack_calls
from evaluators.scores import Quality
from examples.digits import train_digits_model, write_digits
from examples.digits_resnet import train_digits_resnet
from search_spaces.policy import Policy
from workers.assemble import Assembler
from workers.calibrate import Calibration
from workers.data import Columns, DataConfig, load_splits
from workers.model import LoadedModel, ModelConfig, load_model


class Digits(StrEnum):
    """Models that are trained on scikit-learn's digits."""

    RESNET = "digits-resnet"
    VIT = "digits-vit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model with its calibration and evaluation data.

    Attributes:
        name: Name of the model.
        config: Where it lies.
        loaded: The dense model.
        calls: Calibration examples, a call of the target each.
        targets: What their outputs are compared with.
        evaluator: Scores models on the evaluation examples; knows the dense model's outputs.
    """

    name: str
    config: ModelConfig
    loaded: LoadedModel
    calls: Sequence[StackedCalls]
    targets: Sequence[Tensor]
    evaluator: QualityEvaluator

    def calibration(self) -> Calibration:
        """What compression learns from the calibration examples, nothing of it computed yet."""
        dense = load_model(self.config).model
        return Calibration(self.loaded.structure.units, self.calls, lambda: dense, targets=self.targets)

    def evaluate(self, assembler: Assembler, policy: Policy) -> Quality:
        """Score a policy."""
        assembler.apply(policy)
        return self.evaluator.evaluate(assembler.logits)


def load_case(model: Path | Digits | None, folder: Path, *, evaluation: int | None = None, seed: int = 0) -> Case:
    """Read a model and its data.

    Args:
        model: A folder of the shared models (minilm-sst2, glm-tiny), or what is trained on digits; None is the ResNet.
        folder: Takes what is trained.
        evaluation: Examples to score on, 2 or more; None takes what the case has.
        seed: Seed of what is trained.
    """
    model = Digits.RESNET if model is None else model
    if isinstance(model, Digits):
        config, data = _digits(model, folder, seed)
    elif model.name.startswith("glm"):
        config, data = _text(model)
    else:
        config, data = _sentences(model)
    if evaluation is not None:
        data = data.model_copy(update={"search": evaluation})
    loaded = load_model(config)
    splits = load_splits(data, loaded.task, seed=0)
    evaluator = QualityEvaluator(loaded.task, (*splits.search, *splits.holdout), batch=1)
    calls = stack_calls(loaded.task, splits.calibration, batch=1)
    with torch.inference_mode():
        evaluator.set_dense(evaluator.run(lambda inputs, _: loaded.model(**inputs).logits))
    return Case(
        name=model.value if isinstance(model, Digits) else model.name,
        config=config,
        loaded=loaded,
        calls=calls,
        targets=[loaded.task.targets([splits.calibration[row] for row in call.rows]) for call in calls],
        evaluator=evaluator,
    )


def _sentences(model: Path) -> tuple[ModelConfig, DataConfig]:
    """SST-2: the whole development set is evaluated on."""
    source = model.parents[1] / "data" / "sst2"
    return ModelConfig(id=str(model)), DataConfig(
        source=str(source / "dev.tsv"),
        columns=Columns(input="sentence"),
        calibration_source=str(source / "calibration.tsv"),
        calibration=512,
        search=871,
        holdout=1,
        max_length=64,
        shuffle=False,
    )


def _text(model: Path) -> tuple[ModelConfig, DataConfig]:
    """WikiText-2, windows of 256 bytes drawn at random."""
    source = model.parents[1] / "data" / "wikitext2" / "valid.txt"
    return ModelConfig(id=str(model), task="causal-lm"), DataConfig(
        source=str(source), calibration=96, search=192, holdout=1, max_length=256
    )


def _digits(model: Digits, folder: Path, seed: int) -> tuple[ModelConfig, DataConfig]:
    """scikit-learn's digits; the model has seen the calibration images in training."""
    write_digits(folder / "data")
    train = train_digits_resnet if model is Digits.RESNET else train_digits_model
    train(folder / "data", folder / model.value, seed=seed)
    return ModelConfig(id=str(folder / model.value), task="image-classification"), DataConfig(
        source=str(folder / "data/test.jsonl"),
        columns=Columns(input="image"),
        calibration_source=str(folder / "data/train.jsonl"),
        calibration=256,
        search=400,
        holdout=1,
    )
