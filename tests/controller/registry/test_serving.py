"""A registered model behind `mlflow models serve`: the commands that a registration prints, run as they are."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.registry.registration import run_register

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # mlflow's models


@contextmanager
def server(command, port, log):
    """The printed command, on another port, ended with all that it started."""
    address, *words = shlex.split(command)
    name, _, uri = address.partition("=")
    words = [*words[:-1], str(port)]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": programs, name: uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    with log.open("wb") as output:
        running = subprocess.Popen(words, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", running, log)
        yield
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGTERM)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait(20)


def wait_for(url, running, log):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and running.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"mlflow models serve did not start: {log.read_text()[-2000:]}")


def post(url, body):
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_the_printed_server_answers_the_printed_request(tiny_artifact, registry_uri, load_served, free_port, tmp_path):
    version = run_register(tiny_artifact("tiny_text"), registry_uri, name="served")
    words = shlex.split(version.request)
    assert words[0] == "curl"
    body = words[words.index("-d") + 1]
    path = words[-1].partition("/invocations")[1]
    with server(version.serve, free_port, tmp_path / "log"):
        url = f"http://127.0.0.1:{free_port}{path}"
        answer = post(url, body)
        more = json.dumps({"dataframe_records": [{"sentence": "w1 w2"}, {"sentence": "w7 w3 w3"}]})
        answers = post(url, more)
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post(url, json.dumps({"dataframe_records": [{"text": "another column"}]}))
    served = load_served("models:/served@champion")
    expected = served.predict(json.loads(body)["dataframe_records"][0])
    assert answer["predictions"] == [
        {"label": expected["label"][0], "score": pytest.approx(expected["score"][0], abs=1e-6)}
    ]
    assert [row["label"] for row in answers["predictions"]] == list(
        served.predict([{"sentence": "w1 w2"}, {"sentence": "w7 w3 w3"}])["label"]
    )
