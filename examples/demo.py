"""What `make demo` runs: train a small model, search it, export the pick, and say how to look at the runs.

Everything goes to the folder `paretrim-demo`; running it again continues what is there.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from examples.digits import train_digits_model, write_digits

FOLDER = Path("paretrim-demo")
PICK = "fastest within 2% quality"
_JOB = Path(__file__).with_name("digits.yaml")


def main() -> int:
    """Run the demonstration in the current folder.

    Returns:
        Exit code of the first command that failed, else 0.
    """
    started = time.monotonic()
    FOLDER.mkdir(exist_ok=True)
    _train()
    shutil.copyfile(_JOB, FOLDER / "job.yaml")
    shutil.rmtree(FOLDER / "best", ignore_errors=True)
    commands = (
        ["validate", "job.yaml"],
        ["search", "job.yaml"],
        ["export", "digits", "--pick", PICK, "--out", "best"],
    )
    for command in commands:
        code = _paretrim(command)
        if code:
            return code
    _say(f"done in {time.monotonic() - started:.0f} s; the model is in {FOLDER / 'best'}, its card is README.md there")
    _say(
        "look at the runs: cd paretrim-demo && ../.venv/bin/mlflow ui --backend-store-uri sqlite:///.paretrim/mlflow.db"
    )
    _say(f"or open the front itself: {FOLDER / '.paretrim/reports/digits/front.html'}")
    return 0


def _train() -> None:
    if (FOLDER / "model" / "model.safetensors").exists():
        return
    _say("training a vision transformer on scikit-learn's digits, once")
    import torch

    # So small a model gains nothing from threads, and loses much where other work runs beside it.
    torch.set_num_threads(1)
    write_digits(FOLDER / "data")
    unfinished = FOLDER / "model-unfinished"
    accuracy = train_digits_model(FOLDER / "data", unfinished)
    unfinished.rename(FOLDER / "model")
    _say(f"accuracy on digits that training did not see: {accuracy:.4f}")


def _paretrim(arguments: list[str]) -> int:
    _say(f"$ paretrim {shlex.join(arguments)}")
    program = Path(sys.executable).with_name("paretrim")
    return subprocess.run([program, *arguments], cwd=FOLDER, check=False).returncode  # noqa: S603


def _say(line: str) -> None:
    sys.stdout.write(f"\n{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
