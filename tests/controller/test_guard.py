"""Exceptions of a worker become typed failures."""

import errno

import pytest
import torch

from controller.guard import evaluate_guarded, failure_reason
from evaluators.scores import ScoreError
from search_spaces.policy import Choice, Policy
from workers.protocol import FailureReason, TrialFailure, TrialReport, TrialRequest


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), FailureReason.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), FailureReason.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "no space left"), FailureReason.DISK_FULL),
        (OSError(errno.ENOENT, "no file"), FailureReason.ERROR),
        (ScoreError("accuracy must be finite"), FailureReason.NON_FINITE_SCORE),
        (RuntimeError("shapes differ"), FailureReason.ERROR),
    ],
)
def test_an_exception_has_its_reason(error: Exception, reason: FailureReason) -> None:
    assert failure_reason(error) is reason


def test_the_hosts_allocator_is_recognised() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory") as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert failure_reason(caught.value) is FailureReason.OUT_OF_MEMORY


def test_a_failure_names_its_attempt_and_stays_short() -> None:
    class Broken:
        def evaluate(self, request: TrialRequest) -> TrialReport:
            raise KeyError("x" * 9000)

    request = TrialRequest(trial=3, attempt="token", policy=Policy({"layer": Choice(1, "fp32")}))
    result = evaluate_guarded(Broken(), request)
    assert isinstance(result, TrialFailure)
    assert (result.trial, result.attempt, result.reason) == (3, "token", FailureReason.ERROR)
    assert result.message.startswith("KeyError: 'xxx")
    assert len(result.message) == 2000
