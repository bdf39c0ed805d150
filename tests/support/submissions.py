"""A cluster that takes notes of submissions, and a job to submit."""

import json
from dataclasses import replace

from controller.jobs.package import pack_file
from controller.jobs.records import JobState

CONTENT = {"name": "demo", "model": {"id": "org/model"}, "data": {"source": "org/data"}}


def write(folder, **changes):
    path = folder / "job.json"
    path.write_text(json.dumps({**CONTENT, **changes}))
    return path


class RememberedCluster:
    """A cluster that only takes notes: states are set by the test."""

    address = "http://127.0.0.1:8265"

    def __init__(self):
        self.known = {}

    def attempts(self):
        return list(self.known.values())

    def attempt(self, submission_id):
        return self.known.get(submission_id)

    def submit(self, attempt, *, log=None):
        order = f"2026-01-01T00:00:{len(self.known):02d}+00:00"
        self.known[attempt.submission_id] = replace(attempt, state=JobState.RUNNING, started=order)

    def stop(self, submission_id):
        self.known[submission_id] = replace(self.known[submission_id], state=JobState.STOPPED)

    def forget(self, submission_id):
        del self.known[submission_id]

    def end(self, state):
        self.known = {name: replace(attempt, state=state) for name, attempt in self.known.items()}


def package(folder, **changes):
    return pack_file(write(folder, **changes), same_files=False)
