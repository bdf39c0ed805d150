"""Commands on the database: upgrade, check."""

from controller.cli.errors import reports_errors
from controller.cli.options import StorageUrl, storage_or_default
from controller.cli.text import print_lines, stdout_console
from controller.errors import UsageError
from controller.problems import mask_passwords


@reports_errors
def upgrade(storage: StorageUrl = None) -> None:
    """Bring a database of an older release to this release's schema. Keep a copy of it."""
    from controller.storage import upgrade_database

    url = storage_or_default(storage)
    before, after = upgrade_database(url)
    change = f"has schema {after} already" if before == after else f"upgraded from {before or 'nothing'} to {after}"
    print_lines(stdout_console(), f"{mask_passwords(url)}: {change}")


@reports_errors
def check(storage: StorageUrl = None) -> None:
    """Check that the database answers and has this release's schema."""
    url = storage_or_default(storage)
    _refuse_missing_file(url)
    from controller.storage import open_database

    open_database(url).dispose()
    print_lines(stdout_console(), f"{mask_passwords(url)}: reachable, and its schema is this release's")


def _refuse_missing_file(url: str) -> None:
    """Opening a SQLite file that is not there would make it."""
    from pathlib import Path

    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return
    if parsed.get_backend_name() == "sqlite" and parsed.database and not Path(parsed.database).exists():
        raise UsageError(
            f"there is no database at {mask_passwords(url)}; a search makes it, or name another: --storage URL"
        )
