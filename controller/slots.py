"""Worker slots: what Ray Tune runs. A slot keeps one worker warm and scores what the study hands out."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ray
from ray.tune import Trainable
from ray.tune.search import Searcher

from controller.guard import evaluate_guarded
from controller.service import SlotProcess, Work, beside
from workers.protocol import FailureReason, TrialFailure, TrialReport, TrialRequest, Worker

OVER = "over"
"""Key of a slot's result: whether it has ended as the search has."""
_STEP_S = 2.0
_TELL_S = 0.05
_LAST_WORDS_S = 10.0


class SlotSupply(Searcher):  # type: ignore[misc]  # ray is untyped
    """Tells Tune how many slots there should be, as Tune asks a search algorithm for trials.

    Args:
        wanted: Slots at the start, 1 or more.
    """

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted = wanted
        self._numbers: dict[str, int] = {}
        self._is_over = False

    def end(self) -> None:
        """Supply none any more."""
        self._is_over = True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the configuration of another slot, or that there is none now, or never again."""
        if self._is_over:
            return str(Searcher.FINISHED)
        if len(self._numbers) >= self.wanted:
            return None
        taken = set(self._numbers.values())
        number = next(n for n in range(len(taken) + 1) if n not in taken)
        self._numbers[trial_id] = number
        return {"slot": number}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hear that a slot has ended: the search is over, or there were too many of them."""
        self._numbers.pop(trial_id, None)
        self._is_over = self._is_over or bool(result and result.get(OVER))

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Keep nothing: the study knows all that is worth it, and Tune is never restored."""


class _Teller:
    """Tells results from a thread of its own: those that come quickly together, none later than a moment.

    A worker that dies takes with it what it has not told, and the study blames the first of these trials.

    Args:
        tell: Sends results and returns Ray's reference to the answer.
    """

    def __init__(self, tell: Callable[..., Any]) -> None:
        self._tell = tell
        self._results: list[TrialReport | TrialFailure] = []
        self._sent: list[Any] = []
        self._sent_at = time.monotonic()
        self._lock = threading.Lock()
        self._has_some = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, result: TrialReport | TrialFailure) -> None:
        """Take a result that is told at once, or within a moment where the last ones were told just now."""
        with self._lock:
            self._results.append(result)
        if time.monotonic() - self._sent_at >= _TELL_S:
            self._send()
        else:
            self._has_some.set()

    def settle(self, *results: TrialReport | TrialFailure, timeout_s: float | None = None) -> None:
        """Tell what was not told yet, and these results, and wait until all was heard."""
        with self._lock:
            self._results += results
        self._send()
        with self._lock:
            sent, self._sent = self._sent, []
        ray.get(sent, timeout=timeout_s)

    def _send(self) -> None:
        with self._lock:
            results, self._results = self._results, []
            self._has_some.clear()
            if results:
                self._sent.append(self._tell(*results))
                self._sent_at = time.monotonic()

    def _run(self) -> None:
        while True:
            self._has_some.wait()
            time.sleep(_TELL_S)
            self._send()


class WorkerSlot(Trainable):  # type: ignore[misc]  # ray is untyped
    """One slot as a Tune trial: Tune places it and starts it anew when its process dies, the study does the rest."""

    def setup(
        self,
        config: Mapping[str, Any],
        service: Any = None,
        make_worker: Callable[[], Worker] | None = None,
        trial_timeout_s: float | None = None,
        heartbeat_s: float = 1.0,
    ) -> None:
        """Report to the study and build the worker.

        Args:
            config: Holds the number of the slot.
            service: Handle of the `StudyService` actor.
            make_worker: Builds the worker.
            trial_timeout_s: Seconds that one evaluation may take; None for no limit.
            heartbeat_s: Seconds between signs of life.
        """
        assert make_worker is not None
        self._service = service
        self._timeout_s = trial_timeout_s
        self._name = f"slot {config['slot']}"
        process = SlotProcess(node_id=ray.get_runtime_context().get_node_id(), pid=os.getpid())
        self._incarnation: int = ray.get(service.register.remote(self._name, process))
        self._teller = _Teller(partial(service.tell.remote, self._name, self._incarnation))
        self._ended = threading.Event()
        threading.Thread(target=self._beat, args=(heartbeat_s,), daemon=True).start()
        self._worker: Worker | None = None
        if ray.get(beside(service.is_over).remote()):
            return
        try:
            self._worker = make_worker()
        except Exception as error:
            ray.get(service.broken.remote(self._name, f"{type(error).__name__}: {error}"))

    def step(self) -> dict[str, Any]:
        """Work for about two seconds: take a batch, score it, tell the results."""
        scored = 0
        deadline = time.monotonic() + _STEP_S
        while True:
            work: Work = ray.get(self._service.take.remote(self._name, self._incarnation))
            if work.stop or self._worker is None:
                return {"done": True, "scored": scored, OVER: not work.dismissed}
            self._score_all(self._worker, work.requests)
            scored += len(work.requests)
            if time.monotonic() >= deadline:
                return {"done": False, "scored": scored, OVER: False}
            if not work.requests:
                time.sleep(work.again_s)

    def cleanup(self) -> None:
        """Fall silent."""
        self._ended.set()

    def _score_all(self, worker: Worker, requests: Sequence[TrialRequest]) -> None:
        """Score a batch; the study has heard all of it at the end."""
        for request in requests:
            self._teller.add(self._score(worker, request))
        self._teller.settle()

    def _score(self, worker: Worker, request: TrialRequest) -> TrialReport | TrialFailure:
        watch = None
        if self._timeout_s is not None:
            watch = threading.Timer(self._timeout_s, self._give_up, (request,))
            watch.daemon = True
            watch.start()
        result = evaluate_guarded(worker, request)
        if watch is not None:
            watch.cancel()
        return result

    def _give_up(self, request: TrialRequest) -> None:
        """End this process in the middle of a trial that hangs: nothing else frees what it holds."""
        failure = TrialFailure(
            trial=request.trial,
            attempt=request.attempt,
            reason=FailureReason.TIMEOUT,
            message=f"no result within {self._timeout_s:g} s",
        )
        try:
            self._teller.settle(failure, timeout_s=_LAST_WORDS_S)
        finally:
            os._exit(1)

    def _beat(self, every_s: float) -> None:
        while not self._ended.wait(every_s):
            beside(self._service.beat).remote(self._name, self._incarnation)
