"""Metrics of a search for Prometheus, through Ray: every node of the cluster serves those of its processes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from controller.storage.records import TrialRecord, TrialState

_SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
_TAGS = ("study", "job")


class StudyMetrics:
    """What happens to the trials of one study. Ray puts `ray_` before each name.

    `paretrim_trials` by state, `paretrim_queue` (trials that may still be handed out), `paretrim_trial_seconds`,
    `paretrim_stage_seconds` by stage, `paretrim_cache_hits_total`, `paretrim_failures_total` by reason.

    Args:
        study: Name of the study.
        job: Id of the job that it is searched for; empty for a search without one.
    """

    def __init__(self, *, study: str, job: str = "") -> None:
        from ray.util import metrics

        tags = {"study": study, "job": job}

        def made(kind: Any, name: str, text: str, keys: tuple[str, ...] = (), **more: Any) -> Any:
            metric = kind(name, description=text, tag_keys=(*_TAGS, *keys), **more)
            metric.set_default_tags(tags)
            return metric

        self._trials = made(metrics.Gauge, "paretrim_trials", "Trials by state, baselines included.", ("state",))
        self._queue = made(metrics.Gauge, "paretrim_queue", "Trials that may still be handed out.")
        self._stages = made(metrics.Gauge, "paretrim_stage_seconds", "Seconds that a stage took.", ("stage",))
        self._hits = made(metrics.Counter, "paretrim_cache_hits", "Trials answered by an earlier score.")
        self._failures = made(metrics.Counter, "paretrim_failures", "Failed trials by reason.", ("reason",))
        self._seconds = made(
            metrics.Histogram, "paretrim_trial_seconds", "Seconds to score a policy.", boundaries=_SECONDS
        )

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Take how long the stages before the search took.

        Args:
            seconds: By stage.
        """
        for stage, value in seconds.items():
            self._stages.set(value, tags={"stage": stage})

    def counts(self, trials: Iterable[TrialRecord], *, queue: int) -> None:
        """Show how many trials are in which state.

        Args:
            trials: All trials of the study.
            queue: How many may still be handed out.
        """
        states = Counter(trial.state for trial in trials)
        for state in TrialState:
            self._trials.set(states[state], tags={"state": state.value})
        self._queue.set(queue)

    def finished(self, trial: TrialRecord) -> None:
        """Count a trial that has come to its end."""
        if trial.state is TrialState.FAIL:
            self._failures.inc(tags={"reason": str(trial.reason)})
        elif trial.quality is not None and trial.attempt is None:
            self._hits.inc()
        elif trial.seconds is not None:
            self._seconds.observe(trial.seconds)
