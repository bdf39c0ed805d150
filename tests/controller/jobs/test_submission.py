"""What travels to a cluster and what does not, and when two submissions are one: without a cluster."""

import json
import os
import socket
import stat
import sys
import time

import pytest
from submissions import CONTENT, RememberedCluster, package, write

from controller.errors import UsageError
from controller.job import JobSpec, MlflowConfig
from controller.job_file import load_job
from controller.jobs.entrypoint import entrypoint, environment
from controller.jobs.identity import check_job_reference, job_id_of, submission_id_of
from controller.jobs.local.child import Child, ServiceError
from controller.jobs.local.commands import own_secret
from controller.jobs.local.postgresql import prepare_postgresql
from controller.jobs.local.services import LocalOptions, local_services
from controller.jobs.package import JobPackage, check_address, is_this_machine, pack_file
from controller.jobs.records import JobState, SubmitOutcome
from controller.jobs.submission import JobConflictError, attempt_of, find_job, jobs_of, resume, stop, submit
from controller.problems import JobError
from controller.where_kept import where_kept


@pytest.fixture
def cluster():
    return RememberedCluster()


class TestWhatTravels:
    def test_what_is_packed_reads_as_the_same_job(self, tmp_path):
        packed = package(tmp_path, search={"trials": 7}, constraints={"max_quality_drop": 1e-5})
        assert JobPackage.unpack(json.loads(json.dumps(packed.content))).job == packed.job
        assert "storage" not in packed.content

    @pytest.mark.parametrize(
        "changes",
        [
            {"model": {"id": "./model"}},
            {"data": {"source": "rows.tsv"}},
            {"target": {"table": "table.json"}},
            {"storage": "sqlite:///here.db"},
        ],
    )
    def test_a_relative_path_is_refused_unless_the_cluster_sees_the_same_files(self, tmp_path, changes):
        path = write(tmp_path, **changes)
        with pytest.raises(JobError, match=r"relative to the job file's folder.*--same-files"):
            pack_file(path, same_files=False)
        assert pack_file(path, same_files=True).job == load_job(path)

    @pytest.mark.parametrize(
        "changes",
        [
            {"storage": "postgresql://me:word@db/x"},
            {"storage": "postgresql://me@db/x?password=word"},
            {"mlflow": {"tracking_uri": "https://me:word@mlflow.example.org"}},
        ],
    )
    def test_a_password_does_not_travel(self, tmp_path, changes):
        with pytest.raises(JobError, match="a password must not travel") as caught:
            package(tmp_path, **changes)
        assert "word@" not in str(caught.value)

    def test_the_database_may_be_named_apart(self, tmp_path):
        path = write(tmp_path)
        assert pack_file(path, same_files=False, storage="postgresql://db/x").job.storage == "postgresql://db/x"
        with pytest.raises(UsageError, match="absolute path"):
            pack_file(path, same_files=False, storage="sqlite:///x.db")

    def test_no_secret_is_in_the_command_or_its_variables(self):
        assert entrypoint("job.json", None).endswith('exec paretrim search "$job"/job.json')
        assert "'/data dir'" in entrypoint("job.json", "/data dir")
        assert set(environment("demo-0", 2, user="ada", log="json")) == {
            "PARETRIM_JOB_ID",
            "PARETRIM_ATTEMPT",
            "PARETRIM_OWNER",
            "PARETRIM_LOG",
            "RAY_JOB_STOP_WAIT_TIME_S",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
        }


class TestIdentity:
    def test_the_id_is_of_name_and_content(self, tmp_path):
        first = job_id_of(package(tmp_path).job)
        assert first.startswith("demo-")
        assert job_id_of(package(tmp_path, search={"trials": 100}).job) == first
        assert job_id_of(package(tmp_path, search={"trials": 101}).job) != first
        assert submission_id_of(first, 1) == first
        assert submission_id_of(first, 3) == f"{first}.3"

    @pytest.mark.parametrize("text", ["../x", "a b", "", "x\n", "a/b-0123456789ab", "\x1b[31m"])
    def test_hostile_names_are_refused(self, text):
        with pytest.raises(JobError, match="job id"):
            check_job_reference(text)

    def test_a_name_or_an_id_is_taken(self):
        assert check_job_reference("demo") == "demo"
        assert check_job_reference(f"{'n' * 64}-0123456789ab")

    @pytest.mark.parametrize("address", [None, "", "head:8265", "ray://head:10001", "http://", "http://u:p@head:8265"])
    def test_an_address_is_that_of_a_dashboard(self, address):
        with pytest.raises(UsageError, match="http://HEAD:8265"):
            check_address(address)

    def test_loopback_is_this_machine(self):
        assert is_this_machine("http://localhost:8265")
        assert is_this_machine("http://127.0.0.1:8265")
        assert not is_this_machine("http://head.example.org:8265")


class TestSubmission:
    def test_more_trials_go_on_with_the_study_of_an_ended_job(self, cluster, tmp_path):
        submit(cluster, package(tmp_path), cpus=0.1)
        cluster.end(JobState.SUCCEEDED)
        longer = submit(cluster, package(tmp_path, search={"trials": 500}), cpus=0.1)
        assert longer.outcome is SubmitOutcome.SUBMITTED
        assert find_job(cluster, "demo").id == longer.job_id
        assert len(jobs_of(cluster)) == 2

    def test_another_search_under_the_name_of_an_ended_job_replaces_it_only_on_demand(self, cluster, tmp_path):
        submit(cluster, package(tmp_path), cpus=0.1)
        cluster.end(JobState.FAILED)
        other = package(tmp_path, model={"id": "org/other"})
        with pytest.raises(JobConflictError, match=r'model.id: "org/model" before, now "org/other"[\s\S]*--replace'):
            submit(cluster, other, cpus=0.1)
        submit(cluster, other, cpus=0.1, replace_ended=True)
        assert [job.id for job in jobs_of(cluster)] == [other.job_id]

    def test_a_resume_is_the_next_attempt_of_the_same_id(self, cluster, tmp_path):
        first = submit(cluster, package(tmp_path), cpus=0.2, workdir="/data")
        assert resume(cluster, "demo").outcome is SubmitOutcome.ALREADY_ACTIVE
        assert stop(cluster, "demo", wait_s=1).state is JobState.STOPPED
        second = resume(cluster, first.job_id).attempt
        assert (second.job_id, second.number, second.submission_id) == (first.job_id, 2, f"{first.job_id}.2")
        assert (second.content, second.workdir, second.cpus) == (first.attempt.content, "/data", 0.2)
        assert attempt_of(find_job(cluster, "demo"), 1).number == 1
        with pytest.raises(UsageError, match="attempts 1, 2; got 3"):
            attempt_of(find_job(cluster, "demo"), 3)

    def test_what_has_succeeded_is_not_resumed_and_what_has_ended_is_not_stopped(self, cluster, tmp_path):
        submit(cluster, package(tmp_path), cpus=0.1)
        cluster.end(JobState.SUCCEEDED)
        with pytest.raises(UsageError, match=r"search\.trials"):
            resume(cluster, "demo")
        with pytest.raises(UsageError, match="succeeded already"):
            stop(cluster, "demo", wait_s=0)

    def test_an_unknown_job_is_said_to_be_unknown(self, cluster):
        with pytest.raises(UsageError, match="submit the job's file again"):
            find_job(cluster, "nobody")


class TestWhereKept:
    def test_the_environment_says_it_where_the_job_does_not(self):
        variables = {"PARETRIM_STORAGE": "sqlite:////data/x.db", "MLFLOW_TRACKING_URI": "http://mlflow:5000"}
        job = where_kept(JobSpec.model_validate(CONTENT), variables)
        assert (job.storage, job.mlflow.tracking_uri) == tuple(variables.values())

    def test_the_job_has_the_last_word(self):
        own = {"storage": "sqlite:////own.db", "mlflow": MlflowConfig(tracking_uri="http://own:1")}
        job = JobSpec.model_validate({**CONTENT, **own})
        assert where_kept(job, {"PARETRIM_STORAGE": "sqlite:////x.db", "MLFLOW_TRACKING_URI": "http://x"}) == job
        assert where_kept(job, {}) == job


class TestLocalServices:
    def test_a_taken_port_is_said_before_anything_starts(self, tmp_path):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            options = LocalOptions(folder=tmp_path / "served", port=taken.getsockname()[1])
            with pytest.raises(UsageError, match="choose another --port"), local_services(options):
                pass
        assert not (tmp_path / "served").exists()

    def test_postgresql_refuses_root(self, tmp_path, monkeypatch):
        monkeypatch.setattr("os.geteuid", lambda: 0)
        with pytest.raises(UsageError, match="another user"):
            prepare_postgresql(tmp_path)

    def test_a_service_that_ends_says_its_last_words(self, tmp_path):
        command = [sys.executable, "-c", "print('out of luck'); raise SystemExit(3)"]
        child = Child("luck", command, environment=os.environ, log=tmp_path / "log")
        with pytest.raises(ServiceError, match=r"luck has ended with code 3[\s\S]*out of luck"):
            child.wait_until(lambda: False, timeout_s=60)
        child.end()

    def test_a_service_that_does_not_listen_is_ended_with_all_that_it_started(self, tmp_path):
        script = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); time.sleep(600)"
        child = Child("deaf", [sys.executable, "-c", script], environment=os.environ, log=tmp_path / "log")
        time.sleep(1)
        child.end(timeout_s=0.5)
        assert not child.is_running

    def test_a_secret_is_made_once_and_is_its_owners(self, tmp_path):
        first = own_secret(tmp_path / "token")
        assert own_secret(tmp_path / "token") == first
        assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
