"""Row 28: a dense model that is no better than chance stops the search, whatever quality means.

By the metric the study finds it in its first trial (see tests/controller/test_study.py). Fidelity is 1 for any dense
model, so there the metric is looked at before anything else is done.
"""

from pathlib import Path
from typing import Any

import pytest

from controller.job import parse_job
from controller.search import run_search
from controller.study_config import DenseModelError


def test_a_faithful_copy_of_a_useless_model_is_not_searched_for(tiny_text: Any, tmp_path: Path) -> None:
    lines = Path(tiny_text.data.source).read_text().splitlines()
    wrong = tmp_path / "wrong.tsv"
    wrong.write_text("\n".join([lines[0], *(line[:-1] + str(1 - int(line[-1])) for line in lines[1:])]) + "\n")
    content = {
        "name": "useless",
        "quality": "fidelity",
        "model": {"id": tiny_text.model.id},
        "data": {**tiny_text.data.model_dump(mode="json"), "source": str(wrong)},
        "target": {"table": str(tiny_text.table), "sequence_length": tiny_text.sequence_length},
        "storage": f"sqlite:///{tmp_path}/paretrim.db",
        "mlflow": {"enabled": False},
    }
    stages: list[str] = []
    with pytest.raises(DenseModelError, match=r"better than chance \(0\.\d+\); got accuracy 0 on the search examples"):
        run_search(parse_job(content), lambda progress: stages.append(progress.stage))
    assert not any("variants" in stage for stage in stages)
