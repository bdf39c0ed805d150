"""Commands on the database: upgrade, check."""

from controller.cli.errors import reports_errors
from controller.cli.options import StorageUrl, storage_or_default
from controller.cli.text import print_lines, stdout_console
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
    from controller.storage.engine import open_existing

    open_existing(url).dispose()
    print_lines(stdout_console(), f"{mask_passwords(url)}: reachable, and its schema is this release's")
