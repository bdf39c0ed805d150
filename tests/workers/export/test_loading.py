"""Folders: what is missing, damaged, inconsistent or hostile is refused by name, and nothing in them is ever run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import paretrim
from search_spaces.policy import Choice, Policy
from workers.assemble import Assembler
from workers.export.huggingface import FolderSummary, export_huggingface
from workers.export.layer_forms import FolderError
from workers.model import LoadedModel, ModelError, load_model
from workers.variants import VariantMaker

_OWN = "compressed.safetensors"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def loaded(tiny_text: Any) -> LoadedModel:
    return load_model(tiny_text.model)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(
        {
            "embeddings": Choice(1, "w8"),
            "layer.0.attention": Choice(3, "w8a8"),
            "layer.0.feed_forward": Choice(0, "fp32"),
            "layer.1.attention": Choice(0, "fp32"),
            "layer.1.feed_forward": Choice(48, "w4"),
        }
    )


@pytest.fixture(scope="module")
def assembled(loaded: LoadedModel, policy: Policy) -> LoadedModel:
    maker = VariantMaker(loaded.model, loaded.structure.units, None)
    Assembler(loaded.model, loaded.structure, maker.make).apply(policy)
    return loaded


@pytest.fixture(scope="module")
def exported(assembled: LoadedModel, policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder") / "model"
    export_huggingface(assembled.model, policy, folder, processor=assembled.processor)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "model"))


def test_folder_holds_all_that_a_user_needs(exported: Path, assembled: LoadedModel, policy: Policy) -> None:
    from transformers import AutoTokenizer

    names = {path.name for path in exported.iterdir()}
    assert {_OWN, "config.json", "policy.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert Policy.from_json((exported / "policy.json").read_text()) == policy
    inputs = AutoTokenizer.from_pretrained(exported)(["w1 w2 w3", "w4"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = paretrim.load(str(exported))(**inputs).logits
        assert found.equal(assembled.model(**inputs).logits)


def test_layers_that_read_one_input_round_it_once(exported: Path) -> None:
    attention: Any = paretrim.load(exported).get_submodule("bert.encoder.layer.0.attention")
    inner = attention.self
    assert inner.query.shared is inner.key.shared is inner.value.shared
    assert attention.output.dense.shared is not inner.query.shared
    assert attention.output.dense.scope is inner.query.scope


def test_config_says_which_layers_are_quantized(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    groups = config["quantization_config"]["config_groups"].values()
    targets = {target: group["weights"]["num_bits"] for group in groups for target in group["targets"]}
    layer = "bert.encoder.layer"
    assert targets[f"{layer}.0.attention.self.query"] == 8
    assert f"{layer}.1.output.dense" not in targets, "its last block is not full"
    assert targets[f"{layer}.1.intermediate.dense"] == 4
    assert "classifier" in config["quantization_config"]["ignore"]
    assert config["architectures"] == ["BertForSequenceClassification"]


def test_codes_are_packed_in_the_file(exported: Path) -> None:
    with safe_open(exported / _OWN, framework="pt") as file:
        packed = file.get_tensor("bert.encoder.layer.1.intermediate.dense.weight_packed")
    assert (packed.dtype, packed.shape) == (torch.int32, (48, 4))


def test_transformers_alone_never_fills_it_with_random_weights(exported: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    with pytest.raises((OSError, ImportError)):
        AutoModelForSequenceClassification.from_pretrained(exported)


def test_quantized_model_of_dense_shapes_is_plain(loaded: LoadedModel, tiny_text: Any, tmp_path: Path) -> None:
    fresh = load_model(tiny_text.model)
    formats = {u.name: "w8" if u.name == "embeddings" else "w8a8" for u in fresh.structure.units}
    policy = Policy({u.name: Choice(u.groups, formats[u.name]) for u in fresh.structure.units})
    maker = VariantMaker(fresh.model, fresh.structure.units, None)
    model: Any = Assembler(fresh.model, fresh.structure, maker.make).apply(policy)
    summary = export_huggingface(model, policy, tmp_path)
    assert summary == FolderSummary(weights=tmp_path / "model.safetensors", plain=True, needs_compressed_tensors=True)
    inputs = fresh.task.random_inputs(2, 9, seed=0)
    pytest.importorskip("compressed_tensors")
    plain, loading = type(model).from_pretrained(tmp_path, attn_implementation="eager", output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.inference_mode():
        logits = [found(**inputs).logits.flatten() for found in (plain, model)]
    assert torch.cosine_similarity(*logits, dim=0) > 0.999


def test_model_is_not_that_of_the_policy(assembled: LoadedModel, policy: Policy, tmp_path: Path) -> None:
    other = policy.replace(**{"layer.0.attention": Choice(2, "w8a8")})
    with pytest.raises(FolderError, match=r"'layer.0.attention' is not as policy.json says: .* shape \(16, 32\)"):
        export_huggingface(assembled.model, other, tmp_path)
    other = policy.replace(**{"layer.0.attention": Choice(3, "w4")})
    with pytest.raises(FolderError, match="should be in w4 and is a DynamicInt8Linear"):
        export_huggingface(assembled.model, other, tmp_path)
    assert not list(tmp_path.iterdir())


def test_layer_without_a_form_is_named(tiny_image: Any, tmp_path: Path) -> None:
    fresh = load_model(tiny_image.model)
    dense = Policy({unit.name: Choice(unit.groups, "fp32") for unit in fresh.structure.units})
    fresh.model.get_submodule("vit.layers.0.mlp").fc1 = torch.nn.Sequential(torch.nn.Linear(32, 64))
    with pytest.raises(FolderError, match=r"'vit.layers.0.mlp.fc1' is a Sequential, which is neither"):
        export_huggingface(fresh.model, dense, tmp_path)


def _rewrite(folder: Path, change: Callable[[Tensors, dict[str, Any]], None]) -> None:
    with safe_open(folder / _OWN, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    contents = json.loads(metadata["paretrim"])
    change(tensors, contents)
    save_file(tensors, folder / _OWN, metadata={"format": "pt", "paretrim": json.dumps(contents)})


def _layer(contents: dict[str, Any], **fields: Any) -> None:
    contents["layers"]["bert.encoder.layer.0.attention.self.query"].update(fields)


_QUERY = "bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, c: t.pop("classifier.weight"), "lacks tensors, which would be random: classifier.weight"),
        (lambda t, c: t.update(more=torch.zeros(1)), "tensors that the model has not: more"),
        (lambda t, c: t.update({"classifier.bias": torch.zeros(7)}), r"classifier.bias .* shape \(2,\)"),
        (lambda t, c: t.update({"classifier.bias": torch.zeros(2).half()}), "the file has torch.float16"),
        (lambda t, c: t.pop(f"{_QUERY}.weight_scale"), r"stored as int8 and lacks \['weight_scale'\]"),
        (lambda t, c: t.update({f"{_QUERY}.weight": t[f"{_QUERY}.weight"][:, 1:].contiguous()}), "layer.0.attention"),
        (lambda t, c: c.update(schema_version=2), "reads folders of schema_version 1; got 2"),
        (lambda t, c: c.update(extra=1), "description of layers .* is none"),
        (lambda t, c: c.update(model_class="Trainer"), "are of the classes .*got 'Trainer'"),
        (lambda t, c: c.update(model_class="../../x"), "got '../../x'"),
        (lambda t, c: _layer(c, form="pickle"), "description of layers .* is none"),
        (lambda t, c: _layer(c, block=10**9), "description of layers .* is none"),
        (lambda t, c: c["layers"].update({"../x": {"form": "identity"}}), "the model has no layer '../x'"),
        (lambda t, c: c["layers"].update({"": {"form": "identity"}}), "a layer has a name; got an empty one"),
        (lambda t, c: c["layers"].update({"bert.encoder": {"form": "identity"}}), "no layer|tensors that the model"),
        (lambda t, c: c["layers"].pop(_QUERY), "layer.0.attention|classifier|torch.float32"),
    ],
)
def test_inconsistent_files_are_refused(folder: Path, change: Callable[..., None], message: str) -> None:
    _rewrite(folder, change)
    with pytest.raises(FolderError, match=message):
        paretrim.load(folder)


def _edit_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 10**9}, "each layer has tensors in the file"),
        ({"hidden_size": 2**46}, "describes no BertForSequenceClassification|can't be built|by the configuration"),
        ({"hidden_size": 33}, "describes no BertForSequenceClassification that can be built"),
        ({"hidden_size": "wide"}, "config.json"),
        ({"num_attention_heads": 0}, "config.json"),
        ({"vocab_size": 10}, "unit 'embeddings' is not as policy.json says"),
        ({"model_type": "gpt2"}, "are of the classes"),
        ({"model_type": "nothing"}, "is no configuration"),
    ],
)
def test_hostile_configurations_are_refused(folder: Path, fields: dict[str, Any], message: str) -> None:
    _edit_json(folder / "config.json", **fields)
    with pytest.raises(FolderError, match=message):
        paretrim.load(folder)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"layer.9.attention": {"keep": 1, "format": "fp32"}}, r"\['layer.9.attention'\] are in one of them only"),
        ({"layer.0.attention": {"keep": 40, "format": "w8a8"}}, "keeps 0 to 4 groups; got 40"),
        ({"layer.0.attention": {"keep": 2, "format": "w8a8"}}, "is not as policy.json says"),
        ({"layer.0.attention": {"keep": 3, "format": "w5"}}, "unknown format 'w5'"),
        ({"layer.0.attention": {"keep": 0, "format": "fp32"}}, "should be a constant of 32 features"),
        ({"layer.0.attention": {"keep": -1, "format": "fp32"}}, "is no policy"),
    ],
)
def test_policies_of_other_models_are_refused(folder: Path, choices: dict[str, Any], message: str) -> None:
    path = folder / "policy.json"
    before = json.loads(path.read_text())["choices"]
    _edit_json(path, choices={**before, **choices})
    with pytest.raises(FolderError, match=message):
        paretrim.load(folder)


def test_code_is_refused_and_never_run(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(ModelError, match=r"\*\.py beside the weights"):
        paretrim.load(folder)
    (folder / "modeling_own.py").unlink()
    _edit_json(folder / "config.json", auto_map={"AutoConfig": "modeling_own.Own"})
    with pytest.raises(ModelError, match="auto_map"):
        paretrim.load(folder)
    assert not ran.exists()


def test_pickles_are_refused(folder: Path) -> None:
    (folder / _OWN).rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only as a pickle"):
        paretrim.load(folder)


@pytest.mark.parametrize("size", [0, 7, 2000])
def test_torn_files_are_refused(folder: Path, size: int) -> None:
    data = (folder / _OWN).read_bytes()
    (folder / _OWN).write_bytes(data[:size])
    with pytest.raises(FolderError, match="can't be read"):
        paretrim.load(folder)


def test_oversized_texts_are_refused(folder: Path) -> None:
    for name in ("policy.json", "config.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text + " " * 5_000_000)
        with pytest.raises(FolderError, match=rf"{name} has \d+ bytes, more than"):
            paretrim.load(folder)
        (folder / name).write_text(text)


def test_other_folders_are_named(folder: Path, tiny_text: Any, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="a compressed model is a folder"):
        paretrim.load(tmp_path / "nothing")
    with pytest.raises(FolderError, match="was not written by Paretrim"):
        paretrim.load(tiny_text.model.id)
    shutil.copy(folder / _OWN, folder / "model.safetensors")
    with pytest.raises(FolderError, match=r"one of model\.safetensors and compressed\.safetensors"):
        paretrim.load(folder)
    (folder / "policy.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(FolderError, match=r"policy\.json can't be read"):
        paretrim.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FolderError, match=r"config\.json can't be read"):
        paretrim.load(folder)
