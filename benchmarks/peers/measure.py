"""How contestants are measured: all alike, from their ONNX files, in one process of one runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.contestant import Contestant
from benchmarks.peers.material import Material
from evaluators.tasks import Example
from workers.targets.onnxruntime_cpu import OnnxModel, open_session

_RUNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A contestant and what was measured.

    Attributes:
        contestant: The contestant.
        right: Which examples it answers rightly, shape (examples,): those that searches see, then the others.
        unseen: How many of them, at the end, no search saw.
        round_ms: Median latency in each round, shape (rounds,), in ms.
    """

    contestant: Contestant
    right: npt.NDArray[np.bool_]
    unseen: int
    round_ms: npt.NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        """On all examples."""
        return float(self.right.mean())

    @property
    def unseen_accuracy(self) -> float:
        """On those that no search saw."""
        return float(self.right[-self.unseen :].mean())

    @property
    def latency_ms(self) -> float:
        """Median over the rounds."""
        return float(np.median(self.round_ms))

    def latency_over(self, other: Measured) -> float:
        """Latency as a multiple of another's: the median of the rounds' ratios, so that a slow round hits both."""
        return float(np.median(self.round_ms / other.round_ms))


def measure(contestants: Sequence[Contestant], material: Material, *, rounds: int) -> list[Measured]:
    """Score each contestant on all of dev and time all of them in turn.

    Args:
        contestants: The models.
        material: Examples, and the workload: batch, tokens, threads.
        rounds: How often each is timed, in a session of its own each time; the order changes between rounds.
    """
    threads = material.job.target.threads
    rights = [right_answers(each.path, material.dev, threads=threads) for each in contestants]
    times = _time_in_turn([each.path for each in contestants], material, rounds)
    return [
        Measured(contestant=each, right=right, unseen=len(material.splits.holdout), round_ms=times[number])
        for number, (each, right) in enumerate(zip(contestants, rights, strict=True))
    ]


def right_answers(path: Path, examples: Sequence[Example], *, threads: int) -> npt.NDArray[np.bool_]:
    """Which examples a classifier answers rightly, each by itself and unpadded; shape (examples,)."""
    session = open_session(path, threads=threads)
    names = [each.name for each in session.get_inputs()]
    answers = [
        session.run(None, {name: example.inputs[name].numpy()[None] for name in names})[0][0].argmax()
        for example in examples
    ]
    right: npt.NDArray[np.bool_] = np.array(answers) == np.array([example.label for example in examples])
    return right


def _time_in_turn(paths: Sequence[Path], material: Material, rounds: int) -> npt.NDArray[np.float64]:
    target = material.job.target
    assert target.sequence_length is not None
    drawn = material.loaded.task.random_inputs(target.batch, target.sequence_length, seed=1)
    feeds = {name: tensor.numpy() for name, tensor in drawn.items()}
    models = [OnnxModel(model=path, feeds=_taken(path, feeds), threads=target.threads) for path in paths]
    order = np.random.default_rng(0)
    times = np.empty((len(models), rounds))
    for number in range(rounds):
        for index in order.permutation(len(models)):
            times[index, number] = np.median(models[index].sample(runs=_RUNS))
    return times


def _taken(path: Path, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The inputs that a model takes: some tools drop one that is constant."""
    import onnx

    names = [each.name for each in onnx.load(path, load_external_data=False).graph.input]
    return {name: feeds[name] for name in names}
