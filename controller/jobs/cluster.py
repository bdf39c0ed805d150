"""A Ray cluster as jobs see it: submitted, listed, stopped, read. The only place that knows Ray's Jobs API."""

import asyncio
import contextlib
import json
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from controller.jobs.entrypoint import entrypoint, environment
from controller.jobs.package import JOB_FILE, check_address
from controller.jobs.records import Attempt, JobState, moment

_KEY = "paretrim"
"""Under this key of a submission's metadata lies what makes it ours."""
_VERSION = 1
_OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


class ClusterError(RuntimeError):
    """The cluster can't be reached, refuses us, or can't do what was asked."""


class AlreadySubmittedError(ClusterError):
    """Somebody submitted the very same attempt a moment ago."""


class Cluster:
    """A connection to a cluster's dashboard.

    Args:
        address: "http://HEAD:8265"; the token is taken from where Ray looks for it (RAY_AUTH_TOKEN_PATH).

    Raises:
        UsageError: No address, or none of a dashboard.
        ClusterError: Nobody answers there, or the token is wrong; the message says what to do.
    """

    def __init__(self, address: str | None) -> None:
        self.address = check_address(address)
        self._client = _connect(self.address)

    def attempts(self) -> list[Attempt]:
        """Return all attempts of all jobs of ours, the oldest first."""
        with _explained(self.address):
            found = [attempt for details in self._client.list_jobs() if (attempt := _attempt(details)) is not None]
        return sorted(found, key=lambda attempt: (attempt.started or "", attempt.number))

    def attempt(self, submission_id: str) -> Attempt | None:
        """Return an attempt; None where the cluster does not know it."""
        return next((attempt for attempt in self.attempts() if attempt.submission_id == submission_id), None)

    def submit(self, attempt: Attempt, *, log: str | None = None) -> None:
        """Start an attempt.

        Args:
            attempt: What to start; its state is not read.
            log: Form of its log lines; None leaves it to the cluster.

        Raises:
            AlreadySubmittedError: The cluster has an attempt of that name.
            ClusterError: The cluster refuses it.
        """
        described = {
            "version": _VERSION,
            "job_id": attempt.job_id,
            "name": attempt.name,
            "attempt": attempt.number,
            "user": attempt.user,
            "content": dict(attempt.content),
            "workdir": attempt.workdir,
            "cpus": attempt.cpus,
        }
        with tempfile.TemporaryDirectory(prefix="paretrim-job-") as folder, _explained(self.address):
            Path(folder, JOB_FILE).write_text(json.dumps(attempt.content, indent=2) + "\n", encoding="utf-8")
            self._client.submit_job(
                entrypoint=entrypoint(JOB_FILE, attempt.workdir),
                submission_id=attempt.submission_id,
                runtime_env={
                    "working_dir": folder,
                    "env_vars": environment(attempt.job_id, attempt.number, user=attempt.user, log=log),
                },
                metadata={_KEY: json.dumps(described)},
                entrypoint_num_cpus=attempt.cpus,
            )

    def stop(self, submission_id: str) -> None:
        """Ask an attempt to stop; it saves what it has and ends a while later."""
        with _explained(self.address):
            self._client.stop_job(submission_id)

    def forget(self, submission_id: str) -> None:
        """Remove an ended attempt from the cluster's list."""
        with _explained(self.address):
            self._client.delete_job(submission_id)

    def log(self, submission_id: str) -> str:
        """Return all that an attempt has printed."""
        with _explained(self.address):
            return str(self._client.get_job_logs(submission_id))

    def follow(self, submission_id: str) -> Iterator[str]:
        """Yield what an attempt prints, in pieces, from its beginning to its end."""
        with _explained(self.address), asyncio.Runner() as runner:
            pieces: AsyncIterator[str] = self._client.tail_job_logs(submission_id)
            while (piece := runner.run(_next(pieces))) is not None:
                yield piece


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await anext(pieces, None)


def _connect(address: str) -> Any:
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise _lacks_extra() from error
    # Ray announces every upload.
    logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.WARNING)
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
    with _explained(address), _without(_OVERRIDING):
        return JobSubmissionClient(address)


def _lacks_extra() -> ClusterError:
    return ClusterError("jobs on a cluster need Ray's dashboard client: pip install 'paretrim[cluster]'")


@contextlib.contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Hide variables that Ray prefers to the address that it is told."""
    before = {name: value for name in names if (value := os.environ.pop(name, None)) is not None}
    try:
        yield
    finally:
        os.environ.update(before)


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn what goes wrong between here and the cluster into one message with a remedy."""
    from ray.exceptions import AuthenticationError
    from requests.exceptions import RequestException

    try:
        yield
    except AuthenticationError as error:
        reason = str(error).splitlines()[0]
        raise ClusterError(
            f"the cluster at {address} asks for its token: {reason}; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH "
            "to the file that holds it"
        ) from error
    except (ConnectionError, RequestException) as error:
        raise ClusterError(
            f"no Ray dashboard answers at {address}; check the address, and that the cluster is up "
            "(`paretrim serve-local` starts one on this machine)"
        ) from error
    except RuntimeError as error:
        raise _refused(address, error) from error


def _refused(address: str, error: RuntimeError) -> ClusterError:
    text = str(error)
    if isinstance(error, ClusterError):
        return error
    if "ray[default]" in text:
        return _lacks_extra()
    if "already exists" in text:
        return AlreadySubmittedError(f"the cluster at {address} has this attempt already")
    # The server answers with its traceback; its last line says what happened.
    reason = [line for line in text.strip().splitlines() if line.strip()][-1].strip()
    return ClusterError(f"the cluster at {address} refuses: {reason}")


def _attempt(details: Any) -> Attempt | None:
    """Read a submission; None where it is not ours, or of a release that writes another form."""
    try:
        described = json.loads((details.metadata or {})[_KEY])
        if described["version"] != _VERSION:
            return None
        return Attempt(
            submission_id=details.submission_id,
            job_id=described["job_id"],
            name=described["name"],
            number=described["attempt"],
            state=JobState(details.status.value.lower()),
            message=(details.message or "").split(", last available logs")[0],
            exit_code=details.driver_exit_code,
            started=moment(details.start_time),
            ended=moment(details.end_time),
            user=described["user"],
            content=described["content"],
            workdir=described["workdir"],
            cpus=described["cpus"],
        )
    except (KeyError, TypeError, ValueError):
        return None
