"""The MLflow server is down or slow: the search never waits for it, and nothing is lost."""

import logging
import socket
import statistics
import time

import pytest

from controller.tracking.tracker import Tracker, TrackingState, Waits

QUICK = Waits(poll_s=0.05, first_s=0.05, longest_s=0.2)

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # mlflow's models


def _until(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _median_put_s(tracker, steps):
    """Each put that waited for the server would take as long as its timeouts."""

    def put_s(step):
        start = time.monotonic()
        tracker.progress(step, {"hypervolume": step / 100})
        return time.monotonic() - start

    return statistics.median(put_s(step) for step in steps)


def test_search_goes_on_and_messages_are_sent_once_the_server_is_back(mlflow_server, free_port, outbox, caplog):
    lines = []
    uri = f"http://127.0.0.1:{free_port}"
    tracker = Tracker(uri, outbox, study="s", experiment="down", say=lines.append, waits=QUICK)
    tracker.start()
    tracker.begin(name="n", metric="accuracy", params={"a": "b"}, job_yaml=None)
    with caplog.at_level(logging.WARNING):
        _until(lambda: tracker.state is TrackingState.WAITING)
        assert _median_put_s(tracker, range(1, 51)) < 0.25
        assert not tracker.flush(0.2)
    assert "urllib3.connectionpool" not in {record.name for record in caplog.records}
    assert len(lines) == 1
    assert f"MLflow at {uri} cannot be written now; the search goes on" in lines[0]
    assert len(outbox.pending(100)) == 51

    mlflow_server()
    assert tracker.flush(30)
    tracker.stop(10)
    assert lines[1:] == ["MLflow answers again; what waited is being sent."]

    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("down").experiment_id])
    history = client.get_metric_history(run.info.run_id, "hypervolume")
    assert [m.step for m in history] == list(range(1, 51))


def test_server_that_never_answers_holds_up_nothing(outbox, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        tracker = Tracker(uri, outbox, study="s", experiment="slow", say=lambda line: None, waits=QUICK)
        tracker.start()
        assert _median_put_s(tracker, range(50)) < 0.25
        start = time.monotonic()
        assert not tracker.flush(0.3)
        assert time.monotonic() - start < 1
        start = time.monotonic()
        tracker.stop(0.1)
        assert time.monotonic() - start < 1
        assert len(outbox.pending(100)) == 50


def test_messages_of_an_ended_process_are_sent_by_the_next(outbox, tmp_path):
    first = Tracker("sqlite:///unused.db", outbox, study="s", experiment="later", say=print, waits=QUICK)
    first.progress(1, {"hypervolume": 0.5})
    assert not first.flush(0.1)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    second = Tracker(uri, outbox, study="s", experiment="later", say=print, waits=QUICK)
    second.start()
    assert second.flush(30)
    second.stop(10)
    assert not outbox.pending(1)


@pytest.mark.parametrize("failure", [OSError("disk"), RuntimeError("database is locked")])
def test_outbox_that_fails_does_not_end_the_thread(outbox, failure, tmp_path):
    class Flaky:
        def __init__(self):
            self.failures = 3

        def put(self, kind, payload):
            outbox.put(kind, payload)

        def pending(self, limit):
            self.failures -= 1
            if self.failures > 0:
                raise failure
            return ()

        def mark_sent(self, ids):
            outbox.mark_sent(ids)

    lines, flaky = [], Flaky()
    tracker = Tracker("http://127.0.0.1:9", flaky, study="s", experiment="e", say=lines.append, waits=QUICK)
    tracker.start()
    _until(lambda: flaky.failures < -1)
    tracker.stop(10)
    assert len(lines) >= 1
    assert str(failure) in lines[0]
