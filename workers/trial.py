"""Trials on a worker: a policy becomes a model, stitched from variants, and the model gets its scores."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from evaluators.costs import CostModel
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import LatencyTable, load_table
from evaluators.quality import Outputs, QualityEvaluator, stack_calls
from evaluators.race import race
from evaluators.rungs import EVALUATION_VERSION
from evaluators.scores import Quality, QualityMeasure, Scores
from evaluators.tasks import Example
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace, build_space
from search_spaces.units import ModelStructure, Unit
from workers.assemble import Assembler, logits_of
from workers.calibrate import Calibration
from workers.data import load_splits
from workers.model import ModelError, load_model, load_task
from workers.protocol import Split, TrialReport, TrialRequest, WorkerSpec
from workers.recovery.layers import scope_of
from workers.targets import TARGETS
from workers.targets.device import DEVICES
from workers.variant_store import Variant, VariantStore
from workers.variants import VariantMaker
from workers.workload import WorkloadError as WorkloadError
from workers.workload import workload_of as workload_of

Progress = Callable[[int, int], None]


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
        self.foreign = table.differences_from(here, target=spec.target.name)
        self.measured_on = table.fingerprint.words
        predictor = LatencyPredictor(
            table,
            workload_of(spec.target, self.structure),
            structure=self.structure,
            allow_extrapolation=spec.target.allow_extrapolation,
        )
        self.costs = CostModel(self.structure, predictor, TARGETS.get(spec.target.name).memory_plan)
        self.splits = load_splits(spec.data, self.task, seed=spec.seed)
        calls = stack_calls(self.task, self.splits.calibration, batch=spec.target.batch)
        calibration = Calibration(self.structure.units, calls, self._dense_model)
        self._maker = VariantMaker(loaded.model, self.structure.units, calibration)
        self._store = VariantStore(spec.cache_dir / "variants")
        self._device = _device_of(spec)
        self._assembler = self._assembler_of(loaded.model)
        self._fresh_model = self._device.type == "cpu"
        self._evaluators: dict[Split, QualityEvaluator] = {}
        self._adopted: dict[str, torch.nn.Module] = {}
        self._trained: torch.nn.Module | None = None

    @property
    def evaluation_digest(self) -> str:
        """Identity of all that a quality depends on beside the policy: weights, method, data, calls and measure."""
        return self.digest_of(self.spec.quality)

    def digest_of(self, measure: QualityMeasure) -> str:
        """The `evaluation_digest` of scores by some measure, whichever the worker goes by."""
        parts = [
            self._maker.model_digest,
            self.splits.digest,
            self.spec.data.max_length,
            self.spec.target.batch,
            EVALUATION_VERSION,
        ]
        if measure is not QualityMeasure.METRIC:
            parts.append(str(measure))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def metric(self) -> str:
        """Name of the quality metric."""
        return self.spec.quality.name_with(self.task.metric)

    @property
    def chance_metric(self) -> float:
        """What the best answer that does not look at the example has on the search split, by the task's metric."""
        return self.task.chance([example.label for example in self.splits.search])

    @property
    def chance_quality(self) -> float:
        """The same by what quality is; with fidelity the dense model is run for it.

        Raises:
            FidelityError: The outputs are too many to be compared on every example.
        """
        if self.spec.quality is QualityMeasure.METRIC:
            return self.chance_metric
        return self.evaluator(Split.SEARCH).constant_fidelity

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
        metric = None
        if request.bar is None:
            outputs = evaluator.run(self._forward, request.rung)
            quality = evaluator.score(outputs)
            if self.spec.quality is not QualityMeasure.METRIC and request.split is Split.HOLDOUT:
                metric = evaluator.score(outputs, QualityMeasure.METRIC)
        else:
            quality = race(evaluator, self._forward, request.bar)
        scores = Scores(quality=quality, costs=self.costs.costs(request.policy), task_metric=metric)
        scores.check_finite()
        return TrialReport(trial=request.trial, attempt=request.attempt, scores=scores)

    def model_of(self, policy: Policy) -> torch.nn.Module:
        """The assembled model of a policy; valid until the next policy is assembled."""
        self.space.validate(policy)
        self._trained = self._adopted.get(policy.digest)
        if self._trained is not None:
            return self._trained
        self._fresh_model = False
        return self._assembler.apply(policy)

    def separate_model(self, policy: Policy) -> torch.nn.Module:
        """A model of the policy that no other policy changes, for training."""
        self.space.validate(policy)
        return self._assembler_of(load_model(self.spec.model).model).apply(policy)

    def adopt(self, policy: Policy, model: torch.nn.Module) -> None:
        """Take a trained model for the policy's from now on."""
        self._adopted[policy.digest] = model

    def quality_of(self, model: torch.nn.Module, split: Split, measure: QualityMeasure | None = None) -> Quality:
        """Score a model that was assembled, and perhaps trained, outside; None scores what quality is to the worker."""
        evaluator = self.evaluator(split)
        return evaluator.score(evaluator.run(partial(run_model, model)), measure)

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
            batch, measure = self.spec.target.batch, self.spec.quality
            evaluator = QualityEvaluator(self.task, examples, batch=batch, measure=measure)
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
        if not self.task.right_or_wrong or self.spec.quality is not QualityMeasure.METRIC:
            return evaluator
        difficulty = evaluator.difficulty_of(evaluator.run(self._forward))
        return QualityEvaluator(self.task, examples, batch=self.spec.target.batch, difficulty=difficulty)

    def _forward(self, inputs: Mapping[str, Tensor], examples_per_call: int) -> Tensor:
        if self._trained is not None:
            return run_model(self._trained, inputs, examples_per_call)
        return self._assembler.logits(inputs, examples_per_call)

    def _assembler_of(self, model: torch.nn.Module) -> Assembler:
        # Variants are made from the weights of the model that was loaded, so that one stays where it is.
        own = model if self._device.type == "cpu" else copy.deepcopy(model).to(self._device)
        return Assembler(own, self.structure, self._variant)

    def _variant(self, unit: Unit, choice: Choice) -> Variant:
        return self._store.get_or_make(self._maker, unit, choice)

    def _dense_model(self) -> torch.nn.Module:
        """The dense model for calibration: the skeleton while nothing was assembled, else the files once more."""
        return self._assembler.model if self._fresh_model else load_model(self.spec.model).model


def run_model(model: torch.nn.Module, inputs: Mapping[str, Tensor], examples_per_call: int) -> Tensor:
    """Run a model that stands by itself on calls that are stacked along the batch axis, and return its logits."""
    scope_of(model).examples = examples_per_call
    with torch.inference_mode():
        return logits_of(model, inputs)


def _device_of(spec: WorkerSpec) -> torch.device:
    """The device of the settings, made to compute in full float32: tensor cores would round to 10 bits.

    Raises:
        ModelError: torch sees no such device here.
    """
    device = torch.device(spec.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ModelError(
                "a worker with a GPU needs a build of torch that sees one; this one sees none; install torch for CUDA, "
                "or set search.gpus_per_worker to 0"
            )
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    return device
