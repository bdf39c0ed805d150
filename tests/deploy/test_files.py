"""What is under deploy/: files that parse, fields that their kinds have, commands that exist, and no secret."""

import functools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from controller.cli.app import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCHEMAS = Path(__file__).parent / "schemas"
PROGRAM = re.compile(r"(?:^|[\s\"'(&;])((?:paretrim|ray|mlflow) [a-z][\w-]*(?:\s[^&;|#]*)?)")
KUBERAY = ("cluster.yaml", "job.yaml")


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def check(content, schema):
    definition = json.loads((SCHEMAS / f"{schema}.json").read_text())
    pods = json.loads((SCHEMAS / "pod.json").read_text())
    definition["$defs"] = {**pods["$defs"], **definition.get("$defs", {})}
    jsonschema.Draft202012Validator.check_schema(definition)
    jsonschema.validate(content, definition)


def test_compose_has_fields_of_the_specification():
    (content,) = documents("compose.yaml")
    check(content, "compose")
    for service in content["services"].values():
        for secret in service.get("secrets", ()):
            assert (secret if isinstance(secret, str) else secret["source"]) in content["secrets"]
        for other in service.get("depends_on", {}):
            assert "healthcheck" in content["services"][other]
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_a_field_that_compose_does_not_know_is_found():
    (content,) = documents("compose.yaml")
    content["services"]["head"]["restrat"] = "always"
    with pytest.raises(jsonschema.ValidationError, match="restrat"):
        check(content, "compose")


@pytest.mark.parametrize("name", KUBERAY)
def test_manifests_have_fields_of_their_kinds(name):
    kinds = []
    for content in documents(f"kuberay/{name}"):
        kinds.append(content["kind"])
        check(content, content["kind"].lower())
    assert kinds[-1] == {"cluster.yaml": "RayCluster", "job.yaml": "RayJob"}[name]


def clusters():
    for name in KUBERAY:
        spec = documents(f"kuberay/{name}")[-1]["spec"]
        yield pytest.param(spec.get("rayClusterSpec", spec), id=name)


@pytest.mark.parametrize("spec", list(clusters()))
def test_a_cluster_wants_a_token_and_keeps_secrets_in_secrets(spec):
    assert spec["authOptions"] == {"mode": "token"}
    assert f"ray=={spec['rayVersion']}" in (ROOT / "constraints.txt").read_text().split()
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        mounted = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= mounted
            for variable in container["env"]:
                if "PASSWORD" in variable["name"] or "TOKEN" in variable["name"]:
                    assert "secretKeyRef" in variable["valueFrom"]


def texts(content):
    if isinstance(content, str):
        yield content
    elif isinstance(content, list) and content and all(isinstance(part, str) for part in content):
        yield shlex.join(part for part in content if part != "CMD")
        yield content[-1]
    elif isinstance(content, (dict, list)):
        for part in content.values() if isinstance(content, dict) else content:
            yield from texts(part)


def commands():
    found = set()
    for name in ("compose.yaml", *(f"kuberay/{name}" for name in KUBERAY)):
        for text in (text for document in documents(name) for text in texts(document)):
            found |= {(name, match.strip(" \"'")) for match in PROGRAM.findall(text)}
    for path in sorted(DEPLOY.rglob("*.sh")):
        lines = path.read_text().replace("\\\n", " ").splitlines()
        code = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        found |= {(path.name, match.strip()) for match in PROGRAM.findall(code)}
    return [pytest.param(command, id=f"{name}: {command[:50]}") for name, command in sorted(found)]


@functools.cache
def known_options(program, name):
    """Long options of a subcommand, as the program itself lists them."""
    module = {"ray": "ray.scripts.scripts", "mlflow": "mlflow"}[program]
    done = subprocess.run(
        [sys.executable, "-m", module, name, "--help"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"--[\w-]+", done.stdout))


@pytest.mark.parametrize("command", commands())
def test_a_command_exists_with_its_options(command):
    program, name, *words = command.split()
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    if program == "paretrim":
        import typer

        found = typer.main.get_command(app).commands[name]
        known = {option for parameter in found.params for option in parameter.opts}
    else:
        known = known_options(program, name)
    assert options <= known


def test_commands_are_found_at_all():
    programs = {tuple(parameter.values[0].split()[:2]) for parameter in commands()}
    wanted = {("ray", "start"), ("ray", "health-check"), ("mlflow", "server"), ("paretrim", "search")}
    assert programs >= wanted | {("paretrim", "serve-local")}


def test_ray_start_parameters_exist():
    options = known_options("ray", "start")
    for name in KUBERAY:
        spec = documents(f"kuberay/{name}")[-1]["spec"]
        spec = spec.get("rayClusterSpec", spec)
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            assert {f"--{parameter}" for parameter in group["rayStartParams"]} <= options


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_bash(path):
    subprocess.run(["bash", "-n", path], check=True)
    assert path.stat().st_mode & 0o111


def test_secrets_are_made_once_and_for_their_owner_only(tmp_path):
    script = DEPLOY / "make-secrets.sh"
    subprocess.run([script, tmp_path / "secrets"], check=True, capture_output=True)
    before = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    subprocess.run([script, tmp_path / "secrets"], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == before
    (compose,) = documents("compose.yaml")
    assert set(before) == {Path(secret["file"]).name for secret in compose["secrets"].values()}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "secrets").iterdir())
    assert before["pgpass"].strip().endswith(before["postgres_password"])


def test_the_image_takes_pinned_versions_and_no_root():
    text = (DEPLOY / "Dockerfile").read_text()
    for line in text.replace("\\\n", " ").splitlines():
        for call in re.findall(r"pip install[^&]*", line):
            assert "--constraint constraints.txt" in call
    assert re.findall(r"^USER (\w+)$", text, re.MULTILINE)[-1] != "root"
    for source in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())


def test_the_dashboard_asks_for_metrics_that_there_are():
    dashboard = json.loads((DEPLOY / "grafana" / "paretrim.json").read_text())
    asked = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            asked |= set(re.findall(r"ray_(paretrim_\w+?)(?:_total|_count|_bucket)?\{", target["expr"]))
    made = set(re.findall(r'"(paretrim_\w+)"', (ROOT / "controller" / "metrics.py").read_text()))
    assert asked == made
