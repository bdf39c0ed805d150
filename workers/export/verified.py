"""An artifact that was verified, read back: whatever has changed since is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from workers.export.artifact import file_digests
from workers.export.report import SCHEMA_VERSION, ExportReport

REPORT = "report.json"
_BESIDE = frozenset((REPORT, "README.md"))
"""Written from what was measured, after all other files."""
_MOST_REPORT_BYTES = 16 * 2**20
_NAMED = 5


class UnverifiedError(ValueError):
    """A folder is no artifact, or not the one that was verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedArtifact:
    """An artifact whose files are those that were verified.

    Attributes:
        folder: The folder.
        report: What was measured of it.
    """

    folder: Path
    report: ExportReport


def read_verified(folder: Path) -> VerifiedArtifact:
    """Read an artifact's report, and check that every file is as it was when it was verified.

    Raises:
        UnverifiedError: There is no report, or files are missing, changed or further ones.
    """
    path = folder / REPORT
    try:
        if path.stat().st_size > _MOST_REPORT_BYTES:
            raise UnverifiedError(f"{path} has {path.stat().st_size} bytes, more than any that an export writes")
        report = ExportReport.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnverifiedError(
            f"a verified artifact has a {REPORT}; {str(folder)!r} has none that can be read ({error.strerror}); give "
            "the folder that `paretrim export` wrote"
        ) from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise UnverifiedError(f"{path} is no report of this release of Paretrim: {error}; export again") from error
    if report.schema_version != SCHEMA_VERSION:
        raise UnverifiedError(
            f"this program reads reports of schema_version {SCHEMA_VERSION}; got {report.schema_version} in {path}; "
            "use the paretrim release that wrote it"
        )
    _check_files(folder, report)
    return VerifiedArtifact(folder=folder, report=report)


def _check_files(folder: Path, report: ExportReport) -> None:
    found = {name: digest for name, digest in file_digests(folder).items() if name not in _BESIDE}
    known = report.files.keys()
    problems = {
        "missing": sorted(known - found.keys()),
        "not among those that were verified": sorted(found.keys() - known),
        "changed": sorted(name for name in known & found.keys() if report.files[name] != found[name]),
    }
    said = [
        f"{', '.join(names[:_NAMED])}{' and more' if len(names) > _NAMED else ''}: {what}"
        for what, names in problems.items()
        if names
    ]
    if said:
        raise UnverifiedError(
            f"an artifact is as it was when it was verified; in {str(folder)!r} {'; '.join(said)}; export it again"
        )
