"""Shows how a model in use does on new data."""

import shlex

from rich.console import Console

from controller.cli.render import render_front
from controller.cli.text import print_lines
from controller.rechecking.report import ModelCheck, Verdict
from controller.registry.names import parse_model

_STYLES = {Verdict.FINE: "green", Verdict.BELOW: "red", Verdict.CANNOT_TELL: "yellow"}


def render_check(console: Console, check: ModelCheck) -> None:
    """Show what was measured, the verdict, and the front of the new search where there was one."""
    version = "" if check.version is None else f" (version {check.version})"
    print_lines(console, f"{check.model}{version}, trial {check.trial} of study {check.study}, on {check.data}")
    for sentence in check.sentences:
        print_lines(console, f"  {sentence}")
    print_lines(console, f"verdict: {check.verdict}", style=_STYLES[check.verdict])
    if check.search is not None and check.new_study is not None:
        print_lines(console, f"searched anew as study {check.new_study}:")
        render_front(console, check.search)
        name = check.study if check.version is None else parse_model(check.model).name
        words = ["export", check.new_study, "--pick", "knee", "--out", check.new_study, "--register", "--name", name]
        print_lines(console, f"to ship it: paretrim {shlex.join(words)}")
