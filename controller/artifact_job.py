"""The job of an artifact, which travels with it: what a later check needs to know, without the database."""

import json
from pathlib import Path

from controller.errors import UsageError
from controller.job import JobSpec, parse_job

JOB_FILE = "job.json"
_LEFT_OUT = ("storage", "also")
"""Where results were kept is of no use elsewhere, and is nobody's business there."""


def job_text(job: JobSpec) -> str:
    """Write a job as the file that goes along with an artifact."""
    content = {name: value for name, value in job.public_dict().items() if name not in _LEFT_OUT}
    content["mlflow"].pop("tracking_uri")
    return json.dumps(content, indent=2) + "\n"


def read_job(folder: Path) -> JobSpec:
    """Read the job of an artifact.

    Raises:
        UsageError: It has none.
        JobError: It is no job of this release.
    """
    path = folder / JOB_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"an artifact has the job that it is from; {path} can't be read: {error}; export again"
        ) from error
    return parse_job(content, where=str(path))
