"""A job may name exactly the samplers that there are, plug-ins included, without loading any of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.job import JobError, job_schema, parse_job
from controller.sampler_names import BUILT_IN, sampler_names

SMALLEST = {"name": "demo", "model": {"id": "org/model"}, "data": {"source": "org/data"}}
PLUG_IN = """
from optuna.samplers import RandomSampler
from controller.samplers import SAMPLERS

@SAMPLERS.register("theirs")
def make(context):
    return RandomSampler(seed=context.seed)
"""
PROGRAM = """
import sys
from controller.job import parse_job
job = parse_job({"name": "demo", "model": {"id": "a/b"}, "data": {"source": "a/b"}, "search": {"sampler": "theirs"}})
print(job.search.sampler, sorted({"optuna", "ray", "torch", "theirs_module"} & set(sys.modules)))
from controller.samplers import SamplerContext, make_sampler
from workers.simulated import SimulatedCosts, simulated_space
space = simulated_space()
context = SamplerContext(seed=0, space=space, cost_of=SimulatedCosts(space))
print(type(make_sampler("theirs", context, trials_so_far=0)).__name__)
"""


def test_the_built_in_names_are_in_alphabetical_order():
    assert list(BUILT_IN) == sorted(BUILT_IN)
    assert sampler_names()[: len(BUILT_IN)] == BUILT_IN


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_job_may_name_every_built_in_sampler(name):
    assert parse_job({**SMALLEST, "search": {"sampler": name}}).search.sampler == name
    assert name in job_schema()["$defs"]["SearchConfig"]["properties"]["sampler"]["enum"]


def test_another_name_is_refused_with_the_valid_ones():
    with pytest.raises(JobError, match=r"search.sampler: must be a sampler; got 'cmaes'; choose from evolution, "):
        parse_job({**SMALLEST, "search": {"sampler": "cmaes"}})


def test_a_sampler_of_another_distribution_is_known_by_its_entry_point(tmp_path: Path):
    (tmp_path / "theirs_module.py").write_text(PLUG_IN)
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[paretrim.samplers]\ntheirs = theirs_module\n")
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    assert done.stdout.splitlines() == ["theirs []", "RandomSampler"]
