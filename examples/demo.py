"""What `make demo` runs: train a small model, search it, export and register the pick, ask it, and say how to serve it.

Everything goes to the folder `paretrim-demo`; running it again continues what is there.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

from examples.digits import train_digits_model, write_digits

FOLDER = Path("paretrim-demo")
PICK = "fastest within 2% quality"
_PORT = 5001
_STORE = f"sqlite:///{FOLDER}/.paretrim/mlflow.db"
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
        ["export", "digits", "--pick", PICK, "--out", "best", "--register"],
    )
    for command in commands:
        code = _paretrim(command)
        if code:
            return code
    _ask()
    _say(f"done in {time.monotonic() - started:.0f} s; the model is in {FOLDER / 'best'}, its card is README.md there")
    _say(
        f"serve it: PATH=.venv/bin:$PATH MLFLOW_TRACKING_URI={_STORE} mlflow models serve -m models:/digits@champion "
        f"--env-manager local -p {_PORT}"
    )
    _say(
        f"ask it: curl -H 'Content-Type: application/json' -d @{FOLDER / 'request.json'} "
        f"http://127.0.0.1:{_PORT}/invocations"
    )
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


def _ask() -> None:
    """Ask the registered model for one digit, through MLflow as a server does."""
    os.environ["MLFLOW_TRACKING_URI"] = _STORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of its own type hints as it is imported.
        import mlflow.pyfunc
        import pandas as pd

        served = mlflow.pyfunc.load_model("models:/digits@champion")
    row = json.loads((FOLDER / "data" / "test.jsonl").read_text(encoding="utf-8").partition("\n")[0])
    request = {"dataframe_records": [{"image": row["image"]}]}
    (FOLDER / "request.json").write_text(json.dumps(request) + "\n", encoding="utf-8")
    answer = served.predict(pd.DataFrame(request["dataframe_records"])).iloc[0]
    _say(f"asked for a {row['label']}, the registered model answers {answer['label']}, sure to {answer['score']:.3f}")


def _paretrim(arguments: list[str]) -> int:
    _say(f"$ paretrim {shlex.join(arguments)}")
    program = Path(sys.executable).with_name("paretrim")
    # All of it stays in the demonstration's folder, whatever database and server the shell names.
    environment = {name: x for name, x in os.environ.items() if name not in ("PARETRIM_STORAGE", "MLFLOW_TRACKING_URI")}
    return subprocess.run([program, *arguments], cwd=FOLDER, env=environment, check=False).returncode  # noqa: S603


def _say(line: str) -> None:
    sys.stdout.write(f"\n{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
