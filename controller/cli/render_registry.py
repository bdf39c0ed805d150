"""Shows registered models."""

from rich.console import Console

from controller.cli.text import print_lines
from controller.registry.report import RegisteredVersion


def render_version(console: Console, version: RegisteredVersion) -> None:
    """Show a version, and how to serve it and to ask it."""
    source = "" if version.study is None else f", trial {version.trial} of study {version.study}"
    stands = "" if version.alias is None else f" is {version.alias}"
    before = "" if version.replaced is None else f" (before: version {version.replaced})"
    print_lines(console, f"version {version.version} of {version.name}{stands}{source}{before}", style="green")
    print_lines(console, f"to serve it: {version.serve}")
    print_lines(console, f"to ask it: {version.request}")
