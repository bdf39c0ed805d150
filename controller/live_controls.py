"""Asks the controller of a running study for something, through the database."""

from typing import Any

from controller.errors import UsageError
from controller.storage.engine import open_existing
from controller.storage.records import Controls
from controller.storage.repository import Repository


def ask_running(
    name: str, storage: str, *, parallel: int | None = None, trials: int | None = None, stop: bool = False
) -> dict[str, Any]:
    """Ask the controller of a study for another number of workers or trials, or to stop.

    Args:
        name: The study.
        storage: URL of the database.
        parallel: Workers, 1 or more; None leaves them as they are.
        trials: Trials in all, 1 or more; None leaves them as they are.
        stop: Whether to stop.

    Returns:
        All that it is asked for by now, and who it is, as JSON values.

    Raises:
        UsageError: There is no such study, or nobody searches it just now.
    """
    repository = Repository(open_existing(storage))
    try:
        found = repository.find_study(name)
        if found is None:
            known = ", ".join(study.name for study in repository.studies()) or "none"
            raise UsageError(f"there is no study {name!r} in this database; it has {known}")
        if found.holder is None or found.holder.is_gone():
            raise UsageError(
                f"nobody searches study {name!r} just now, so there is nothing to change; the numbers of its next "
                "search stand in the job file"
            )
        asked = repository.ask_for(name, Controls(stop=stop, parallel=parallel, trials=trials))
    finally:
        repository.engine.dispose()
    assert asked is not None
    wishes = asked.controls
    return {
        "study": name,
        "holder": str(found.holder),
        "parallel": wishes.parallel,
        "trials": wishes.trials,
        "stop": wishes.stop,
    }
