"""Turns what goes wrong inside a worker into a typed failure, so that the worker lives on."""

import errno
import sys

from evaluators.scores import ScoreError
from workers.protocol import FailureReason, TrialFailure, TrialReport, TrialRequest, Worker

_MESSAGE_LENGTH = 2000


def evaluate_guarded(worker: Worker, request: TrialRequest) -> TrialReport | TrialFailure:
    """Score one policy; an exception becomes a failure of that policy."""
    try:
        return worker.evaluate(request)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"[:_MESSAGE_LENGTH]
        return TrialFailure(trial=request.trial, attempt=request.attempt, reason=failure_reason(error), message=message)


def failure_reason(error: Exception) -> FailureReason:
    """Tell what kind of failure an exception is."""
    if isinstance(error, ScoreError):
        return FailureReason.NON_FINITE_SCORE
    if isinstance(error, MemoryError) or _is_torch_memory_error(error):
        return FailureReason.OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FailureReason.DISK_FULL
    return FailureReason.ERROR


def _is_torch_memory_error(error: Exception) -> bool:
    # Where torch was never imported it did not raise. On the host its allocator raises a plain RuntimeError.
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
