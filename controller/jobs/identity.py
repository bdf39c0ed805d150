"""Who a submitted job is: an id of name and content, and how its attempts are called on the cluster."""

import hashlib
import re

from controller.job import JobSpec, check_study_name
from controller.problems import JobError, show
from controller.storage.records import canonical_json

_DIGITS = 12
_JOB_ID = re.compile(rf"(?P<name>.+)-[0-9a-f]{{{_DIGITS}}}")


def job_id_of(job: JobSpec) -> str:
    """Return the id of a job: its name and twelve digits of a digest over all that it says."""
    content = canonical_json(job.model_dump(mode="json"))
    return f"{job.name}-{hashlib.sha256(content.encode()).hexdigest()[:_DIGITS]}"


def submission_id_of(job_id: str, attempt: int) -> str:
    """Return the name of an attempt on the cluster, where no two runs may be called the same.

    Args:
        job_id: The job.
        attempt: Counts from 1; the first has the job's own id.
    """
    return job_id if attempt == 1 else f"{job_id}.{attempt}"


def check_job_reference(text: str) -> str:
    """Return what names a job if it is a job id or the name of a study.

    Raises:
        JobError: It is neither.
    """
    found = _JOB_ID.fullmatch(text)
    try:
        check_study_name(text if found is None else found["name"])
    except JobError:
        raise JobError(
            "the job's name", [f"must be a job id such as digits-1f0c9a5be310, or its name; got {show(text)}"]
        ) from None
    return text
