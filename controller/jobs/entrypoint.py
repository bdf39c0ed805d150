"""The command that the cluster runs for a job, and the environment that it is given."""

import shlex

from controller.owner import OWNER_VARIABLE

JOB_ID_VARIABLE = "PARETRIM_JOB_ID"
"""Names the job to the search that runs for it."""
ATTEMPT_VARIABLE = "PARETRIM_ATTEMPT"
"""Counts the runs of the job."""
HOME_VARIABLE = "PARETRIM_HOME"
"""Set on the cluster's nodes: folder for what outlives a job (database, tables, reports)."""
STOP_WAIT_S = 300
"""Seconds between the signal to stop and the end by force: trials at work take up to two minutes to finish."""


def entrypoint(job_file: str, workdir: str | None) -> str:
    """Return the shell command of a job.

    The cluster starts it in a folder of its own that holds the job file, and that vanishes with the session. `exec`
    makes the search the process that the signal to stop goes to.

    Args:
        job_file: Name of the job file in that folder.
        workdir: Folder on the cluster to run in; None takes PARETRIM_HOME there, else the home folder.
    """
    folder = f'"${{{HOME_VARIABLE}:-$HOME}}"' if workdir is None else shlex.quote(workdir)
    job = f'"$job"/{shlex.quote(job_file)}'
    return f'job="$PWD" && mkdir -p {folder} && cd {folder} && exec paretrim search {job}'


def environment(job_id: str, attempt: int, *, user: str, log: str | None) -> dict[str, str]:
    """Return the variables of a job. Everybody who sees the cluster sees them: no secrets.

    Args:
        job_id: The job.
        attempt: Counts its runs from 1.
        user: Who submitted it; empty where nobody knows.
        log: Form of the log lines (see `controller.log_lines`); None leaves it to the cluster.
    """
    variables = {
        JOB_ID_VARIABLE: job_id,
        ATTEMPT_VARIABLE: str(attempt),
        OWNER_VARIABLE: user,
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
        # The controller measures latencies on the node's GPU though it reserves none.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    return variables if log is None else {**variables, "PARETRIM_LOG": log}
