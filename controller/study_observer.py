"""Shows what happens to the trials of a study to the outside: log lines and metrics."""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from controller.jobs.entrypoint import JOB_ID_VARIABLE
from controller.log_relay import write_log_to
from controller.storage.records import TrialRecord, TrialState

if TYPE_CHECKING:
    from controller.metrics import StudyMetrics
    from controller.study import Study

_logger = logging.getLogger(__name__)
_COUNT_EVERY_S = 1.0


@dataclass(slots=True, kw_only=True)
class StudyObserver:
    """Called with each trial that has come to its end, in the process that keeps the study.

    Attributes:
        stage_seconds: Seconds that the stages before the search took.
        log_file: Where log lines go as JSON; None leaves them to the process.
        job_id: Id of the submitted job; empty where nothing was submitted.
    """

    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    log_file: Path | None = None
    job_id: str = field(default_factory=lambda: os.environ.get(JOB_ID_VARIABLE, ""))
    _metrics: "StudyMetrics | None" = None
    _counted: float = -_COUNT_EVERY_S

    def __call__(self, study: "Study", trial: TrialRecord) -> None:
        """Log and count a trial."""
        metrics = self._metrics or self._begin(study.config.name)
        metrics.finished(trial)
        now = time.monotonic()
        if now - self._counted >= _COUNT_EVERY_S or not study.remaining:
            self._counted = now
            metrics.counts(study.trials, queue=study.remaining)
        _log(study.config.name, trial)

    def _begin(self, study: str) -> "StudyMetrics":
        from controller.metrics import StudyMetrics

        if self.log_file is not None:
            write_log_to(self.log_file)
        self._metrics = StudyMetrics(study=study, job=self.job_id)
        self._metrics.stages(self.stage_seconds)
        return self._metrics


def _log(study: str, trial: TrialRecord) -> None:
    told = {"study": study, "trial": trial.number, "attempt": trial.attempt}
    if trial.state is TrialState.FAIL:
        _logger.warning("%s failed (%s): %s", trial.name, trial.reason, trial.message, extra=told)
    else:
        _logger.info("%s is %s", trial.name, trial.state, extra=told)
