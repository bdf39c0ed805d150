"""The example plug-ins, found by their entry points as if they were installed."""

import csv
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "plugins"

ELECTRA = """
import json, sys
import torch, transformers
torch.set_num_threads(1)
torch.manual_seed(0)
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
config = transformers.ElectraConfig(
    vocab_size=len(tokenizer), embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=64, max_position_embeddings=64, initializer_range=0.15, num_labels=5,
    pad_token_id=tokenizer.pad_token_id,
)
model = transformers.ElectraForSequenceClassification(config).eval()
"""
STRUCTURE = """
from search_spaces.architectures import structure_of
from evaluators.size import size_bytes
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from workers.targets import TARGETS
from workers.targets.device import DEVICES

structure = structure_of(model)
dense = Policy({unit.name: Choice(unit.groups, "fp32") for unit in structure.units})
parameters = sum(p.numel() for p in model.parameters())
print(json.dumps({
    "units": [unit.name for unit in structure.units],
    "bytes": [size_bytes(structure, dense), 4 * parameters],
    "formats": TARGETS.get("cpu-onnxruntime-g64").formats,
    "group": FORMATS.get("w4g64").group_size,
    "device": DEVICES.get("cpu-onnxruntime-g64")(1).fingerprint().runtime,
}))
"""
SAVE = """
rows = [line.split("\\t")[0] for line in open(sys.argv[2], encoding="utf-8").read().splitlines()[1:]]
inputs = tokenizer(rows, padding=True, return_tensors="pt")
with torch.inference_mode():
    centre = model(**inputs).logits.mean(0)
    head = model.classifier.out_proj
    head.bias.copy_(-4 * centre)
    head.weight.mul_(4)
    ratings = model(**inputs).logits.argmax(-1).tolist()
model.save_pretrained(sys.argv[3])
tokenizer.save_pretrained(sys.argv[3])
with open(sys.argv[4], "w", encoding="utf-8") as file:
    file.write("\\n".join(["sentence\\tlabel", *(f"{row}\\t{n}" for row, n in zip(rows, ratings))]) + "\\n")
"""
RATING = """
import json, torch, types
import evaluators.tasks
from evaluators.tasks.base import TASKS
config = types.SimpleNamespace(num_labels=5, pad_token_id=0)
task = TASKS.get("text-rating")(None, config)
logits = torch.eye(5)[[0, 1, 4, 2]]
logits[3, 0] = float("nan")
scores = task.score(logits, torch.tensor([0, 2, 0, 2]))
print(json.dumps([scores[:3].tolist(), bool(scores[3].isnan()), task.chance([0, 1, 1, 4])]))
"""
SAMPLER = """
import json
from controller.job import Objective, parse_job
from controller.proposer import Proposer
from controller.samplers import SamplerContext, make_sampler
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_quality, simulated_space

parse_job({"name": "demo", "model": {"id": "a/b"}, "data": {"source": "a/b"}, "search": {"sampler": "neighbours"}})
space = simulated_space(4)
costs = SimulatedCosts(space)

def run(seed):
    objectives = (Objective.QUALITY, Objective.LATENCY_MS)
    context = SamplerContext(seed=seed, space=space, cost_of=costs, objectives=objectives)
    subject = Proposer(space, objectives, make_sampler("neighbours", context, trials_so_far=0))
    found = []
    for _ in range(40):
        proposal = subject.propose()
        policy = proposal.policy
        space.validate(policy)
        point = (simulated_quality(policy, SimulatedConfig(space=space)), -costs(policy).latency_ms)
        found.append((space.to_parameters(policy), point))
        subject.tell(proposal, [point[0], -point[1]], {})
    return found

print(json.dumps([run(1), run(1), run(2)]))
"""


def _program(code, site, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning:paretrim_examples", "-c", code, *map(str, arguments)],
        env=site,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def _answer(code, site, *arguments):
    done = _program(code, site, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The environment of a Python that finds the plug-ins, with the entry points that pyproject.toml declares."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    path = os.pathsep.join(map(str, (folder, FOLDER, ROOT)))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def test_electra_is_described_to_the_byte_and_the_target_has_its_format(site, tiny_text):
    found = _answer(ELECTRA + STRUCTURE, site, tiny_text.model.id)
    layers = [f"layer.{index}.{kind}" for index in range(2) for kind in ("attention", "feed_forward")]
    assert found["units"] == ["embeddings", *layers]
    assert found["bytes"][0] == found["bytes"][1]
    assert found["formats"][-1] == "w4g64"
    assert (found["group"], found["device"]) == (64, "onnxruntime")


def test_a_rating_that_is_nearer_scores_more(site):
    scores, is_nan, chance = _answer(RATING, site)
    assert scores == [1.0, 0.75, 0.0]
    assert is_nan
    assert chance == pytest.approx(1 - (1 + 0 + 0 + 3) / 4 / 4)


def test_the_sampler_moves_by_at_most_two_units_from_the_front(site):
    first, again, other = _answer(SAMPLER, site)
    assert first == again
    assert first != other
    for number in range(8, 40):
        seen = first[:number]
        front = [p for p, (q, t) in seen if not any(a >= q and b >= t and (a, b) != (q, t) for _, (a, b) in seen)]
        assert min(len(_units_that_differ(first[number][0], parent)) for parent in front) <= 2


def _units_that_differ(policy, other):
    return {name.rpartition(":")[0] for name in policy if policy[name] != other[name]}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_that_names_all_of_them_ends_with_a_verified_artifact(site, tiny_text, tmp_path):
    model, data = tmp_path / "model", tmp_path / "data.tsv"
    done = _program(ELECTRA + SAVE, site, tiny_text.model.id, tiny_text.data.source, model, data)
    assert done.returncode == 0, done.stderr
    with data.open(newline="") as file:
        ratings = {row["label"] for row in csv.DictReader(file, delimiter="\t")}
    assert len(ratings) > 2
    job = {
        "name": "ratings",
        "model": {"id": str(model), "task": "text-rating"},
        "data": {"source": str(data), "columns": {"input": "sentence"}, "calibration": 48, "search": 64, "holdout": 64},
        "space": {"keep": [1.0, 0.5], "formats": ["fp32", "w4g64"]},
        "target": {"name": "cpu-onnxruntime-g64", "sequence_length": 16},
        "search": {"sampler": "neighbours", "trials": 10},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    program = str(Path(sys.executable).with_name("paretrim"))
    for arguments in (["search", "job.yaml"], ["export", "ratings", "--pick", "knee", "--out", "best"]):
        done = subprocess.run(
            [program, *arguments], cwd=tmp_path, env=site, capture_output=True, text=True, check=False, timeout=400
        )
        assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads((tmp_path / "best" / "report.json").read_text())
    assert abs(report["metric_gap"]) <= report["metric_tolerance"]
    assert report["metric"] == "closeness"
