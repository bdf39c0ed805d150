"""Models that can have no early exit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from workers.export.early_exit.plan import EarlyExitError, check_call


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("target", {"batch": 4}, r"a call holds one example: .* got target\.batch=4; search with batch 1"),
        ("target", {"name": "cpu-torch"}, r"a branch in an ONNX file; target cpu-torch takes another form"),
        ("model", {"task": "causal-lm"}, r"answers for a classifier .* got causal-lm; export without it"),
    ],
)
def test_they_are_refused_before_anything_is_loaded(
    tiny_text: Any, tmp_path: Path, part: str, changes: dict[str, Any], message: str
) -> None:
    spec = tiny_text.spec(tmp_path)
    with pytest.raises(EarlyExitError, match=message):
        check_call(replace(spec, **{part: getattr(spec, part).model_copy(update=changes)}))
