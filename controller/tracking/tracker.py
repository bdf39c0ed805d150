"""MLflow, from an outbox: the search puts messages, a thread of its own sends them when MLflow takes them.

The search never waits for MLflow. Whatever is wrong with MLflow is said once, and the messages stay in the outbox
until they are sent, by this process or by a later one.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from controller.owner import owner
from controller.study_view import PointState, PointView, StudyView
from controller.tracking.address import RunsAddress, runs_address, without_credentials
from controller.tracking.content import point_payload, study_note
from controller.tracking.messages import (
    Kind,
    Replay,
    check_study_name,
    finite,
    groups,
    open_client,
)
from controller.tracking.outbox import Outbox, OutboxItem
from controller.tracking.trouble import Trouble, TroubleKind, diagnose

ITEMS_PER_READ = 200

MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment of the client where the user has set nothing: with MLflow's own, one call to a dead server takes
minutes."""


class TrackingState(StrEnum):
    """What the thread is doing."""

    IDLE = "idle"
    """Nothing waits in the outbox, or the thread does not run."""
    SENDING = "sending"
    WAITING = "waiting"
    """MLflow is not reached; the next attempt comes by itself."""
    DENIED = "denied"
    """MLflow refuses; a person must change something. Attempts go on at the longest interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Intervals of the thread.

    Attributes:
        poll_s: Between two looks into an empty outbox; a message put here is seen at once.
        first_s: Before the second attempt to reach MLflow; doubles each time.
        longest_s: Largest interval between attempts.
    """

    poll_s: float = 2.0
    first_s: float = 1.0
    longest_s: float = 60.0


class Tracker:
    """Records one study in MLflow.

    Args:
        uri: Tracking URI.
        outbox: Where messages wait; used from two threads.
        study: Identity of the study; the same one continues the same parent run.
        experiment: Name of MLflow's experiment.
        say: Takes one line for people; called from the tracker's thread.
        waits: Intervals.

    Raises:
        ValueError: The study's name has characters that MLflow cannot search for.
    """

    def __init__(
        self,
        uri: str,
        outbox: Outbox,
        *,
        study: str,
        experiment: str,
        say: Callable[[str], None],
        waits: Waits = Waits(),
    ) -> None:
        self._uri = uri
        self._outbox = outbox
        self._ids = {"study": check_study_name(study), "experiment": experiment}
        self._say = say
        self._waits = waits
        self._wake = threading.Condition()
        self._nudged = False
        self._hurried = False
        self._stopping = False
        self._progress: tuple[int, dict[str, float]] | None = None
        self._attempts = 0
        self._state = TrackingState.IDLE
        self._trouble: Trouble | None = None
        self._replay: Replay | None = None
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> TrackingState:
        """What the thread is doing."""
        return self._state

    @property
    def address(self) -> RunsAddress | None:
        """Where the study is seen; None until MLflow has taken its first message."""
        experiment = self._ids["experiment"]
        number = self._replay.experiment_id(experiment) if self._replay is not None else None
        return None if number is None else runs_address(self._uri, number, study=self._ids["study"])

    def begin(self, *, name: str, metric: str, params: Mapping[str, str], job_yaml: str | None) -> None:
        """Record that the study begins or continues.

        Args:
            name: Name of the parent run.
            metric: Name of the quality metric.
            params: Main fields of the job. Passwords within URLs are masked, here and in the job file.
            job_yaml: Text of the job file.
        """
        masked = {key: without_credentials(value) for key, value in params.items()}
        text = None if job_yaml is None else without_credentials(job_yaml)
        self._put(Kind.STUDY, name=name, metric=metric, params=masked, job_yaml=text, owner=owner())

    def progress(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Record metrics of the whole study; those that are None, NaN or infinite are left out.

        What repeats the last call is not recorded again.

        Args:
            step: Finished trials so far.
            metrics: Name to value ("hypervolume", "feasible_trials", "best_quality").
        """
        kept = finite(metrics)
        if kept and (step, kept) != self._progress:
            self._progress = step, kept
            self._put(Kind.PROGRESS, step=step, metrics=kept)

    def finish(
        self, view: StudyView, files: Sequence[Path], *, completed: bool = True, every_trial: bool = False
    ) -> None:
        """Record front, baselines, files and the note.

        Args:
            view: The study as it stands.
            files: Report files; they must stay where they are until they are sent.
            completed: Whether the study ended by itself; else the parent run is marked as killed.
            every_trial: Whether all other trials get runs too; a policy that was proposed again has one.
        """
        shown: dict[tuple[str, str], PointView] = {}
        for point in (*view.front, *view.baselines, *(view.points if every_trial else ())):
            if point.state is not PointState.RUNNING:
                shown.setdefault((point.role.value, point.as_policy.digest), point)
        for point in shown.values():
            self._put(Kind.POINT, **point_payload(point, view.metric))
        for path in files:
            self._put(Kind.ARTIFACT, path=str(path.resolve()))
        status = "FINISHED" if completed else "KILLED"
        self._put(Kind.FINISHED, note=study_note(view), status=status, shown=[list(key) for key in shown])

    def start(self) -> None:
        """Start sending; a second call is no error."""
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="paretrim-tracking", daemon=True)
            self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything put so far is in MLflow.

        Args:
            timeout_s: Longest wait in seconds.

        Returns:
            Whether the outbox is empty. False comes early where MLflow refuses, as waiting would not help.
        """
        deadline = time.monotonic() + timeout_s
        attempts = self._attempts
        self._nudge(hurry=True)
        while self._outbox.pending(1):
            left = deadline - time.monotonic()
            refused = self._state is TrackingState.DENIED and self._attempts > attempts
            if left <= 0 or refused or self._thread is None or not self._thread.is_alive():
                return False
            with self._wake:
                self._wake.wait(min(left, 0.1))
        return True

    def stop(self, timeout_s: float = 1.0) -> None:
        """Stop sending; what is left stays in the outbox.

        Args:
            timeout_s: Longest wait for a request under way, in seconds.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping = True
            self._nudge(hurry=True)
            thread.join(timeout_s)

    def _put(self, kind: Kind, **payload: Any) -> None:
        self._outbox.put(kind.value, {**self._ids, "time_ms": time.time_ns() // 1_000_000, **payload})
        self._nudge()

    def _nudge(self, *, hurry: bool = False) -> None:
        with self._wake:
            self._nudged = True
            self._hurried = self._hurried or hurry
            self._wake.notify_all()

    def _run(self) -> None:
        for key, value in MLFLOW_DEFAULTS.items():
            os.environ.setdefault(key, value)
        quiet = _QuietThread(threading.get_ident())
        logger = logging.getLogger("urllib3.connectionpool")
        logger.addFilter(quiet)
        try:
            failures = 0
            while not self._stopping:
                failures = 0 if self._send_all() else failures + 1
                self._pause(failures)
        finally:
            logger.removeFilter(quiet)
            self._state = TrackingState.IDLE

    def _pause(self, failures: int) -> None:
        waits = self._waits
        delay = waits.poll_s if not failures else min(waits.longest_s, waits.first_s * 2.0 ** min(failures - 1, 30))
        if self._state is TrackingState.DENIED:
            delay = waits.longest_s
        with self._wake:
            self._attempts += 1
            self._wake.notify_all()
            # New messages cut the wait short only while MLflow answers: else each trial would try the dead server.
            self._wake.wait_for(lambda: self._hurried or (self._nudged and not failures), delay)
            self._nudged = self._hurried = False

    def _send_all(self) -> bool:
        """Send until the outbox is empty; False where MLflow stood in the way."""
        try:
            while not self._stopping and (items := self._outbox.pending(ITEMS_PER_READ)):
                self._send(items)
                self._settle(None)
        except Exception as error:  # the thread outlives any fault of database or server; it is said once
            self._settle(diagnose(error, self._uri))
            return False
        if self._trouble is None:
            self._state = TrackingState.IDLE
        return True

    def _send(self, items: Sequence[OutboxItem]) -> None:
        if self._trouble is None:
            self._state = TrackingState.SENDING
        if self._replay is None:
            self._replay = Replay(open_client(self._uri), self._uri)
        for group in groups(items):
            if self._stopping:
                return
            self._send_group(self._replay, group)

    def _send_group(self, replay: Replay, group: list[OutboxItem]) -> None:
        try:
            replay.apply(group)
        except Exception as error:
            trouble = diagnose(error, self._uri)
            if trouble.kind is not TroubleKind.MESSAGE:
                raise
            if len(group) > 1:
                for item in group:
                    self._send_group(replay, [item])
                return
            # One message that can never be sent must not hold up all others.
            self._say(f"MLflow does not take a message of kind {group[0].kind}, it is left out: {trouble.text}")
        self._outbox.mark_sent([item.id for item in group])

    def _settle(self, trouble: Trouble | None) -> None:
        before, self._trouble = self._trouble, trouble
        if trouble is None:
            if before is not None:
                self._say("MLflow answers again; what waited is being sent.")
            return
        self._state = TrackingState.DENIED if trouble.kind is TroubleKind.DENIED else TrackingState.WAITING
        if before is None or before.kind is not trouble.kind:
            self._say(trouble.text)


class _QuietThread(logging.Filter):
    """Drops urllib3's line for each retry of one thread: the tracker says it once, in its own words."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._ident = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._ident


def experiment_name(model: str, task: str, target: str) -> str:
    """Name of the experiment of a model, task and target; a folder stands under its last part."""
    short = model.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] or "model"
    return f"paretrim/{short}/{task}/{target}"[:500]
