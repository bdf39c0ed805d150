"""What torch.compile needs on a machine to make code for its CPU; torch itself is not loaded."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

_DEFAULTS = {"darwin": "clang++", "win32": "cl"}


def compiler_obstacle() -> str | None:
    """Return why torch.compile can't make code for the CPU here; None where it can."""
    compiler = os.environ.get("CXX", _DEFAULTS.get(sys.platform, "g++"))
    if shutil.which(compiler) is None:
        return (
            f"torch.compile needs a C++ compiler and finds no {compiler!r}; install one (on Debian: apt install g++) "
            "or set CXX to the path of one"
        )
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        return (
            f"torch.compile needs the headers of Python and finds no {headers / 'Python.h'}; install them (on Debian: "
            "apt install python3-dev)"
        )
    return None
