"""Row 22: a model that needs code of its own is refused before any of it runs, and the message names the flag."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workers.model import ModelConfig, ModelError, load_model, load_structure


@pytest.fixture
def folder(tiny_text: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_text.model.id, tmp_path / "model"))


def _edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def _at_the_top(config: dict[str, Any]) -> None:
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_own.OwnModel"}


def _nested(config: dict[str, Any]) -> None:
    config["text_config"] = {"parts": [{"model_type": "own", "auto_map": {"AutoConfig": "other/repo--own.Config"}}]}


@pytest.mark.parametrize("load", [load_model, load_structure])
@pytest.mark.parametrize("change", [_at_the_top, _nested])
def test_auto_map_is_refused_wherever_it_stands(
    folder: Path, change: Callable[[dict[str, Any]], None], load: Callable[[ModelConfig], object]
) -> None:
    _edit(folder, change)
    with pytest.raises(ModelError, match=r"auto_map.*trust_remote_code=True and Paretrim never runs"):
        load(ModelConfig(id=str(folder)))


@pytest.mark.parametrize("load", [load_model, load_structure])
@pytest.mark.parametrize("place", ["modeling_own.py", "code/deep/modeling_own.py"])
def test_code_beside_the_weights_is_refused_and_never_run(
    folder: Path, tmp_path: Path, place: str, load: Callable[[ModelConfig], object]
) -> None:
    ran = tmp_path / "ran"
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\n")
    with pytest.raises(ModelError, match=r"\*\.py beside the weights"):
        load(ModelConfig(id=str(folder)))
    assert not ran.exists()


def test_a_plain_model_is_taken(folder: Path) -> None:
    assert load_model(ModelConfig(id=str(folder))).structure.architecture == "bert"
