"""Row 24: `../` or odd characters in names: refused by allow-list."""

import pytest
from typer.testing import CliRunner

from controller.cli.app import app
from controller.job import JobError, check_study_name, parse_job

JOB = {"name": "demo", "model": {"id": "org/model"}, "data": {"source": "org/data"}}
HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    ".hidden",
    "a/b",
    "a\\b",
    "a b",
    "a\n",
    "a\x00",
    "ä",
    "a;rm",
    "$(x)",
    "<b>",
    "a'--",
    "x" * 65,
    "\u202egpj",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_study_has_a_plain_name(name):
    with pytest.raises(JobError, match="name"):
        parse_job({**JOB, "name": name})
    with pytest.raises(JobError, match="letters, digits, dots, dashes and underscores"):
        check_study_name(name)


@pytest.mark.parametrize("command", [["front"], ["export", "--trial", "1", "--out", "x"]])
@pytest.mark.parametrize("name", ["../x", ".hidden", "a\x1b[31m"])
def test_the_command_line_refuses_them_too(command, name):
    done = CliRunner().invoke(app, [command[0], name, *command[1:]])
    assert done.exit_code == 2
    assert "letters, digits" in done.output
    assert "\x1b" not in done.output


@pytest.mark.parametrize("revision", ["../x", "a b", "-" * 129, "main;x", "a\n"])
def test_a_revision_is_plain(revision):
    with pytest.raises(JobError, match="revision"):
        parse_job({**JOB, "model": {"id": "org/model", "revision": revision}})


@pytest.mark.parametrize("experiment", ["../x", "a/b", ".a", "<script>", "a\n", "x" * 200])
def test_an_experiment_is_plain(experiment):
    with pytest.raises(JobError, match=r"mlflow\.experiment"):
        parse_job({**JOB, "mlflow": {"experiment": experiment}})


@pytest.mark.parametrize(
    "part",
    [{"model": {"id": "a\x00b"}}, {"data": {"source": "a\x1b"}}, {"target": {"table": "a\n"}}, {"space": {"a\x07": 1}}],
)
def test_no_path_and_no_key_holds_control_characters(part):
    with pytest.raises(JobError, match="control characters"):
        parse_job({**JOB, **part})
