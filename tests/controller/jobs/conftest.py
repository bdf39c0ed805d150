"""A cluster on this machine, started as a user starts it, and a job small enough for tests."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("paretrim"))


class LocalCluster:
    """What `paretrim serve-local` started, and commands in terminals that have its variables."""

    def __init__(self, process, services):
        self.process = process
        self.services = services
        self.environment = {**os.environ, **services["environment"]}
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            self.environment.pop(name, None)

    def run(self, *arguments, code=0, **variables):
        done = subprocess.run(
            [PROGRAM, *map(str, arguments)],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def start(self, *arguments):
        return subprocess.Popen([PROGRAM, *arguments], env=self.environment, stdout=subprocess.PIPE, text=True)

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--json").stdout)


def unused_ports(count):
    from controller.jobs.local.child import free_ports

    return free_ports(count)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    port, mlflow_port = unused_ports(2)
    command = [PROGRAM, "serve-local", "--dir", folder, "--port", port, "--mlflow-port", mlflow_port, "--cpus", 2]
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [*map(str, command), "--json"], stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line == "}\n":
            break
    else:
        pytest.fail((folder / "stderr").read_text())
    found = LocalCluster(process, json.loads("".join(lines)))
    found.folder = folder
    with process:  # which closes its output
        yield found
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(240)


@pytest.fixture
def write_job(tiny_image, tmp_path):
    """Returns a writer of the job file of a search that lasts until it is stopped."""

    def write(name="tiny", **search):
        content = {
            "name": name,
            "model": json.loads(tiny_image.model.model_dump_json(exclude_unset=True)),
            "data": json.loads(tiny_image.data.model_dump_json(exclude_unset=True)),
            "target": {"name": "cpu-onnxruntime", "table": str(tiny_image.table)},
            "search": {"sampler": "random", "trials": 100_000, "racing": False, **search},
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        return path

    return write
