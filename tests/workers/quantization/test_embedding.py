"""An embedding table of int8 rows: against plain numpy, in the exported model, and as a unit of a job."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from evaluators.latency.workload import OperatorKind, Workload, operators
from evaluators.quality import stack_calls
from evaluators.size import size_bytes, unit_bytes
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from search_spaces.space import SpaceConfig, build_space
from search_spaces.units import UnitKind
from workers.assemble import Assembler
from workers.calibrate import Calibration
from workers.data import load_splits
from workers.export.onnx import export_onnx
from workers.model import LoadedModel, load_model
from workers.quantization.codes import round_to_nearest
from workers.quantization.embedding import Int8RowsEmbedding, make_embedding
from workers.targets.onnxruntime_cpu import OnnxRuntimeCpu, open_session
from workers.variants import VariantMaker

W8 = FORMATS.get("w8")
NAME = "embeddings"


def _table(rows: int = 50, features: int = 12) -> Tensor:
    weight = torch.randn(rows, features, generator=torch.Generator().manual_seed(0))
    weight *= torch.logspace(-3, 2, rows)[:, None]
    weight[7] = 0
    return weight


def test_rows_are_rounded_by_themselves() -> None:
    weight, codes = _table(), round_to_nearest(_table(), W8)
    table = make_embedding({"codes": codes.codes_OK, "scale": codes.scale_ON}, W8)
    ids = torch.tensor([[0, 7, 49], [3, 3, 1]])
    found = table(ids).numpy()
    for place in np.ndindex(2, 3):
        row = weight[ids[place]].numpy()
        step = np.abs(row).max() / 127 or 1.0
        np.testing.assert_allclose(found[place], np.rint(row / step) * step, rtol=1e-5)
    assert codes.codes_OK.dtype == torch.int8


def test_the_base_format_is_a_plain_table() -> None:
    table = make_embedding({"weight": _table()}, FORMATS.get("fp32"))
    assert isinstance(table, nn.Embedding)
    assert table(torch.tensor([3, 7])).equal(_table()[[3, 7]])


class _Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class _Model(nn.Module):
    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: Tensor) -> _Output:
        return _Output(self.table(ids))


class _Axes:
    dynamic_axes: ClassVar = {"ids": {0: "batch", 1: "sequence"}}


def test_the_exported_table_is_a_quarter_as_large_and_gives_the_same(tmp_path: Path) -> None:
    weight = _table(4000, 64)
    codes = round_to_nearest(weight, W8)
    table = Int8RowsEmbedding(codes.codes_OK, codes.scale_ON)
    path = tmp_path / "table.onnx"
    export_onnx(_Model(table), _Axes(), {"ids": torch.zeros(2, 3, dtype=torch.long)}, path)  # type: ignore[arg-type]
    assert path.stat().st_size < W8.weight_bytes(4000, 64) + 5000
    stored = {str(np.dtype(onnx.numpy_helper.to_array(w).dtype)) for w in onnx.load(path).graph.initializer}
    assert "int8" in stored
    ids = torch.randint(4000, (4, 33), generator=torch.Generator().manual_seed(1))
    (found,) = open_session(path, threads=1).run(None, {"ids": ids.numpy()})
    np.testing.assert_array_equal(found, table(ids).numpy())


@pytest.fixture(scope="module")
def loaded(tiny_text: Any) -> LoadedModel:
    return load_model(tiny_text.model)


@pytest.fixture(scope="module")
def calibration(tiny_text: Any, loaded: LoadedModel) -> Calibration:
    examples = load_splits(tiny_text.data, loaded.task, seed=0).calibration
    return Calibration(loaded.structure.units, stack_calls(loaded.task, examples, batch=1), lambda: loaded.model)


class TestUnit:
    def test_it_is_whole_in_one_of_two_formats(self, loaded: LoadedModel) -> None:
        space = build_space(
            loaded.structure,
            SpaceConfig(keep=(1.0, 0.5, 0.0)),
            target_formats=("fp32", "w8a8", "w4", "w8"),
            channel_multiple=4,
        )
        assert space.choices(NAME) == (Choice(1, "fp32"), Choice(1, "w8"))
        for unit in loaded.structure.units:
            assert (Choice(unit.groups, "w8") in space.choices(unit.name)) == (unit.kind is UnitKind.EMBEDDING)

    def test_a_job_that_does_not_name_its_format_leaves_it_alone(self, loaded: LoadedModel) -> None:
        config = SpaceConfig(formats=("w8a8",))
        space = build_space(loaded.structure, config, target_formats=("fp32", "w8a8", "w8"), channel_multiple=4)
        assert space.choices(NAME) == (Choice(1, "fp32"),)

    def test_bytes_are_those_of_the_variant(self, loaded: LoadedModel, calibration: Calibration) -> None:
        unit = loaded.structure.unit(NAME)
        maker = VariantMaker(loaded.model, loaded.structure.units, calibration)
        for name in ("fp32", "w8"):
            found = maker.make(unit, Choice(1, name))
            assert sum(t.numel() * t.element_size() for t in found.values()) == unit_bytes(unit, Choice(1, name))
        dense = Policy({u.name: Choice(u.groups, "fp32") for u in loaded.structure.units})
        assert size_bytes(loaded.structure, dense) == sum(4 * p.numel() for p in loaded.model.parameters())

    def test_the_assembled_model_looks_up_codes_and_comes_back(
        self, tiny_text: Any, loaded: LoadedModel, calibration: Calibration
    ) -> None:
        own = load_model(tiny_text.model)
        maker = VariantMaker(loaded.model, loaded.structure.units, calibration)
        assembler = Assembler(own.model, own.structure, maker.make)
        inputs = own.task.random_inputs(2, 9, seed=0)
        dense = Policy({u.name: Choice(u.groups, "fp32") for u in own.structure.units})
        with torch.inference_mode():
            before = own.model(**inputs).logits
            rounded = assembler.apply(dense.replace(**{NAME: Choice(1, "w8")}))(**inputs).logits
            after = assembler.apply(dense)(**inputs).logits
        assert after.equal(before)
        assert not rounded.equal(before)
        assert float((rounded - before).norm() / before.norm()) < 0.05

    def test_time_and_bytes_move_follow_the_format(self, loaded: LoadedModel) -> None:
        workload = Workload(batch=2, sequence_length=8)
        dense = Policy({u.name: Choice(u.groups, "fp32") for u in loaded.structure.units})
        for policy, name in ((dense, None), (dense.replace(**{NAME: Choice(1, "w8")}), "w8")):
            found = [o for o in operators(loaded.structure, policy, workload) if o.kind is OperatorKind.EMBEDDING]
            words = [o for o in found if o.axis("rows") == loaded.structure.unit(NAME).out_features]
            assert [o.format for o in words] == [name]
            assert len(found) == 2
            device = OnnxRuntimeCpu(threads=1)
            assert all(ms > 0 for ms in device.sample(words[0], runs=3, seed=0, working_set_bytes=0))
