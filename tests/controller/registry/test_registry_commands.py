"""Commands on registered models: what they print, and what they refuse before anything heavy is loaded."""

import json

import pytest
from typer.testing import CliRunner

from controller.cli.app import app
from controller.cli.exit_codes import ExitCode

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # mlflow's models


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_register_promote_and_rollback_from_the_command_line(tiny_artifact, registry_uri):
    folder = tiny_artifact("tiny_text")
    to = ["--tracking-uri", registry_uri]
    done = run("register", folder, "--name", "typed", *to)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[0] == "version 1 of typed is champion, trial 0 of study tiny"
    assert "to serve it: MLFLOW_TRACKING_URI=sqlite:////" in done.stdout
    assert "to ask it: curl" in done.stdout
    second = json.loads(run("register", folder, "--name", "typed", "--alias", "next", "--json", *to).stdout)
    assert (second["version"], second["alias"], second["schema_version"]) == ("2", "next", 1)
    assert json.loads(run("promote", "typed", "--version", 2, "--json", *to).stdout)["replaced"] == "1"
    back = run("rollback", "typed", *to)
    assert back.stdout.startswith("version 1 of typed is champion")
    assert "(before: version 2)" in back.stdout
    refused = run("rollback", "typed", *to)
    assert refused.exit_code == ExitCode.USAGE
    assert "has stood for version 1 only" in refused.stderr


def test_a_folder_that_was_not_verified_has_the_code_of_that(tmp_path, registry_uri):
    done = run("register", tmp_path, "--tracking-uri", registry_uri)
    assert done.exit_code == ExitCode.NOT_VERIFIED
    assert "report.json" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("promote", "a/b", "--version", 1),
        ("promote", "a", "--version", 0),
        ("promote", "a", "--version", 1, "--alias", "latest"),
        ("rollback", "a", "--alias", "v1"),
        ("register", "d", "--name", "a/b"),
        ("export", "demo", "--out", "x", "--trial", 1, "--alias", "champion"),
        ("export", "demo", "--out", "x", "--trial", 1, "--register", "--alias", "latest"),
    ],
)
def test_names_that_are_none_are_usage(arguments):
    assert run(*arguments).exit_code == ExitCode.USAGE
