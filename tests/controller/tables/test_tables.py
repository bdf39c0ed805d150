"""`paretrim table`: commands, exit codes, and the mappings among the examples."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.cli.app import app
from controller.job_file import load_job
from controller.problems import JobError
from controller.retargeting.target_change import TargetChange
from controller.tables.mapping_file import load_mapping
from evaluators.latency import shipped
from evaluators.latency.correction import Correction, ModelError
from evaluators.latency.table import (
    CacheCurve,
    Entry,
    Fingerprint,
    LatencyTable,
    MeasuredPower,
    Provenance,
    load_table,
)
from evaluators.latency.table.energy import Arithmetic
from evaluators.latency.workload import Operator, OperatorKind, Workload
from search_spaces.space import SpaceConfig, build_space
from workers.model import load_structure
from workers.profile import required_operators

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "latency"
EXAMPLES = {
    "vidur_h100_llama2_7b": ("vidur/h100_Llama-2-7b-hf_mlp.csv", 7770),
    "torchao_a6000_int4": ("torchao/a6000_int4_matmul.csv", 12),
    "hawq_t4_conv_kernels": ("hawq/resnet18_tvm_conv_kernels_batch8.csv", 20),
    "hawq_t4_resnet18": ("hawq/resnet18_t4_int4_int8.csv", 20),
}
FIT = Correction(
    scale=1.1,
    overhead_ms=0.25,
    models=5,
    median_error_pct=1.5,
    max_error_pct=3.0,
    report=(ModelError(name="dense", predicted_ms=10.2, measured_ms=10.0, left_out=True),),
)
MAPPING = """
target: bench
device: board
runtime: engine
threads: 2
time_unit: us
time_unit_basis: stated
source: {name: a blog, licence: MIT}
operators:
  - {kind: quantize, time: t, axes: {tokens: n, features: 16}}
"""


def quantize(features: int, median_ms: float = 1.0, repeats: int = 10) -> Entry:
    return Entry(
        kind=OperatorKind.QUANTIZE,
        axes={"tokens": 8, "features": features},
        median_ms=median_ms,
        spread_ms=0.1,
        repeats=repeats,
        working_set_bytes=0,
    )


@pytest.fixture
def write(tmp_path):
    def put(name: str, *entries: Entry, threads: int = 1) -> str:
        LatencyTable(
            target="cpu-onnxruntime",
            fingerprint=Fingerprint(
                device="a CPU", flags=("avx2",), runtime="onnxruntime", runtime_version="1", threads=threads, os="Linux"
            ),
            provenance=Provenance(measured_at="2026-01-01T00:00:00+00:00", rounds=2, notes=("the machine is noisy",)),
            entries=entries,
        ).with_correction(Workload(batch=1, sequence_length=8), FIT).save(tmp_path / name)
        return str(tmp_path / name)

    return put


def run(*arguments):
    return CliRunner().invoke(app, ["table", *(str(argument) for argument in arguments)])


def test_show_has_device_provenance_ranges_and_the_corrections_error(write):
    path = write("t.json", quantize(8, 0.5), quantize(64, 2.0))
    done = run("show", path)
    assert done.exit_code == 0
    for expected in (
        "2 operators of cpu-onnxruntime",
        "flags: avx2",
        "threads: 1",
        "note: the machine is noisy",
        "quantize: tokens 8, features 8 to 64",
        "batch 1, 8 tokens, fitted on 5 models",
        "1.5 % (median), 3.0 % (largest)",
        "overhead_ms: 0.25",
        "dense: measured 10 ms, predicted 10.2 ms (+2.0 %)",
    ):
        assert expected in done.stdout
    content = json.loads(run("show", path, "--json").stdout)
    assert content["checksum"] == load_table(Path(path)).checksum
    assert content["kinds"][0]["axes"]["features"] == [8, 64]
    assert content["corrections"][0]["fit"]["report"][0]["name"] == "dense"


def test_show_has_what_the_table_says_of_energy(write):
    path = Path(write("t.json", quantize(8, 0.5)))
    assert "no energy: energies are estimated" in run("show", path).stdout
    power = MeasuredPower(source="RAPL package-0", watts={Arithmetic.FLOAT32: 12.3456})
    load_table(path).model_copy(update={"energy": power}).save(path)
    done = run("show", path)
    assert "basis: measured" in done.stdout
    assert "source: RAPL package-0" in done.stdout
    assert "watts: float32 12.3 W" in done.stdout
    assert json.loads(run("show", path, "--json").stdout)["energy"]["watts"] == {"float32": 12.3456}


def test_show_has_what_caches_save(write):
    path = Path(write("t.json", quantize(8, 0.5)))
    curve = CacheCurve(format="fp32", tokens=8, sizes_bytes=(2**20, 2**25), times=(0.66, 1.0))
    load_table(path).model_copy(update={"caches": (curve,)}).save(path)
    shown = " ".join(run("show", path).stdout.split())
    assert "fp32 products of 8 tokens take 0.66 of their time where a policy has 1.05 MB of weights in place" in shown
    assert json.loads(run("show", path, "--json").stdout)["caches"][0]["times"] == [0.66, 1.0]


@pytest.fixture
def shipped_table(write, tmp_path, monkeypatch):
    """A table in the place of those that come along."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    Path(write("t.json", quantize(8, 0.5))).rename(folder / "board-1t.json")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder / "board-1t.json"


def test_list_has_the_tables_that_come_along(shipped_table):
    done = run("list")
    assert done.exit_code == 0
    for expected in ("shipped:board-1t", "a CPU", "onnxruntime 1", "1 x 8 tokens", "'a CPU' there", shipped_table.name):
        assert expected in done.stdout
    (listed,) = json.loads(run("list", "--json").stdout)["tables"]
    assert (listed["name"], listed["entries"]) == ("shipped:board-1t", 1)
    assert any(text.startswith("device: 'a CPU' there") for text in listed["differences"])


def test_without_tables_the_list_says_how_to_measure_one(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert "no table comes with this version; `paretrim profile`" in run("list").stdout
    assert json.loads(run("list", "--json").stdout) == {"tables": []}


def test_every_command_takes_a_table_by_its_name(shipped_table):
    assert "1 operators of cpu-onnxruntime" in run("show", "shipped:board-1t").stdout
    assert run("diff", "shipped:board-1t", shipped_table).exit_code == 0
    unknown = run("show", "shipped:none")
    assert unknown.exit_code == 3
    assert "has the names: board-1t" in unknown.stderr


def test_a_job_names_a_table_that_comes_along_from_any_folder(shipped_table, tmp_path):
    path = tmp_path / "job.yaml"
    lines = ["name: j", "model: {id: m}", "data: {source: rows.csv}", "target: {table: 'shipped:board-1t'}"]
    path.write_text("\n".join(lines))
    assert load_job(path).target.table == shipped_table
    path.write_text("\n".join(lines).replace("board-1t", "none"))
    with pytest.raises(JobError, match=r"line 4.*has the names: board-1t"):
        load_job(path)
    assert TargetChange(table=Path("shipped:board-1t")).table == shipped_table


def test_a_table_that_comes_along_is_not_calibrated_in_place(shipped_table):
    before = shipped_table.read_bytes()
    done = CliRunner().invoke(app, ["calibrate-table", "--table", "shipped:board-1t", "--model", "m"])
    assert done.exit_code == 3
    assert "copy the table first" in done.stderr
    assert shipped_table.read_bytes() == before


def test_check_ends_with_a_code_that_scripts_can_use(write):
    path = write("t.json", quantize(8, 2.0), quantize(64, 0.5))
    done = run("check", path)
    assert done.exit_code == 0
    assert "warning: 1 larger operators are faster" in done.stdout
    assert "note: the machine is noisy" in done.stdout
    assert "sound, 2 operators" in done.stdout
    Path(path).write_text(Path(path).read_text().replace("2.0", "1.0"))
    done = run("check", path)
    assert done.exit_code == 3
    assert re.search(r"entries\[\d\] \(quantize .*the row was altered", done.stderr.replace("\n", " "))
    assert run("check", "absent.json").exit_code == 3


def test_check_against_a_job(tiny_text, tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(_job_text(tiny_text, tiny_text.sequence_length))
    done = run("check", tiny_text.table, "--space", job)
    assert done.exit_code == 0, done.stderr
    assert "answers for all" in done.stdout
    assert "there is no correction for the job's workload" in done.stdout


def test_a_check_ends_as_a_search_of_the_job_would(tiny_text, tmp_path):
    content = json.loads(_job_text(tiny_text, tiny_text.sequence_length))
    content["target"] |= {"table": str(tiny_text.table), "threads": 2}
    job = tmp_path / "job.json"
    job.write_text(json.dumps(content))
    for words in (("--space", job), ("--space", job, "--json")):
        done = run("check", tiny_text.table, *words)
        assert done.exit_code == CliRunner().invoke(app, ["validate", str(job)]).exit_code == 3
        message = done.stderr.replace("\n", " ")
        assert "a search of demo refuses this table" in message
        assert re.search(r"threads: 1 there, 2 here; .*`paretrim profile`.*--allow-foreign-table", message)
    assert "threads: 1 there" in json.loads(done.stdout)["coverage"]["refusal"]
    assert run("check", tiny_text.table).exit_code == 0
    allowed = run("check", tiny_text.table, "--space", job, "--allow-foreign-table")
    assert allowed.exit_code == 0
    assert "on another device, runtime or number of threads" in allowed.stdout
    assert "(threads: 1 there, 2 here)" in allowed.stdout
    content["target"]["allow_foreign_table"] = True
    job.write_text(json.dumps(content))
    assert run("check", tiny_text.table, "--space", job).exit_code == 0
    assert "(threads: 1 there, 2 here)" in CliRunner().invoke(app, ["validate", str(job)]).stdout


def test_a_job_of_more_tokens_than_the_table_has_is_refused_or_said(tiny_text, tmp_path):
    job = tmp_path / "job.yaml"
    length = 2 * tiny_text.sequence_length
    job.write_text(_job_text(tiny_text, length))
    done = run("check", tiny_text.table, "--space", job)
    assert done.exit_code == 3
    message = done.stderr.replace("\n", " ")
    assert re.search(rf"was measured for {length // 2} (sequence|tokens)", message)
    assert f"paretrim profile --space {job} --out {tiny_text.table}" in message


def test_extrapolation_is_asked_for_and_said(tiny_text, tmp_path):
    structure = load_structure(tiny_text.model)
    space = build_space(structure, SpaceConfig(), target_formats=("fp32", "w8a8", "w4"), channel_multiple=8)
    operators = {o for n in (8, 16) for o in required_operators(space, Workload(batch=1, sequence_length=n))}
    entries = tuple(
        Entry(
            kind=o.kind,
            format=o.format,
            function=o.function,
            axes=dict(o.axes),
            median_ms=1e-3 * sum(dict(o.axes).values()),
            spread_ms=0.0,
            repeats=1,
            working_set_bytes=0,
        )
        for o in operators
    )
    table = load_table(tiny_text.table)
    table.model_copy(update={"entries": entries}).save(tmp_path / "t.json")
    content = json.loads(_job_text(tiny_text, 32))
    content["space"] = {"formats": ["fp32", "w8a8", "w4"]}
    content["target"]["table"] = str(tmp_path / "t.json")
    job = tmp_path / "job.json"
    job.write_text(json.dumps(content))
    assert run("check", tmp_path / "t.json", "--space", job).exit_code == 3
    done = run("check", tmp_path / "t.json", "--space", job, "--extrapolate")
    assert done.exit_code == 0
    assert "operators lie outside what the latency table was measured for" in done.stdout
    plan = CliRunner().invoke(app, ["validate", str(job), "--extrapolate", "--json"])
    assert json.loads(plan.stdout)["extrapolated"] > 0
    content["target"]["allow_extrapolation"] = True
    job.write_text(json.dumps(content))
    assert "were extrapolated" in CliRunner().invoke(app, ["validate", str(job)]).stdout


def _job_text(job, length: int) -> str:
    return json.dumps(
        {
            "name": "demo",
            "model": {"id": job.model.id, "task": job.model.task},
            "data": job.data.model_dump(mode="json"),
            "target": {"sequence_length": length},
        }
    )


def test_diff_shows_ratios_by_kind(write):
    done = run("diff", write("a.json", quantize(8)), write("b.json", quantize(8, 2.0), quantize(16), threads=2))
    assert done.exit_code == 0
    assert "threads: 1 in the first, 2 in the second" in done.stdout
    assert "1 operators in both" in done.stdout
    assert "2.000: 1 ms to 2 ms, quantize features=8 tokens=8" in done.stdout
    assert "same target, device" in run("diff", write("c.json", quantize(8)), write("d.json", quantize(32))).stdout


def test_merge_writes_a_new_file_only(write, tmp_path):
    first, second = write("a.json", quantize(8)), write("b.json", quantize(8, 2.0, repeats=99), quantize(16))
    done = run("merge", first, second, "-o", tmp_path / "c.json")
    assert done.exit_code == 0
    assert "1 operators in both, of which the row of more repeats stays: quantize features=8 tokens=8" in done.stdout
    assert [entry.median_ms for entry in load_table(tmp_path / "c.json").entries] == [1.0, 2.0]
    again = run("merge", first, second, "-o", tmp_path / "c.json")
    assert again.exit_code == 2
    assert "exists; name another" in again.stderr
    foreign = run("merge", first, write("d.json", quantize(32), threads=8), "-o", tmp_path / "e.json")
    assert foreign.exit_code == 3
    assert not (tmp_path / "e.json").exists()


def test_import_of_a_small_file(tmp_path):
    (tmp_path / "m.yaml").write_text(MAPPING)
    (tmp_path / "x.csv").write_text("n,t\n8,500\n16,900\n")
    done = run("import", tmp_path / "x.csv", "--mapping", tmp_path / "m.yaml", "-o", tmp_path / "t.json")
    assert done.exit_code == 0
    assert "2 times of a blog (licence: MIT)" in done.stdout
    assert [entry.median_ms for entry in load_table(tmp_path / "t.json").entries] == pytest.approx([0.9, 0.5])
    bad = tmp_path / "bad.csv"
    bad.write_text("n,t\n8,fast\n")
    done = run("import", bad, "--mapping", tmp_path / "m.yaml", "-o", tmp_path / "u.json")
    assert done.exit_code == 3
    assert "line 2: column 't': a time is a plain decimal number" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "u.json").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "time_unit: us\n",
            "",
            r"time_unit: required, and missing \(Unit of the time columns: s, ms or us.*never guess",
        ),
        ("time_unit: us", "time_unit: minutes", "time_unit: .*'s', 'ms' or 'us'; got 'minutes'"),
        ("_basis: stated", "_basis: assumed", "the mapping: an assumed time_unit comes with its reason"),
        ("licence: MIT", "", "source.licence: required"),
        ("quantize", "conv", "operators.0.kind: must be 'linear'"),
        ("features: 16", "feature: 16", "operators.0: the axes of quantize are tokens, features; got tokens, feature"),
        ("time: t", "tiem: t", "operators.0.tiem: unknown key; did you mean 'time'"),
        ("threads: 2", "threads: 0", "threads: .*greater than 0"),
        ("target: bench", "target: &a bench", "a mapping file has no anchors"),
        (MAPPING.strip(), "- 1", "a mapping holds keys and values; got list"),
        (MAPPING.strip(), "# nothing", "comments only; evaluators/latency/README.md"),
    ],
)
def test_a_mapping_that_is_not_valid_says_why(tmp_path, old, new, message):
    path = tmp_path / "m.yaml"
    assert old in MAPPING
    path.write_text(MAPPING.replace(old, new))
    with pytest.raises(JobError, match=message):
        load_mapping(path)
    assert run("import", "x.csv", "--mapping", path, "-o", tmp_path / "t.json").exit_code == 2


def test_a_mapping_may_be_json(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(load_mapping_text(tmp_path))
    assert load_mapping(path).target == "bench"


def load_mapping_text(tmp_path) -> str:
    (tmp_path / "m.yaml").write_text(MAPPING)
    return load_mapping(tmp_path / "m.yaml").model_dump_json(exclude_none=True)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_mapping_is_valid(name):
    mapping = load_mapping(ROOT / "examples" / "tables" / f"{name}.yaml")
    assert mapping.source.licence
    assert mapping.source.url.startswith("https://github.com/")


def test_every_example_mapping_is_tested():
    assert {path.stem for path in (ROOT / "examples" / "tables").glob("*.yaml")} == EXAMPLES.keys()


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The tables of the examples' own sources, by name."""
    if not SHARED.exists():
        pytest.skip("the measurements beside the repository (../shared/latency) are absent")
    folder, found = tmp_path_factory.mktemp("tables"), {}
    for name, (source, _) in EXAMPLES.items():
        done = run("import", SHARED / source, "--mapping", ROOT / f"examples/tables/{name}.yaml", "-o", folder / name)
        assert done.exit_code == 0, done.stderr
        found[name] = load_table(folder / name)
    return found


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_imported_whole(imported, name):
    table = imported[name]
    assert len(table.entries) == EXAMPLES[name][1]
    assert table.provenance.sources[0].file == Path(EXAMPLES[name][0]).name


def times(table: LatencyTable) -> dict[Operator, float]:
    return {entry.operator: entry.median_ms for entry in table.entries}


def test_vidur_by_tokens_and_shards(imported):
    found = times(imported["vidur_h100_llama2_7b"])
    whole = Operator.of(OperatorKind.LINEAR, format="fp16", tokens=4064, in_features=4096, out_features=22016)
    assert found[whole] == pytest.approx(1.001)
    norm = Operator.of(OperatorKind.RMS_NORM, tokens=4064, features=4096)
    assert 0.06 < found[norm] < 0.07


def test_hawq_in_seconds_and_in_an_assumed_unit(imported):
    conv = {"batch": 8, "in_channels": 512, "out_channels": 512, "kernel": 3, "stride": 1, "height": 7, "width": 7}
    operator = Operator.of(OperatorKind.CONVOLUTION, format="int4", **conv)
    assert times(imported["hawq_t4_conv_kernels"])[operator] == pytest.approx(0.08312616852737905)
    layers = imported["hawq_t4_resnet18"]
    assert times(layers)[operator] == pytest.approx(0.22295, abs=2e-4)
    (source,) = layers.provenance.sources
    assert (source.unit_basis, source.joined) == ("assumed", 18)
    assert any('no more than "measured on T4 GPU"' in text for text in source.assumptions)


def test_torchao_with_two_kernels_of_one_format(imported):
    found = times(imported["torchao_a6000_int4"])
    shape = {"tokens": 128, "in_features": 4096, "out_features": 4096}
    kernels = [
        Operator.of(OperatorKind.LINEAR, format=f"w4g128-{kernel}", **shape) for kernel in ("triton", "tinygemm")
    ]
    assert [found[kernel] for kernel in kernels] == [0.096, 0.2523]


def test_commands_on_tables_load_nothing_heavy(write):
    path = write("t.json", quantize(8), quantize(16))
    code = (
        "import sys; from controller.cli.app import app; "
        f"app(['table', 'check', {path!r}], standalone_mode=False); "
        "print([m for m in ('torch', 'transformers', 'onnxruntime', 'ray', 'optuna', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
