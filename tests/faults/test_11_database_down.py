"""Fault 11: the database is down at the start: that is said at once, without the password."""

import pytest
from typer.testing import CliRunner

from controller.cli.app import app
from controller.cli.exit_codes import ExitCode
from controller.storage import StorageError, open_database


def test_a_database_that_is_down_is_told_at_once(free_port: int) -> None:
    url = f"postgresql://user:secret@127.0.0.1:{free_port}/name"
    with pytest.raises(
        StorageError, match=rf"postgresql.*://user:\*\*\*@127.0.0.1:{free_port}/name.*refused"
    ) as caught:
        open_database(url)
    assert "check the URL and that it is up" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_command_line_says_so_too(free_port: int) -> None:
    url = f"postgresql://user:secret@127.0.0.1:{free_port}/name"
    done = CliRunner().invoke(app, ["front", "digits", "--storage", url])
    assert done.exit_code == ExitCode.PREFLIGHT
    assert "***" in done.stderr
    assert "secret" not in done.output
