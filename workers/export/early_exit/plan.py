"""Which early exit a policy gets: heads fitted on the calibration split, the choice made on the search split.

Shape letters: N examples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from evaluators.latency.block_times import BlockTimes, block_times, exit_head_operator
from evaluators.latency.lookup import LatencyPredictor
from evaluators.tasks import Example
from search_spaces.channels import ChannelUnit
from search_spaces.policy import Policy
from workers.export.early_exit.choice import LEAST_GAIN, Candidate, Floats, choose_exit
from workers.export.early_exit.exiting_model import BlockStates, EarlyExit, read_blocks
from workers.export.early_exit.head import ExitHead, entropy, fit_head
from workers.export.early_exit.record import ExitForecast
from workers.protocol import WorkerSpec
from workers.targets import TARGETS
from workers.targets.base import ExportForm
from workers.trial import TrialWorker

_TASKS = ("text-classification", "image-classification")


class EarlyExitError(ValueError):
    """A model gets no early exit: it can't have one, or none gains."""


def check_call(spec: WorkerSpec) -> None:
    """Refuse what can be known to have no early exit before anything is loaded.

    Raises:
        EarlyExitError: The task is no classification, the target's form has no branch, or calls hold several examples.
    """
    if spec.model.task not in _TASKS:
        raise EarlyExitError(
            f"an early exit answers for a classifier ({', '.join(_TASKS)}); got {spec.model.task}; export without it"
        )
    if TARGETS.get(spec.target.name).form is not ExportForm.ONNX:
        raise EarlyExitError(
            f"an early exit is a branch in an ONNX file; target {spec.target.name} takes another form; export without "
            "it, or search for cpu-onnxruntime"
        )
    if spec.target.batch != 1:
        raise EarlyExitError(
            "an early exit gains where a call holds one example: one that goes on keeps all others of its call with "
            f"it; got target.batch={spec.target.batch}; search with batch 1, or export without it"
        )


def plan_early_exit(worker: TrialWorker, policy: Policy, *, tolerance: float) -> EarlyExit:
    """Fit a head behind each block but the last, and choose block and threshold by the least expected latency.

    Args:
        worker: Has the model, the splits and the latency table.
        policy: The policy that is exported.
        tolerance: Loss of the task's metric on the search split that is allowed, 0 to 1.

    Raises:
        EarlyExitError: The model can't have an exit, or none saves time within the tolerance.
    """
    check_call(worker.spec)
    blocks = _blocks(worker)
    model, splits = worker.model_of(policy), worker.splits
    fitted = read_blocks(model, worker.task, splits.calibration, blocks)
    heads = {name: fit_head(fitted.pooled[name], fitted.whole_NC) for name in blocks}
    states = read_blocks(model, worker.task, splits.search, blocks)
    inside = worker.costs.predictor.for_policy(worker.structure, policy)
    times = block_times(worker.structure, policy, inside)
    whole_N = _scores(worker, states.whole_NC, splits.search)
    candidates = _candidates(worker, heads, states, times, inside)
    choice = choose_exit(candidates, whole_N, whole_ms=times.whole_ms, tolerance=tolerance)
    if choice is None:
        raise EarlyExitError(
            f"an early exit saves at least {LEAST_GAIN:.0%} of the latency; behind none of {len(blocks)} blocks are "
            f"enough of {len(whole_N)} search examples clear with at most {100 * tolerance:g} points of "
            f"{worker.task.metric} lost; allow more with --exit-tolerance, or export without --early-exit"
        )
    forecast = ExitForecast(
        block=choice.candidate.block,
        blocks_run=blocks.index(choice.candidate.block) + 1,
        blocks=len(blocks) + 1,
        threshold_nats=choice.threshold_nats,
        tolerance=tolerance,
        fitted_examples=len(splits.calibration),
        examples=len(whole_N),
        share=choice.share,
        quality=choice.quality,
        whole_quality=float(whole_N.mean()),
        early_ms=choice.candidate.early_ms,
        late_ms=choice.candidate.late_ms,
        expected_ms=choice.expected_ms,
        whole_ms=times.whole_ms,
    )
    return EarlyExit(head=heads[choice.candidate.block], forecast=forecast)


def _blocks(worker: TrialWorker) -> tuple[str, ...]:
    """Blocks that examples could leave after: all but the last."""
    structure = worker.structure
    if any(isinstance(unit, ChannelUnit) for unit in structure.units) or len(structure.stacks) != 1:
        raise EarlyExitError(
            "an early exit reads the tokens between the blocks of one encoder; "
            f"{structure.architecture} has none; export without it"
        )
    return structure.stacks[0][:-1]


def _candidates(
    worker: TrialWorker,
    heads: Mapping[str, ExitHead],
    states: BlockStates,
    times: BlockTimes,
    inside: LatencyPredictor,
) -> list[Candidate]:
    found = []
    for name, head in heads.items():
        exit_NC = head.classify(states.pooled[name])
        operator = exit_head_operator(inside.workload, features=states.pooled[name].shape[1], classes=exit_NC.shape[1])
        head_ms = inside.operators_ms([(operator, 1)])
        found.append(
            Candidate(
                block=name,
                entropy_N=entropy(exit_NC).double().numpy(),
                score_N=_scores(worker, exit_NC, worker.splits.search),
                early_ms=times.until_ms[name] + head_ms,
                late_ms=times.whole_ms + head_ms,
            )
        )
    return found


def _scores(worker: TrialWorker, logits_NC: Tensor, examples: Sequence[Example]) -> Floats:
    scores: Floats = worker.task.score(logits_NC, worker.task.targets(examples)).double().numpy()
    return scores
