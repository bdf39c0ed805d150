"""Registered models in a real MLflow store: what a version holds, what it answers, and where its alias goes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from controller.errors import UsageError
from controller.registry.client import RegistryError
from controller.registry.fetching import fetch
from controller.registry.names import parse_model
from controller.registry.registration import check_reachable, run_promote, run_register, run_rollback
from workers.export.verified import UnverifiedError, read_verified

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # mlflow's models


@pytest.fixture(scope="module")
def text_version(tiny_artifact, registry_uri):
    return run_register(tiny_artifact("tiny_text"), registry_uri)


def client_of(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def reference(folder, task, rows, max_length):
    """Probabilities by the task's own encoding and ONNX Runtime, one row a call; shape (B, C)."""
    import onnxruntime

    from workers.model import ModelConfig, load_task

    reader = load_task(ModelConfig(id=str(folder), task=task))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    found = []
    for example in reader.encode(rows, [0] * len(rows), max_length=max_length):
        inputs = {name: value.numpy() for name, value in reader.collate([example]).items()}
        logits = session.run(None, {node.name: inputs[node.name] for node in session.get_inputs()})[0][0]
        found.append(np.exp(logits) / np.exp(logits).sum())
    return np.array(found)


@pytest.mark.slow
def test_a_model_of_plain_classes_is_a_pipeline_too(tiny_artifact, text_version, load_served):
    import transformers

    folder = tiny_artifact("tiny_text")
    assert json.loads((folder / "report.json").read_text())["folder_loader"] == "transformers"
    found = load_served(f"models:/tiny/{text_version.version}", "transformers")
    whole = transformers.pipeline(found.task, model=str(folder))
    assert found("w1 w2 w3")[0]["label"] == whole("w1 w2 w3")[0]["label"]
    assert found("w1 w2 w3")[0]["score"] == pytest.approx(whole("w1 w2 w3")[0]["score"], rel=1e-5)


def test_a_model_that_no_pipeline_can_feed_has_no_such_flavour(tiny_artifact, registry_uri, monkeypatch):
    from mlflow.models import get_model_info

    version = run_register(tiny_artifact("tiny_image"), registry_uri, name="grey")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry_uri)
    assert get_model_info(f"models:/grey/{version.version}").flavors.keys() == {"python_function", "onnx"}


def test_a_version_says_where_it_is_from_and_what_was_measured(tiny_artifact, registry_uri, text_version):
    folder = tiny_artifact("tiny_text")
    report = json.loads((folder / "report.json").read_text())
    assert (text_version.name, text_version.alias) == ("tiny", "champion")
    assert (text_version.study, text_version.trial) == ("tiny", 0)
    version = client_of(registry_uri).get_model_version("tiny", text_version.version)
    assert version.tags["paretrim.policy"] == report["policy_digest"]
    assert float(version.tags["paretrim.holdout_metric"]) == pytest.approx(report["splits"]["holdout"]["metric"])
    assert int(version.tags["paretrim.size_bytes"]) == (folder / "model.onnx").stat().st_size
    assert version.tags["paretrim.verified"] == report["created"]
    assert "mlflow models serve -m models:/tiny@champion --env-manager local" in text_version.serve
    assert '{"dataframe_records": [{"sentence": "This is a sentence."}]}' in text_version.request


def test_a_version_is_linked_to_the_run_of_its_trial(tiny_artifact, registry_uri):
    folder = tiny_artifact("tiny_text")
    digest = json.loads((folder / "report.json").read_text())["policy_digest"]
    first = run_register(folder, registry_uri, name="linked")
    client = client_of(registry_uri)
    model = client.get_logged_model(client.get_model_version("linked", first.version).source.rpartition("/")[2])
    tags = {"paretrim.study": "tiny", "paretrim.policy": digest}
    run = client.create_run(model.experiment_id, tags=tags)
    try:
        second = run_register(folder, registry_uri, name="linked")
        version = client.get_model_version("linked", second.version)
        assert version.run_id == run.info.run_id
        assert client.get_run(run.info.run_id).data.tags["paretrim.registered"] == f"linked/{second.version}"
    finally:
        client.delete_run(run.info.run_id)


def test_a_text_model_answers_as_it_was_verified(tiny_artifact, text_version, load_served):
    texts = ["w1 w2 w3", "w5", "w7 w8 w9 w1 " * 20, "unheard of"]
    answer = load_served("models:/tiny@champion").predict(pd.DataFrame({"sentence": texts}))
    shares_BC = reference(tiny_artifact("tiny_text"), "text-classification", texts, 32)
    assert list(answer["label"]) == [f"LABEL_{best}" for best in shares_BC.argmax(1)]
    np.testing.assert_allclose(answer["score"], shares_BC.max(1), atol=1e-5)


def test_an_image_model_answers_as_it_was_verified(tiny_artifact, registry_uri, load_served):
    folder = tiny_artifact("tiny_image")
    run_register(folder, registry_uri, name="digits", alias="challenger")
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8)).tolist()
    model = load_served("models:/digits@challenger")
    answer = model.predict(pd.DataFrame({"image": images}))
    shares_BC = reference(folder, "image-classification", images, 1)
    assert list(answer["label"]) == [f"LABEL_{best}" for best in shares_BC.argmax(1)]
    np.testing.assert_allclose(answer["score"], shares_BC.max(1), atol=1e-5)
    with pytest.raises(Exception, match="a pixel is a whole number from 0 to 255"):
        model.predict(pd.DataFrame({"image": [np.full((8, 8), 256).tolist()]}))


@pytest.mark.slow
def test_a_sentence_encoder_answers_with_embeddings(tiny_artifact, tiny_pairs, registry_uri, load_served):
    import torch
    import transformers

    texts = ["w1 w2 w3", "w5", "w7 w8 w9 w1 " * 20, "unheard of"]
    version = run_register(tiny_artifact("tiny_pairs"), registry_uri, name="encoder")
    assert '{"dataframe_records": [{"first": "This is a sentence."}]}' in version.request
    answer = load_served("models:/encoder@champion").predict(pd.DataFrame({"first": texts}))
    assert list(answer.columns) == ["embedding"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_pairs.model.id)
    model = transformers.BertModel.from_pretrained(tiny_pairs.model.id).eval()
    for text, found in zip(texts, answer["embedding"], strict=True):
        with torch.inference_mode():
            inputs = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
            mean = model(**inputs).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(found, (mean / mean.norm()).numpy(), atol=1e-5)


def test_the_onnx_flavour_is_the_file_that_was_verified(tiny_artifact, text_version, load_served):
    import onnx

    loaded = load_served("models:/tiny@champion", flavour="onnx")
    verified = onnx.load(tiny_artifact("tiny_text") / "model.onnx")
    assert loaded.SerializeToString() == verified.SerializeToString()


def test_what_is_fetched_is_still_verified(tiny_artifact, registry_uri, text_version, tmp_path):
    folder, version = fetch(parse_model(f"tiny/{text_version.version}"), registry_uri, tmp_path)
    assert (version.version, version.alias) == (text_version.version, None)
    assert read_verified(folder).report == read_verified(tiny_artifact("tiny_text")).report
    names = {path.name for path in folder.parent.parent.rglob("*") if path.is_file()}
    assert not {name for name in names if name.endswith((".pkl", ".bin"))}


def test_nothing_that_was_not_verified_is_registered(tiny_artifact, registry_uri, tmp_path):
    with pytest.raises(UnverifiedError, match=r"a verified artifact has a report\.json; .* has none"):
        run_register(tmp_path, registry_uri)
    changed = tmp_path / "changed"
    shutil.copytree(tiny_artifact("tiny_text"), changed)
    (changed / "policy.json").write_text("{}")
    (changed / "more.py").write_text("")
    with pytest.raises(UnverifiedError, match=r"more\.py: not among those .*; policy\.json: changed; export it again"):
        run_register(changed, registry_uri, name="never")
    with pytest.raises(UsageError, match="no registered model 'never'"):
        run_promote("never", registry_uri, version=1)


def test_an_artifact_for_another_runtime_is_not_served(tiny_artifact):
    from controller.registry.mlflow_model import NotServableError, served_form

    verified = read_verified(tiny_artifact("tiny_text"))
    files = {name: digest for name, digest in verified.report.files.items() if name != "model.onnx"}
    other = replace(verified, report=verified.report.model_copy(update={"files": files}))
    with pytest.raises(NotServableError, match=r"served by ONNX Runtime from model\.onnx; .* has none"):
        served_form(other)


def test_an_alias_moves_forward_and_back(tiny_artifact, registry_uri):
    def holder():
        return str(client_of(registry_uri).get_model_version_by_alias("moved", "prod").version)

    versions = [run_register(tiny_artifact("tiny_text"), registry_uri, name="moved", alias="prod") for _ in range(3)]
    assert [(v.version, v.replaced) for v in versions] == [("1", None), ("2", "1"), ("3", "2")]
    back = run_rollback("moved", registry_uri, alias="prod")
    assert (back.version, back.replaced, holder()) == ("2", "3", "2")
    assert run_rollback("moved", registry_uri, alias="prod").version == "1"
    with pytest.raises(UsageError, match=r"has stood for version 1 only; to take one of 1, 2, 3: paretrim promote"):
        run_rollback("moved", registry_uri, alias="prod")
    ahead = run_promote("moved", registry_uri, version=3, alias="prod")
    assert (ahead.version, ahead.replaced, holder()) == ("3", "1", "3")
    assert run_promote("moved", registry_uri, version=3, alias="prod").replaced is None
    assert run_rollback("moved", registry_uri, alias="PROD").version == "1"
    client_of(registry_uri).set_registered_model_alias("moved", "prod", "2")  # by another program
    assert run_rollback("moved", registry_uri, alias="prod").version == "1"
    moves = json.loads(client_of(registry_uri).get_registered_model("moved").tags["paretrim.alias.prod"])
    assert [move["move"] for move in moves][-2:] == ["elsewhere", "rolled back"]


def test_what_does_not_exist_is_named_beside_what_does(registry_uri, text_version):
    with pytest.raises(UsageError, match=r"no registered model 'nope'; MLflow has: .*tiny"):
        run_promote("nope", registry_uri, version=1)
    with pytest.raises(UsageError, match=r"model 'tiny' has no version 99; it has: 1"):
        run_promote("tiny", registry_uri, version=99)
    with pytest.raises(UsageError, match=r"model 'tiny' has no alias 'prod'; it has: champion \(version 1\)"):
        run_rollback("tiny", registry_uri, alias="prod")
    client = client_of(registry_uri)
    client.create_registered_model("strange")
    client.create_model_version("strange", source="file:///nowhere")
    with pytest.raises(UsageError, match="version 1 of 'strange' was not registered by Paretrim"):
        run_promote("strange", registry_uri, version=1)


def test_a_registry_that_does_not_answer_is_said_before_anything_long():
    with pytest.raises(RegistryError, match=r"MLflow's registry at ftp://\*\*\*@h/x must answer"):
        check_reachable("ftp://me:pw@h/x")
    with pytest.raises(RegistryError, match=r"a study keeps no passwords.*--tracking-uri"):
        check_reachable("http://***@host:5000")


def test_an_export_that_can_not_be_registered_says_what_is_left_to_do(tiny_artifact):
    from controller.export import _register
    from controller.registry.names import Registration

    with pytest.raises(
        RegistryError, match=r"the artifact is verified and stays in .*then: paretrim register .*--alias p"
    ):
        _register(tiny_artifact("tiny_text"), "http://***@host:5000", Registration(alias="p"))
