"""What the pages tell people to type: commands that exist, jobs that are valid, Python names that are there."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from controller.cli.app import app
from controller.job import parse_job
from controller.pick import parse_pick

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*DOCS, ROOT / "README.md", ROOT / "deploy" / "README.md"]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALLEST = {"name": "demo", "model": {"id": "org/model"}, "data": {"source": "org/data"}}
OTHER_PROGRAMS = {"make", "mkdir", "cp", "cd", "python", "pip"}


def blocks(path, *kinds):
    return [text for kind, text in FENCE.findall(path.read_text()) if kind in kinds]


def commands():
    """Every line that is typed: in console blocks behind a prompt; elsewhere those that begin with the program."""
    for path in PAGES:
        for block in blocks(path, "console"):
            for line in block.splitlines():
                if line.startswith("$ "):
                    yield pytest.param(line.removeprefix("$ "), id=f"{path.name}: {line[2:60]}")
        for block in blocks(path, "", "bash"):
            for line in block.splitlines():
                if re.match(r"(\$ )?paretrim [a-z]", line):
                    yield pytest.param(line.removeprefix("$ "), id=f"{path.name}: {line[:60]}")


@pytest.mark.parametrize("line", list(commands()))
def test_a_command_exists_with_all_of_its_options(line):
    program, *words = shlex.split(line, comments=True)
    if program != "paretrim":
        assert program in OTHER_PROGRAMS
        return
    command = typer.main.get_command(app)
    context = command.make_context("paretrim", [word for word in words if word])
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, list(rest), parent=context)
    if context.params.get("pick") is not None:
        parse_pick(context.params["pick"])


def yaml_blocks():
    for path in PAGES:
        for number, block in enumerate(blocks(path, "yaml")):
            yield pytest.param(block, id=f"{path.name}, {number}")


@pytest.mark.parametrize("block", list(yaml_blocks()))
def test_a_job_or_a_part_of_one_is_valid(block):
    included = re.fullmatch(r'--8<-- "(.+)"\n', block)
    content = yaml.safe_load((ROOT / included[1]).read_text() if included else block)
    job = parse_job({**SMALLEST, **content})
    assert job.name == content.get("name", "demo")


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_python_names_what_there_is(path):
    for block in blocks(path, "python"):
        if block.startswith("--8<--"):
            continue
        tree = ast.parse(block)
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                assert hasattr(importlib.import_module(node.value.id), node.attr)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_files_that_a_page_includes_are_marked_as_the_site_reads_it(path):
    for line in re.findall(r"^\W*8 *<.*$", path.read_text(), re.MULTILINE):
        included = re.fullmatch(r'--8<-- "(.+)"', line)
        assert included is not None, line
        assert (ROOT / included[1]).is_file(), line


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_files_that_a_page_names_are_there(path):
    named = re.findall(
        r"`((?:examples|benchmarks|deploy|evaluators|workers|tests|controller)/[\w./-]+)", path.read_text()
    )
    assert all((ROOT / name).exists() for name in named), named
