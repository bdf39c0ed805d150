"""Row 23: a checkpoint that is only a pickle is refused unread, with the command that converts it."""

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from workers.model import ModelConfig, ModelError, load_model, load_structure


class _Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.fixture
def folder(tiny_text: Any, tmp_path: Path) -> Path:
    found = Path(shutil.copytree(tiny_text.model.id, tmp_path / "model"))
    torch.save(load_file(found / "model.safetensors"), found / "pytorch_model.bin")
    (found / "model.safetensors").unlink()
    return found


@pytest.mark.parametrize("load", [load_model, load_structure])
def test_refused_with_the_conversion_command(folder: Path, load: Callable[[ModelConfig], object]) -> None:
    command = f"AutoModel.from_pretrained('{folder}').save_pretrained('model-safetensors')"
    with pytest.raises(ModelError, match=rf"only as a pickle \(pytorch_model\.bin\).*{re.escape(command)}"):
        load(ModelConfig(id=str(folder)))


@pytest.mark.parametrize("load", [load_model, load_structure])
def test_the_pickle_is_never_read(folder: Path, tmp_path: Path, load: Callable[[ModelConfig], object]) -> None:
    trace = tmp_path / "trace"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(trace)))
    with pytest.raises(ModelError, match="only as a pickle"):
        load(ModelConfig(id=str(folder)))
    assert not trace.exists()


def test_a_pickle_beside_safetensors_is_ignored(tiny_text: Any, tmp_path: Path) -> None:
    folder, trace = Path(shutil.copytree(tiny_text.model.id, tmp_path / "both")), tmp_path / "trace"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(trace)))
    load_model(ModelConfig(id=str(folder)))
    assert not trace.exists()


def test_a_folder_without_any_weights_says_what_it_has(folder: Path) -> None:
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"has no \*\.safetensors file; got \['config\.json', 'tokenizer\.json'"):
        load_model(ModelConfig(id=str(folder)))
