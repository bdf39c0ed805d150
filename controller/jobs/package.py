"""What travels to a cluster: the job with paths that mean something there, and without passwords."""

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from controller.errors import UsageError
from controller.job import JobSpec, parse_job
from controller.job_file import anchored_sqlite, load_job, relative_paths
from controller.jobs.identity import job_id_of
from controller.plain_file import show_path
from controller.problems import JobError, mask_passwords, show

JOB_FILE = "job.json"
_MOST_BYTES = 100_000
"""What the cluster can hand to a process as one variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPackage:
    """A job that is fit to be submitted.

    Attributes:
        job: The job; its paths are those of the cluster.
        content: What it says, without defaults: where results are kept is then for the cluster to say.
    """

    job: JobSpec
    content: dict[str, Any]

    @classmethod
    def of(cls, job: JobSpec, *, where: str = "the job") -> Self:
        """Pack a job.

        Raises:
            JobError: It holds a password, or is too large.
        """
        content = job.model_dump(mode="json", exclude_unset=True)
        secrets = [
            f"{place}: a password must not travel with a job, as all who see the cluster see its jobs; leave it out "
            "and give it to the cluster's nodes (PGPASSFILE, MLFLOW_TRACKING_PASSWORD; see deploy/README.md)"
            for place, text in _texts(content)
            if "://" in text and mask_passwords(text) != text
        ]
        if secrets:
            raise JobError(where, secrets)
        size = len(json.dumps(content))
        if size > _MOST_BYTES:
            raise JobError(where, [f"a job that is submitted has at most {_MOST_BYTES:,} characters; got {size:,}"])
        return cls(job=job, content=content)

    @classmethod
    def unpack(cls, content: Any) -> Self:
        """Read what was submitted earlier.

        Raises:
            JobError: It is no job of this release.
        """
        return cls.of(parse_job(content, where="the submitted job"))

    @property
    def job_id(self) -> str:
        """Id of the job."""
        return job_id_of(self.job)


def pack_file(path: Path, *, same_files: bool, storage: str | None = None) -> JobPackage:
    """Read a job file for a cluster.

    Args:
        path: The file.
        same_files: Whether the cluster's nodes see this machine's files under the same paths.
        storage: URL of the database, in place of the job's.

    Raises:
        JobError: The job is not valid, holds a password, or names paths that only this machine knows.
    """
    job = load_job(path)
    if not same_files:
        strange = [
            f"{key}: {show(text)} is relative to the job file's folder, which the cluster does not see; write the "
            "absolute path that it has there, or submit with --same-files if the nodes mount this machine's folders"
            for key, text in relative_paths(path).items()
        ]
        if strange:
            raise JobError(show_path(path), strange)
    if storage is not None:
        there = anchored_sqlite(storage, Path.cwd())
        if there != storage and not same_files:
            raise UsageError(f"a SQLite file on the cluster has an absolute path; got {show(storage)} for --storage")
        job = parse_job({**job.model_dump(mode="json", exclude_unset=True), "storage": there}, where="--storage")
    return JobPackage.of(job, where=show_path(path))


def is_this_machine(address: str) -> bool:
    """Whether an address is loopback, so that the cluster most likely runs here and sees the same files."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_address(address: str | None) -> str:
    """Return the address of a cluster's dashboard if it is one.

    Raises:
        UsageError: There is none, or it is no http address.
    """
    if not address:
        raise UsageError(
            "a cluster is named by --address http://HEAD:8265 or the environment variable PARETRIM_ADDRESS; got none; "
            "`paretrim serve-local` starts one on this machine"
        )
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.username is not None:
        raise UsageError(
            f"the address of a cluster is that of its dashboard, such as http://HEAD:8265; got {show(address)}"
        )
    return address.rstrip("/")


def _texts(content: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield place, content
    elif isinstance(content, (dict, list)):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _texts(value, f"{place}.{key}" if place else str(key))
