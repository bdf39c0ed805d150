"""Row 9: the same job twice is one job; other content under its name is a conflict that shows the difference.

`tests/controller/jobs/test_cluster.py` does the same to a real cluster.
"""

import pytest
from submissions import RememberedCluster, package

from controller.jobs.records import JobState, SubmitOutcome
from controller.jobs.submission import JobConflictError, submit


@pytest.fixture
def cluster():
    return RememberedCluster()


def test_the_same_content_is_submitted_once(cluster, tmp_path):
    first = submit(cluster, package(tmp_path), cpus=0.1)
    again = submit(cluster, package(tmp_path), cpus=0.1)
    assert (first.outcome, again.outcome) == (SubmitOutcome.SUBMITTED, SubmitOutcome.ALREADY_ACTIVE)
    assert first.job_id == again.job_id
    cluster.end(JobState.FAILED)
    assert submit(cluster, package(tmp_path), cpus=0.1).outcome is SubmitOutcome.ALREADY_ENDED
    assert len(cluster.known) == 1


def test_other_content_under_the_name_of_an_active_job_is_a_conflict(cluster, tmp_path):
    submit(cluster, package(tmp_path), cpus=0.1)
    with pytest.raises(JobConflictError, match=r"search\.trials: 100 before, now 5"):
        submit(cluster, package(tmp_path, search={"trials": 5}), cpus=0.1)
