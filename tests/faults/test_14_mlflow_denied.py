"""MLflow answers 401 or 403: the cause is named, once, and the messages stay."""

import http.server
import threading
import time

import pytest

from controller.tracking.tracker import Tracker, TrackingState, Waits

QUICK = Waits(poll_s=0.05, first_s=0.05, longest_s=0.05)


@pytest.fixture
def refusing():
    """Returns a starter of a proxy that refuses each request with one status, as one before MLflow does."""
    servers = []

    def start(status, body):
        class Refuse(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *args):
                del args
                server.requests += 1

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
        server.requests = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server, f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _refusal(uri, outbox, wait_s=0.0):
    lines = []
    tracker = Tracker(uri, outbox, study="s", experiment="e", say=lines.append, waits=QUICK)
    tracker.start()
    tracker.progress(1, {"hypervolume": 0.5})
    start = time.monotonic()
    assert not tracker.flush(60)
    assert time.monotonic() - start < 30
    assert tracker.state is TrackingState.DENIED
    time.sleep(wait_s)
    tracker.stop(10)
    assert outbox.pending(1)
    assert tracker.address is None
    (line,) = lines
    return line


def test_401_names_the_credentials(refusing, outbox):
    server, host = refusing(401, b"You are not authenticated.")
    line = _refusal(f"http://me:secret@{host}", outbox, wait_s=0.5)
    assert "MLFLOW_TRACKING_USERNAME" in line
    assert "(401)" in line
    assert "secret" not in line
    assert server.requests > 2


def test_403_of_an_account_names_the_right_and_the_hosts(refusing, outbox):
    _, host = refusing(403, b'{"error_code": "PERMISSION_DENIED", "message": "no right to e"}')
    line = _refusal(f"http://{host}", outbox)
    assert "refuses the account (403)" in line
    assert "--allowed-hosts" in line
    assert "no right to e" in line


def test_404_names_the_address(refusing, outbox):
    _, host = refusing(404, b"<html>nothing here</html>")
    assert "check mlflow.tracking_uri" in _refusal(f"http://{host}", outbox)


def test_403_of_a_host_name_that_the_server_does_not_allow(mlflow_server, outbox):
    uri = mlflow_server("--allowed-hosts", "elsewhere.example")
    assert f"start the server with --allowed-hosts {uri.removeprefix('http://')}" in _refusal(uri, outbox)
