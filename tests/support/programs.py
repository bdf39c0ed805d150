"""Programs that stand in Markdown for people to copy, run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def program_in(markdown: str, *, after: str) -> str:
    """The first Python block behind a heading or another text."""
    found = re.search(r"^```python\n(.*?)^```$", markdown.partition(after)[2], re.MULTILINE | re.DOTALL)
    assert found is not None, f"no program behind {after!r}"
    return found[1]


def output_of(program: str, folder: Path) -> str:
    """What a program prints that runs in a folder, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
