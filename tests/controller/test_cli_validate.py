"""What `paretrim validate` prints of a plan."""

import json
from dataclasses import replace

from typer.testing import CliRunner

from controller.cli.app import app
from controller.cli.exit_codes import ExitCode
from controller.job_plan import JobPlan, PlanUnit
from evaluators.latency.table import EnergyBasis

PLAN = JobPlan(
    study="demo",
    architecture="bert",
    units=(
        PlanUnit(
            name="layer.0.attention",
            kind="attention",
            groups=12,
            keeps=(12, 6, 0),
            formats=("fp32", "w8a8"),
            choices=5,
            latency_ms=1.5,
            size_bytes=2_400_000,
        ),
    ),
    space_size=5**40,
    dense_latency_ms=10.0,
    dense_size_bytes=90_000_000,
    min_latency_ms=1.2,
    min_size_bytes=50_000_000,
    dense_low_ms=9.5,
    dense_high_ms=10.5,
    dense_energy_mj=20.0,
    min_energy_mj=3.456,
    energy_basis=EnergyBasis.ESTIMATED,
    dense_peak_memory_bytes=3_000_000,
    min_peak_memory_bytes=1_500_000,
    constraints_reachable=True,
    table_source="measured on this machine",
    trials=100,
)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_validate_shows_the_plan(job_file, serve):
    serve(plan=lambda job, **more: PLAN)
    done = run("validate", job_file)
    assert done.exit_code == 0
    for text in (
        "layer.0.attention",
        "12, 6, 0 of 12",
        "fp32, w8a8",
        "9.1e27",
        "10 ms (9.5 ms to 10.5 ms), 90 MB",
        "1.2 ms, 50 MB",
    ):
        assert text in done.stdout
    assert "energy of a batch: 20 mJ dense, 3.46 mJ at least (estimated)" in done.stdout
    assert "peak memory of activations: 3 MB dense, 1.5 MB at least" in done.stdout
    content = json.loads(run("validate", job_file, "--json").stdout)
    assert (content["energy_basis"], content["min_peak_memory_bytes"]) == ("estimated", 1_500_000)
    assert content["space_size"] == 5**40
    assert content["units"][0]["keeps"] == [12, 6, 0]


def test_validate_of_bounds_out_of_reach_is_preflight(job_file, serve):
    line = "max_latency_ms must be at least 1.2; got 0.5"
    serve(plan=lambda job, **more: replace(PLAN, constraints_reachable=False, unreachable=(line,)))
    done = run("validate", job_file)
    assert done.exit_code == ExitCode.PREFLIGHT
    assert line in done.stderr
