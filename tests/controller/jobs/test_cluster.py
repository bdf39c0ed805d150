"""Jobs on a real cluster: submitted, closed, watched, stopped, resumed; and the services that carry them."""

import re
import signal
import stat
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from controller.storage import Repository, TrialState, open_database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DEADLINE_S = 300


def wait_for(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(1)
    pytest.fail(f"{what} did not happen")


def completed(cluster, job):
    study = cluster.json("status", job)["study"]
    return study["trials"].get("complete", 0) if study else 0


def trials_of(cluster, name):
    repository = Repository(open_database(cluster.services["storage"]))
    return repository.trials(repository.find_study(name).id)


def descendants(pid):
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found, new = set(), {pid}
    while new:
        found |= new
        new = {child for child, parent in parents.items() if parent in new} - found
    return found


def listening_addresses(pids):
    """Addresses, as the kernel writes them, that processes listen on."""
    sockets = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                sockets[f"socket:[{fields[9]}]"] = fields[1].partition(":")[0]
    found = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                found.add(sockets.get(str(handle.readlink())))
            except OSError:
                continue
    return found - {None}


def test_a_job_is_submitted_watched_stopped_and_resumed(cluster, write_job):
    path = write_job()
    job = cluster.json("submit", path)["job_id"]
    assert re.fullmatch(r"tiny-[0-9a-f]{12}", job)
    again = cluster.json("submit", path)
    assert (again["job_id"], again["outcome"]) == (job, "already active")

    conflict = cluster.run("submit", write_job(trials=200_000), code=2)
    assert "search.trials: 100000 before, now 200000" in conflict.stderr
    write_job()

    wait_for(lambda: completed(cluster, job) >= 5, "five scored trials")
    shown = cluster.run("status", "tiny").stdout
    assert f"{job}: running, attempt 1" in shown
    assert "front: " in shown

    follower = cluster.start("logs", "-f", job)
    stopped = cluster.run("stop", job).stdout
    assert f"to go on: paretrim resume {job}" in stopped
    followed, _ = follower.communicate(timeout=60)
    assert "interrupted; every finished trial is kept" in followed
    assert f"to go on: paretrim resume {job}" in followed
    before = trials_of(cluster, "tiny")
    assert not [trial for trial in before if trial.state is TrialState.RUNNING]

    ended = cluster.json("submit", path)
    assert (ended["job_id"], ended["outcome"]) == (job, "already ended")
    assert cluster.json("resume", job)["attempt"]["number"] == 2
    assert cluster.json("resume", job)["outcome"] == "already active"
    scored = [trial.number for trial in before if trial.state is TrialState.COMPLETE]
    wait_for(lambda: completed(cluster, job) > len(scored), "a trial after the resume")
    check_metrics(cluster)
    cluster.run("stop", job)
    after = trials_of(cluster, "tiny")
    still = {trial.number for trial in after if trial.state is TrialState.COMPLETE}
    assert still.issuperset(scored)
    assert max(Counter(trial.number for trial in after).values()) == 1
    assert [attempt["state"] for attempt in cluster.json("list")["jobs"][0]["attempts"]] == ["stopped", "stopped"]
    assert "every finished trial is kept" in cluster.run("logs", job, "--attempt", "1").stdout


def check_metrics(cluster):
    def scrape():
        with urllib.request.urlopen(cluster.services["metrics"], timeout=10) as answer:
            return answer.read().decode()

    text = wait_for(lambda: found if "ray_paretrim_trials{" in (found := scrape()) else None, "metrics of trials")
    assert re.search(r'ray_paretrim_trials\{[^}]*state="complete"[^}]*study="tiny"', text)
    assert "ray_paretrim_stage_seconds{" in text
    assert "ray_paretrim_queue{" in text


def test_a_search_runs_to_its_end_and_logs_json(cluster, write_job):
    path = write_job(name="short", trials=4, seed=7)
    job = cluster.json("submit", path, "--log", "json")["job_id"]
    wait_for(lambda: cluster.json("status", job)["job"]["attempts"][-1]["state"] != "running", "the end")
    log = cluster.run("logs", job).stdout
    assert cluster.json("status", job)["job"]["attempts"][-1]["exit_code"] == 0, log
    assert re.search(
        rf'"logger": "controller.study_observer".*"job": "{job}".*"trial": 1, "attempt": "[0-9a-f]{{32}}"', log
    )
    assert cluster.json("status", job)["study"]["state"] == "complete"
    assert "has succeeded" in cluster.run("resume", job, code=2).stderr
    with urllib.request.urlopen(f"{cluster.services['mlflow']}/health", timeout=10) as answer:
        assert answer.status == 200
    longer = cluster.json("submit", write_job(name="short", trials=5, seed=7))
    assert longer["outcome"] == "submitted"
    assert longer["job_id"] != job
    wait_for(lambda: cluster.json("status", "short")["job"]["attempts"][-1]["state"] == "succeeded", "the longer one")


def test_a_job_that_fails_says_why_and_another_may_replace_it(cluster, write_job, tmp_path):
    path = write_job(name="lost")
    missing = path.read_text().replace("tiny-vit", "gone-vit")
    path.write_text(missing)
    job = cluster.json("submit", path)["job_id"]
    wait_for(lambda: cluster.json("status", job)["job"]["attempts"][-1]["state"] == "failed", "the failure")
    assert "exit code 3" in cluster.run("status", job).stdout
    path = write_job(name="lost", trials=3)
    assert "--replace" in cluster.run("submit", path, code=2).stderr
    assert cluster.json("submit", path, "--replace")["outcome"] == "submitted"
    wait_for(lambda: cluster.json("status", "lost")["job"]["attempts"][-1]["state"] == "succeeded", "the end")


def test_the_cluster_wants_its_token(cluster, tmp_path):
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    for variables in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN_PATH": str(wrong)}):
        refused = cluster.run("list", code=1, **variables)
        assert "RAY_AUTH_TOKEN_PATH" in refused.stderr
    assert stat.S_IMODE((cluster.folder / "token").stat().st_mode) == 0o600


def test_nothing_listens_beyond_this_machine(cluster):
    addresses = listening_addresses(descendants(cluster.process.pid))
    assert addresses
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_an_unknown_job_is_named_with_those_that_exist(cluster):
    assert "knows no nothing-of-that-name" in cluster.run("status", "nothing-of-that-name", code=2).stderr


def test_control_c_ends_all_services(cluster, write_job):
    job = cluster.json("submit", write_job(name="last"))["job_id"]
    wait_for(lambda: completed(cluster, job) >= 1, "a scored trial")
    started = descendants(cluster.process.pid)
    cluster.process.send_signal(signal.SIGINT)
    assert cluster.process.wait(300) == 0
    left = [pid for pid in started if Path(f"/proc/{pid}").exists()]
    assert not wait_until_gone(left)
    assert f"waiting for {job} to save and stop" in (cluster.folder / "stderr").read_text()
    assert not [trial for trial in trials_of(cluster, "last") if trial.state is TrialState.RUNNING]


def wait_until_gone(pids):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.5)
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]
