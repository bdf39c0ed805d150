"""Opens a study in the database: creates it, or takes it over from a controller that has gone."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy.exc import IntegrityError

from controller.storage.holder import Holder
from controller.storage.lease import take_when_free
from controller.storage.records import StudyRecord, TrialRecord
from controller.storage.repository import Repository
from controller.study_config import StudyConfig, check_same_study

_logger = logging.getLogger(__name__)


def open_record(
    config: StudyConfig,
    repository: Repository,
    trials: Callable[[], Sequence[TrialRecord]],
    *,
    holder: Holder | None = None,
    say: Callable[[str], None] = _logger.warning,
) -> StudyRecord:
    """Create the study in the database, or take the one of that name over, under a fence of its own.

    Args:
        config: What to search.
        repository: The database.
        trials: Gives the trials that a new study begins with; not called for one that exists.
        holder: Who takes it; None for this process.
        say: Told once that another controller must be waited for.

    Raises:
        StudyConflictError: The study exists, and its trials were scored on something else.
        StudyHeldError: Another controller has it.
    """
    found = repository.find_study(config.name)
    if found is None:
        try:
            return repository.create_study(
                name=config.name,
                job_digest=config.job_digest,
                job=config.job,
                fixed_json=config.fixed_json,
                space_digest=config.space_digest,
                objectives=[str(objective) for objective in config.objectives],
                trials=trials(),
                holder=holder,
            )
        except IntegrityError:
            # Another controller was faster by a moment.
            found = repository.find_study(config.name)
            if found is None:
                raise
    check_same_study(found, config)

    def take(outlived: datetime | None) -> StudyRecord:
        return repository.take_over(
            config.name, job_digest=config.job_digest, job=config.job, holder=holder, outlived=outlived
        )

    return take_when_free(take, say)
