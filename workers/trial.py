"""Trials on a worker: a policy becomes a model, stitched from variants, and the model gets its scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from evaluators.costs import CostModel
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import LatencyTable, load_table
from evaluators.latency.workload import Workload
from evaluators.quality import Outputs, QualityEvaluator, stack_calls
from evaluators.race import race
from evaluators.rungs import EVALUATION_VERSION
from evaluators.scores import Scores
from evaluators.tasks import Example
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace, build_space
from search_spaces.units import ModelStructure, Unit
from workers.assemble import Assembler
from workers.calibrate import Calibration
from workers.data import load_splits
from workers.model import load_model, load_task
from workers.protocol import Split, TrialReport, TrialRequest, WorkerSpec
from workers.targets import TARGETS, TargetConfig, onnxruntime_cpu  # noqa: F401  (importing registers the device)
from workers.targets.device import DEVICES
from workers.variant_store import Variant, VariantStore
from workers.variants import VariantMaker

Progress = Callable[[int, int], None]


class WorkloadError(ValueError):
    """The target's workload does not fit the model."""


def workload_of(target: TargetConfig, structure: ModelStructure) -> Workload:
    """Batch and tokens of one call on the target.

    Raises:
        WorkloadError: The sequence length is missing, too long, or given where the model fixes it.
    """
    length = target.sequence_length
    if structure.tokens is not None:
        if length not in (None, structure.tokens):
            raise WorkloadError(
                f"the model fixes {structure.tokens} tokens for each example; got target.sequence_length={length}; "
                "leave it out"
            )
        length = structure.tokens
    if length is None:
        raise WorkloadError("the latency of a text model depends on its length; set target.sequence_length (tokens)")
    if structure.max_tokens is not None and length > structure.max_tokens:
        raise WorkloadError(f"target.sequence_length is at most {structure.max_tokens} for this model; got {length}")
    return Workload(batch=target.batch, sequence_length=length)


def space_of(spec: WorkerSpec, structure: ModelStructure) -> SearchSpace:
    """The search space that a worker's settings span."""
    target = TARGETS.get(spec.target.name)
    return build_space(structure, spec.space, target_formats=target.formats, channel_multiple=target.channel_multiple)


def table_of(spec: WorkerSpec) -> LatencyTable:
    """The latency table that the settings name."""
    assert spec.target.table is not None
    return load_table(spec.target.table)


def check_data(spec: WorkerSpec) -> None:
    """Read, split and encode the data once, before anything that takes long is begun.

    Raises:
        DataError: There are fewer rows than the splits ask for, or they can't be read.
        TaskError: An input or label does not fit the model.
    """
    load_splits(spec.data, load_task(spec.model), seed=spec.seed)


class TrialWorker:
    """Keeps model, data and variants warm, and scores one policy after another.

    Args:
        spec: All settings; the table must be measured already.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        torch.set_num_threads(spec.threads)
        self.spec = spec
        loaded = load_model(spec.model)
        self.task, self.structure, self.processor = loaded.task, loaded.structure, loaded.processor
        self.space = space_of(spec, self.structure)
        table = table_of(spec)
        self.table_checksum = table.checksum
        here = DEVICES.get(spec.target.name)(spec.target.threads).fingerprint()
        self.foreign = table.fingerprint.differences(here)
        self.costs = CostModel(self.structure, LatencyPredictor(table, workload_of(spec.target, self.structure)))
        self.splits = load_splits(spec.data, self.task, seed=spec.seed)
        calls = stack_calls(self.task, self.splits.calibration, batch=spec.target.batch)
        calibration = Calibration(self.structure.units, calls, self._dense_model)
        self._maker = VariantMaker(loaded.model, self.structure.units, calibration)
        self._store = VariantStore(spec.cache_dir / "variants")
        self._assembler = Assembler(loaded.model, self.structure, self._variant)
        self._fresh_model = True
        self._evaluators: dict[Split, QualityEvaluator] = {}

    @property
    def evaluation_digest(self) -> str:
        """Identity of all that a quality depends on beside the policy: weights, method, data and calls."""
        parts = [
            self._maker.model_digest,
            self.splits.digest,
            self.spec.data.max_length,
            self.spec.target.batch,
            EVALUATION_VERSION,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def prepare(self, progress: Progress | None = None) -> None:
        """Make every unit under every choice, as far as the store lacks it."""
        wanted = [(s.unit, c) for s in self.space.unit_spaces for c in self.space.choices(s.unit.name)]
        dense = self.space.dense_policy()
        wanted = [(u, c) for u, c in wanted if c != dense[u.name] and not self._store.has(self._maker, u, c)]
        for number, (unit, choice) in enumerate(wanted):
            self._store.get_or_make(self._maker, unit, choice)
            if progress is not None:
                progress(number + 1, len(wanted))

    def evaluate(self, request: TrialRequest) -> TrialReport:
        """Score a policy on a split, on a rung of it, or until it can't pass the bar.

        Raises:
            ScoreError: A score is NaN or infinite.
        """
        evaluator = self.evaluator(request.split)
        self.model_of(request.policy)
        if request.bar is None:
            quality = evaluator.evaluate(self._forward, request.rung)
        else:
            quality = race(evaluator, self._forward, request.bar)
        scores = Scores(quality=quality, costs=self.costs.costs(request.policy))
        scores.check_finite()
        return TrialReport(trial=request.trial, attempt=request.attempt, scores=scores)

    def model_of(self, policy: Policy) -> torch.nn.Module:
        """The assembled model of a policy; valid until the next policy is assembled."""
        self.space.validate(policy)
        self._fresh_model = False
        return self._assembler.apply(policy)

    def logits(self, policy: Policy, split: Split) -> Tensor:
        """Logits of a policy's model on a split, in the split's order, as far as the evaluator keeps them."""
        return self.outputs(policy, split).logits_MC

    def outputs(self, policy: Policy, split: Split) -> Outputs:
        """Scores and logits of a policy's model on a split."""
        evaluator = self.evaluator(split)
        self.model_of(policy)
        return evaluator.run(self._forward)

    def evaluator(self, split: Split) -> QualityEvaluator:
        """The evaluator of a split, which knows the dense model's outputs there."""
        if split not in self._evaluators:
            examples: tuple[Example, ...] = getattr(self.splits, split.value)
            evaluator = QualityEvaluator(self.task, examples, batch=self.spec.target.batch)
            self.model_of(self.space.dense_policy())
            if split is Split.SEARCH:
                evaluator = self._racing(evaluator, examples)
                self._assembler.remember(evaluator.calls)
                self.model_of(self.space.dense_policy())
            evaluator.set_dense(evaluator.run(self._forward))
            self._evaluators[split] = evaluator
        return self._evaluators[split]

    def _racing(self, evaluator: QualityEvaluator, examples: Sequence[Example]) -> QualityEvaluator:
        """The evaluator of a split on which trials race; a race by right answers begins with what is difficult."""
        if not self.task.right_or_wrong:
            return evaluator
        difficulty = evaluator.difficulty_of(evaluator.run(self._forward))
        return QualityEvaluator(self.task, examples, batch=self.spec.target.batch, difficulty=difficulty)

    def _forward(self, inputs: Mapping[str, Tensor], examples_per_call: int) -> Tensor:
        return self._assembler.logits(inputs, examples_per_call)

    def _variant(self, unit: Unit, choice: Choice) -> Variant:
        return self._store.get_or_make(self._maker, unit, choice)

    def _dense_model(self) -> torch.nn.Module:
        """The dense model for calibration: the skeleton while nothing was assembled, else the files once more."""
        return self._assembler.model if self._fresh_model else load_model(self.spec.model).model
