"""The study as worker slots and the driver see it: work in batches, heartbeats, and an end for slots that are gone."""

import functools
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, ParamSpec, TypeVar

from controller.progress import StudyProgress
from controller.study import Study
from workers.protocol import FailureReason, TrialFailure, TrialReport, TrialRequest

P = ParamSpec("P")
T = TypeVar("T")

_BATCH_S = 2.0
_LARGEST_BATCH = 32
_IDLE_DEATHS = 5
_IDLE_S = 0.1
_IDLE_S_A_SLOT = 0.005
"""However many slots wait, they ask no more than 200 times a second together."""
_PROGRESS_EVERY_S = 0.5
_PROGRESS_SHARE = 0.05
"""Share of the time that goes into measuring how far a study is, which takes longer the more trials it has."""
_SNAPSHOT_WAIT_S = 0.2


BESIDE = "beside"
"""Calls to the actor that another thread takes than the one which is at the study."""


def beside(method: Any) -> Any:
    """Let a method of the actor be called whatever the study is at."""
    return method.options(concurrency_group=BESIDE)


class WorkerStartError(RuntimeError):
    """Workers can't be built, or die before they get to work."""


class StaleSlotError(RuntimeError):
    """The slot was given up; its process must end and start anew."""


class SearchError(RuntimeError):
    """The search can't go on for a reason that lies outside the study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotProcess:
    """Where the process of a slot runs."""

    node_id: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a slot is to do next.

    Attributes:
        requests: Policies to score, in this order; none means: ask again soon.
        stop: Whether nothing more will come.
        again_s: Seconds after which to ask again where there are none.
        dismissed: Whether that is so as there are more slots than there should be, and not as the search is over.
    """

    requests: tuple[TrialRequest, ...] = ()
    stop: bool = False
    again_s: float = 0.1
    dismissed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the driver sees.

    Attributes:
        progress: How far the study is.
        error: Why the search has ended before its time; None if it has not.
        finished: Whether nothing more will happen.
        parallel: Worker slots that there should be; None for what the job says.
        condemned: Processes of slots that have gone silent; the driver ends them.
    """

    progress: StudyProgress
    error: Exception | None
    finished: bool
    parallel: int | None = None
    condemned: tuple[SlotProcess, ...] = ()


@dataclass(slots=True)
class _Slot:
    """State of one worker slot."""

    process: SlotProcess
    incarnation: int
    last_beat: float
    held: list[str] = field(default_factory=list)
    began: str | None = None
    began_at: float = 0.0
    alive: bool = True


def _one_at_a_time(method: Callable[Concatenate["StudyService", P], T]) -> Callable[Concatenate["StudyService", P], T]:
    """Let no two threads be at the study."""

    @functools.wraps(method)
    def exclusive(service: "StudyService", /, *args: P.args, **kwargs: P.kwargs) -> T:
        with service._lock:
            return method(service, *args, **kwargs)

    return exclusive


class StudyService:
    """Serves a study to worker slots: one thread takes their calls, another one looks on.

    `beat`, `stop` and `snapshot` never wait long, even where the study waits for its database: so slots stay alive, and
    the driver hears what holds the search up.

    Args:
        study: What is served.
        grace_s: Seconds of silence after which a slot counts as dead.
        clock: Monotonic seconds.
    """

    def __init__(self, study: Study, *, grace_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._study = study
        self._grace_s = grace_s
        self._clock = clock
        self._slots: dict[str, _Slot] = {}
        self._error: Exception | None = None
        self._condemned: list[SlotProcess] = []
        self._idle_deaths = 0
        self._one_by_one = 0
        self._mean_s: float | None = None
        self._progress: StudyProgress | None = None
        self._measure_at = 0.0
        self._changed = True
        self._lock = threading.RLock()
        self._snapshot = self.snapshot()

    @_one_at_a_time
    def register(self, slot: str, process: SlotProcess) -> int:
        """Take a slot's new process in; what its former one held is given up.

        Returns:
            Number of this process among those of the slot, from 1; every other call names it.
        """
        before = self._slots.get(slot)
        if before is not None and before.alive:
            self._bury(before, "its process ended")
        incarnation = 1 if before is None else before.incarnation + 1
        self._slots[slot] = _Slot(process=process, incarnation=incarnation, last_beat=self._clock())
        return incarnation

    @_one_at_a_time
    def broken(self, slot: str, message: str) -> None:
        """Hear that the slot's worker could not be built: the next one could not either, so the search ends."""
        self._end(WorkerStartError(f"a worker must load model and data before it scores; slot {slot}: {message}"))

    def beat(self, slot: str, incarnation: int) -> None:
        """Hear that the slot is alive; of one that was given up there is nothing to note."""
        found = self._slots.get(slot)
        if found is not None and found.alive and found.incarnation == incarnation:
            found.last_beat = self._clock()

    @_one_at_a_time
    def take(self, slot: str, incarnation: int) -> Work:
        """Hand out about two seconds of work.

        Raises:
            StaleSlotError: The slot was given up meanwhile.
        """
        holder = self._holder(slot, incarnation)
        for attempt in [a for a in holder.held if a != holder.began]:
            self._guarded(self._study.give_back, attempt, "its slot asked for other work")
        self._hold(holder, [])
        if self._is_surplus() and not self.is_over():
            holder.alive = False
            return Work(stop=True, dismissed=True)
        requests: list[TrialRequest] = []
        if self._error is None:
            self._guarded(self._ask, requests, slot)
        self._hold(holder, [request.attempt for request in requests])
        again_s = max(_IDLE_S, _IDLE_S_A_SLOT * len(self._slots))
        return Work(requests=tuple(requests), stop=not requests and self.is_over(), again_s=again_s)

    @_one_at_a_time
    def tell(self, slot: str, incarnation: int, *results: TrialReport | TrialFailure) -> None:
        """Take results; one of an attempt that was given up is rejected by its token."""
        holder = self._slots.get(slot)
        if holder is not None and holder.incarnation == incarnation:
            told = {result.attempt for result in results}
            if holder.began in told:
                seconds = (self._clock() - holder.began_at) / len(told)
                self._mean_s = seconds if self._mean_s is None else 0.7 * self._mean_s + 0.3 * seconds
            self._hold(holder, [attempt for attempt in holder.held if attempt not in told])
        self._idle_deaths = 0
        self._guarded(self._tell, results)

    def _tell(self, results: Iterable[TrialReport | TrialFailure]) -> None:
        with self._study.together():
            for result in results:
                self._study.tell(result)

    def stop(self, within_s: float | None = None) -> None:
        """Hand out nothing more; what is at work may finish.

        Args:
            within_s: Seconds for which a database that does not answer is still waited for; None for no other limit.
        """
        self._study.stop(within_s)
        self._changed = True

    def is_over(self) -> bool:
        """Whether nothing more will be handed out or told."""
        return self._error is not None or self._study.finished

    def snapshot(self) -> Snapshot:
        """Look after silent slots and say how far the study is; while the study is busy, how far it was."""
        if not self._lock.acquire(timeout=_SNAPSHOT_WAIT_S):
            progress = replace(
                self._snapshot.progress, elapsed_s=self._study.elapsed_s, waits_for=self._study.waits_for
            )
            return replace(self._snapshot, progress=progress, condemned=())
        try:
            self._snapshot = self._look()
            return self._snapshot
        finally:
            self._lock.release()

    def _look(self) -> Snapshot:
        self._guarded(self._study.heed, changes=False)
        self._reap()
        finished = self.is_over()
        now = self._clock()
        if self._progress is None or (self._changed and (finished or now >= self._measure_at)):
            began = time.perf_counter()
            self._progress, self._changed = self._study.progress(), False
            took_s = time.perf_counter() - began
            self._measure_at = now + max(_PROGRESS_EVERY_S, took_s / _PROGRESS_SHARE)
        condemned, self._condemned = tuple(self._condemned), []
        progress = replace(self._progress, elapsed_s=self._study.elapsed_s, stop=self._study.stop_reason)
        return Snapshot(
            progress=progress,
            error=self._error,
            finished=finished,
            parallel=self._study.wanted_parallel,
            condemned=condemned,
        )

    @_one_at_a_time
    def close(self) -> Snapshot:
        """Give back what is still open, and write how the study stands."""
        self._guarded(self._study.close)
        self._changed = True
        return replace(self.snapshot(), finished=True)

    def _hold(self, slot: _Slot, attempts: list[str]) -> None:
        """Note what a slot has yet to tell; it scores in this order, so it is at work on the first."""
        began = attempts[0] if attempts else None
        slot.last_beat = self._clock()
        if began != slot.began:
            slot.began_at = slot.last_beat
        slot.held, slot.began = attempts, began

    def _ask(self, requests: list[TrialRequest], slot: str) -> None:
        with self._study.together():
            asked = self._study.ask(self._batch_size(), worker=slot)
        # Not before they are written: a result of an attempt that is not is none.
        requests.extend(asked)

    def _is_surplus(self) -> bool:
        """Whether there are more slots than were asked for."""
        wanted = self._study.wanted_parallel
        return wanted is not None and sum(slot.alive for slot in self._slots.values()) > wanted

    def _batch_size(self) -> int:
        """About two seconds of work, but so that the last batches are spread over the slots.

        What a dead worker held is handed out one by one: so the next death is blamed on the trial that caused it.
        """
        if self._one_by_one > 0:
            self._one_by_one -= 1
            return 1
        if self._mean_s is None:
            return 1
        fair = math.ceil(self._study.remaining / (2 * max(1, len(self._slots))))
        return max(1, min(_LARGEST_BATCH, int(_BATCH_S / max(self._mean_s, 1e-3)), fair))

    def _holder(self, slot: str, incarnation: int) -> _Slot:
        found = self._slots.get(slot)
        if found is None or not found.alive or found.incarnation != incarnation:
            raise StaleSlotError(f"slot {slot} was silent for more than {self._grace_s:g} s and was given up")
        return found

    def _reap(self) -> None:
        """Give up slots that have been silent for longer than the grace time."""
        for slot in self._slots.values():
            if slot.alive and self._clock() - slot.last_beat > self._grace_s:
                self._condemned.append(slot.process)
                self._bury(slot, f"it was silent for more than {self._grace_s:g} s")

    def _bury(self, slot: _Slot, why: str) -> None:
        """Give up what a dead slot held: the attempt at work has died with it, the others were never begun."""
        slot.alive = False
        self._one_by_one += len(slot.held)
        if slot.began is None:
            self._idle_deaths += 1
        for attempt in slot.held:
            if attempt == slot.began:
                message = f"the worker died in the middle of the trial: {why}"
                failure = TrialFailure(trial=-1, attempt=attempt, reason=FailureReason.WORKER_DIED, message=message)
                self._guarded(self._study.tell, failure)
            else:
                self._guarded(self._study.give_back, attempt, f"its worker died before: {why}")
        slot.held, slot.began = [], None
        if self._idle_deaths >= _IDLE_DEATHS:
            self._end(
                WorkerStartError(
                    f"workers died {self._idle_deaths} times in a row before they scored anything ({why}); "
                    "most often memory is short: lower parallel, or see the worker logs of Ray"
                )
            )

    def _guarded(self, action: Callable[..., object], *arguments: object, changes: bool = True) -> None:
        """Do something to the study; what goes wrong ends the search and is told to the driver."""
        self._changed = self._changed or changes
        try:
            action(*arguments)
        except Exception as error:
            self._end(error)

    def _end(self, error: Exception) -> None:
        self._study.stop()
        if self._error is None:
            own = type(error).__module__.startswith("controller.")
            # Errors of libraries may not survive the way to the driver.
            self._error = error if own else SearchError(f"{type(error).__name__}: {error}")
