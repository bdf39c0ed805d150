"""A real model: MiniLM fine-tuned on SST-2, whose dense accuracy is known."""

from pathlib import Path

import pytest
import torch

from evaluators.quality import QualityEvaluator
from workers.data import Columns, DataConfig, load_splits
from workers.model import ModelConfig, load_model

SHARED = Path(__file__).parents[2].parent / "shared"
MODEL, DATA = SHARED / "models/minilm-sst2", SHARED / "data/sst2"

pytestmark = [
    pytest.mark.skipif(not (MODEL.is_dir() and DATA.is_dir()), reason=f"needs {MODEL} and {DATA}"),
    pytest.mark.slow,
]


def test_dense_model_answers_771_of_872_sentences() -> None:
    torch.set_num_threads(2)
    loaded = load_model(ModelConfig(id=str(MODEL)))
    config = DataConfig(
        source=str(DATA / "dev.tsv"),
        columns=Columns(input="sentence"),
        calibration_source=str(DATA / "calibration.tsv"),
        search=436,
        holdout=436,
        shuffle=False,
    )
    splits = load_splits(config, loaded.task, seed=0)
    evaluator = QualityEvaluator(loaded.task, (*splits.search, *splits.holdout), batch=1)

    def forward(inputs: dict[str, torch.Tensor], _examples: int) -> torch.Tensor:
        with torch.inference_mode():
            return loaded.model(**inputs).logits

    assert sum(evaluator.evaluate(forward).per_example) == 771
