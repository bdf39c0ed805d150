"""Recovery: the model of a policy is trained to answer as the dense one does, and ends in the policy's own formats."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from evaluators.scores import QualityMeasure
from evaluators.tasks import Example
from search_spaces.policy import Policy
from workers.data import load_training
from workers.model import load_model
from workers.protocol import Split
from workers.recovery.batches import Teacher, TrainingData
from workers.recovery.config import RecoveryConfig, Sparsity
from workers.recovery.layers import make_trainable, shipped
from workers.recovery.sparse import sparse_worker
from workers.recovery.state import put_back
from workers.recovery.trainer import Setting, Trainer
from workers.trial import TrialWorker
from workers.variant_store import tensor_bytes

RECOVERY_VERSION: Literal[1] = 1
"""Raised whenever a change of the training changes its result, so that stored models of before are trained again."""
_METADATA = "paretrim"

OnProgress = Callable[[int, int], None]
"""(steps done, steps in all)"""


class RecoveryReport(BaseModel):
    """What a training did to a model.

    Attributes:
        schema_version: Version of this form.
        digest: Identity of the trained model: weights, policy, training data and training.
        policy: Canonical JSON of the policy.
        config: The training.
        examples: Training examples.
        steps: Steps in all.
        best_step: Steps after which the model was best on the search split; 0 ships it as it was searched.
        rollbacks: Returns to a good state, as losses were not finite.
        history: (step, quality on the search split) of each score.
        before: The task's metric of the searched model by split.
        after: The task's metric of the trained model by split.
        bits: Bits of each quantized layer, in the model's order; None where it was rounded only at the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = RECOVERY_VERSION
    digest: str
    policy: str
    config: RecoveryConfig
    examples: int
    steps: int
    best_step: int
    rollbacks: int
    history: tuple[tuple[int, float], ...]
    before: Mapping[str, float]
    after: Mapping[str, float]
    bits: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A trained model.

    Attributes:
        model: With the runtime's arithmetic, in evaluation mode.
        report: What was done to it.
    """

    model: nn.Module
    report: RecoveryReport


class RecoveryJob:
    """One training of one policy: where it starts, what it learns from, where its result lies.

    Args:
        worker: Holds model, data and variants, and scores.
        policy: The policy.
        config: The training.
    """

    def __init__(self, worker: TrialWorker, policy: Policy, config: RecoveryConfig) -> None:
        self.worker, self.policy, self.config = worker, policy, config
        self.examples = training_examples(worker, config)
        parts = [RECOVERY_VERSION, worker.evaluation_digest, policy.digest, config.digest, _digest(self.examples)]
        self.digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        folder = worker.spec.cache_dir / "recovered"
        self.path, self.checkpoint = folder / f"{self.digest}.safetensors", folder / f"{self.digest}.checkpoint"

    def trainer(self, checkpoint: Path | None = None) -> Trainer:
        """Begin the training, or go on from a checkpoint.

        Args:
            checkpoint: File that it is read from, where it exists, and written to.
        """
        config, worker = self.config, self.worker
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        data = TrainingData(worker.task, self.examples, batch=config.batch, seed=config.seed)
        dense = load_model(worker.spec.model).model
        setting = Setting(
            data=data,
            teacher=Teacher(dense, data, hidden=config.hidden > 0, device=device),
            score=lambda model: worker.quality_of(model, Split.SEARCH),
            examples_per_call=worker.spec.target.batch,
            device=device,
            identity=self.digest,
        )
        return Trainer(self._start(), config, setting, checkpoint)

    def keep(self, trainer: Trainer) -> Recovered:
        """Score the best state on both splits, and store it."""
        tensors, bits = trainer.best_tensors()
        model = trainer.best_model()
        searched = self.worker.separate_model(self.policy)
        counters = trainer.counters
        report = RecoveryReport(
            digest=self.digest,
            policy=self.policy.to_json(),
            config=self.config,
            examples=len(self.examples),
            steps=trainer.steps,
            best_step=counters.best_step,
            rollbacks=counters.rollbacks,
            history=tuple(counters.history),
            before=self._metrics(searched),
            after=self._metrics(model),
            bits=tuple(bits),
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".writing")
        save_file(dict(tensors), unfinished, metadata={_METADATA: report.model_dump_json()})
        unfinished.replace(self.path)
        return Recovered(model=model, report=report)

    def stored(self) -> Recovered | None:
        """The result of this training where it is stored; None where it is not, or can't be read."""
        try:
            with safe_open(self.path, framework="pt") as file:
                report = RecoveryReport.model_validate_json(file.metadata()[_METADATA])
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValidationError, KeyError, TypeError):
            return None
        model = self._start()
        put_back(model, tensors, list(report.bits))
        return Recovered(model=shipped(model), report=report)

    def _start(self) -> nn.Module:
        worker, config = self.worker, self.config
        if config.sparsity is not Sparsity.OFF:
            worker = sparse_worker(worker, self.policy, config, self.examples, self.digest)
        model = worker.separate_model(self.policy)
        make_trainable(model)
        return model

    def _metrics(self, model: nn.Module) -> dict[str, float]:
        splits = (Split.SEARCH, Split.HOLDOUT)
        return {split.value: self.worker.quality_of(model, split, QualityMeasure.METRIC).value for split in splits}


def recover(
    worker: TrialWorker, policy: Policy, config: RecoveryConfig, on_progress: OnProgress | None = None
) -> Recovered:
    """Train the model of a policy in this process, or go on where that was stopped, or read what was trained before.

    Args:
        worker: Holds model, data and variants.
        policy: The policy.
        config: The training.
        on_progress: Told of each score.

    Raises:
        RecoveryError: A layer has no form that trains, or the loss is not finite whatever the step.
        DataError: The training source can't be read.
        CheckpointError: The checkpoint of a training that was stopped can't be read.
    """
    job = RecoveryJob(worker, policy, config)
    found = job.stored()
    if found is None:
        trainer = job.trainer(job.checkpoint)
        while not trainer.finished:
            trainer.run_to_evaluation()
            if on_progress is not None:
                on_progress(trainer.counters.step, trainer.steps)
        found = job.keep(trainer)
        job.checkpoint.unlink(missing_ok=True)
    return found


def training_examples(worker: TrialWorker, config: RecoveryConfig) -> Sequence[Example]:
    """Examples of the training's own source, else those of the calibration split."""
    if config.source is None:
        return worker.splits.calibration[: config.examples]
    spec = worker.spec
    return load_training(spec.data, worker.task, source=config.source, examples=config.examples, seed=spec.seed)


def _digest(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        for name, tensor in sorted(example.inputs.items()):
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            digest.update(tensor_bytes(tensor))
        digest.update(str(torch.as_tensor(example.label).tolist()).encode())
    return digest.hexdigest()
