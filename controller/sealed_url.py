"""Hands the URL of a database to a process beside this one, without its password in anything that is pickled."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError


class SealedUrlError(RuntimeError):
    """The file with the password is gone, or can't be read by this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedUrl:
    """A database URL that may be pickled, printed and logged.

    Attributes:
        public: The URL without its password.
        password_file: File with the whole URL, for its owner only; None where there is no password.
    """

    public: str
    password_file: Path | None = None

    def open(self) -> str:
        """Return the URL with its password.

        Raises:
            SealedUrlError: The file can't be read.
        """
        if self.password_file is None:
            return self.public
        try:
            return self.password_file.read_text(encoding="utf-8")
        except OSError as error:
            raise SealedUrlError(
                f"the study must read the database's password from {self.password_file}; {error.strerror}; it runs on "
                "the controller's node, as the same user"
            ) from error


@contextmanager
def sealed(url: str) -> Iterator[SealedUrl]:
    """Seal a URL for as long as the block runs; a password lies meanwhile in a file that only this user can read.

    Args:
        url: URL of a database.
    """
    try:
        parsed = make_url(url)
        has_secret = parsed.password is not None or "password" in parsed.query
    except (ArgumentError, ValueError):  # opening it says what is wrong
        yield SealedUrl(public=url)
        return
    if not has_secret:
        yield SealedUrl(public=url)
        return
    # Not `parsed.set(password=None)`: None leaves the password there.
    public = URL.create(
        parsed.drivername, parsed.username, None, parsed.host, parsed.port, parsed.database, parsed.query
    )
    public = public.difference_update_query(["password"])
    with tempfile.TemporaryDirectory(prefix="paretrim-") as folder:
        path = Path(folder, "storage")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(url)
        yield SealedUrl(public=public.render_as_string(hide_password=False), password_file=path)
