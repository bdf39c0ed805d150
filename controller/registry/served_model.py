"""What answers requests: this file travels with a registered model, which needs nothing else of Paretrim.

MLflow runs the file (a model from code), so that loading unpickles nothing. Every task takes a column and returns
columns: classifiers a label and its score, language models the text that they go on with, sentence encoders a list.

Shape letters: B rows in a call, S tokens, C classes or features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

Arrays = Mapping[str, npt.NDArray[Any]]
Answer = Callable[[Sequence[Any], Mapping[str, Any]], pd.DataFrame]

_MASK = "attention_mask"


class ServedModel(PythonModel):
    """A model that was exported and verified, behind MLflow's interface."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the model in its runtime."""
        settings = context.model_config
        self._column = settings["column"]
        self._answer: Answer = _ANSWERS[settings["task"]](Path(context.artifacts["artifact"]), settings)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answer each row, in the order given."""
        return self._answer(list(model_input[self._column]), params or {})


class _Batched(ABC):
    """Calls of as many rows as were verified; rows of like length go together."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.run = _open(folder, settings)
        self.batch = int(settings["batch"])

    def __call__(self, rows: Sequence[Any], params: Mapping[str, Any]) -> pd.DataFrame:
        encoded = [self.encode(row) for row in rows]
        order = sorted(range(len(rows)), key=lambda row: self.length(encoded[row]))
        found: dict[int, Mapping[str, Any]] = {}
        for start in range(0, len(order), self.batch):
            together = order[start : start + self.batch]
            outputs_BC = self.run(self.collate([encoded[row] for row in together])).astype(np.float64)
            found |= dict(zip(together, self.answers(outputs_BC), strict=True))
        return pd.DataFrame([found[row] for row in range(len(rows))])

    @abstractmethod
    def answers(self, outputs_BC: npt.NDArray[np.float64]) -> list[Mapping[str, Any]]: ...

    @abstractmethod
    def encode(self, row: Any) -> Any: ...

    @abstractmethod
    def length(self, encoded: Any) -> int: ...

    @abstractmethod
    def collate(self, encoded: Sequence[Any]) -> Arrays: ...


class _Classifier(_Batched):
    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        self.labels: list[str] = settings["labels"]

    def answers(self, outputs_BC: npt.NDArray[np.float64]) -> list[Mapping[str, Any]]:
        shares_BC = np.exp(outputs_BC - outputs_BC.max(-1, keepdims=True))
        shares_BC /= shares_BC.sum(-1, keepdims=True)
        best_B = shares_BC.argmax(-1)
        return [
            {"label": self.labels[best], "score": float(shares_C[best])}
            for best, shares_C in zip(best_B, shares_BC, strict=True)
        ]


class _Texts(_Batched):
    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        self.tokenizer = _tokenizer(folder)
        self.tokenizer.enable_truncation(settings["max_length"])
        self.tokenizer.no_padding()
        self.pad_id = settings["pad_id"]

    def encode(self, row: Any) -> Any:
        return self.tokenizer.encode(str(row))

    def length(self, encoded: Any) -> int:
        return len(encoded.ids)

    def collate(self, encoded: Sequence[Any]) -> Arrays:
        return {
            "input_ids": _padded([row.ids for row in encoded], self.pad_id),
            _MASK: _padded([row.attention_mask for row in encoded], 0),
            "token_type_ids": _padded([row.type_ids for row in encoded], 0),
        }


class _TextClassifier(_Texts, _Classifier):
    pass


class _SentenceEncoder(_Texts):
    def answers(self, outputs_BC: npt.NDArray[np.float64]) -> list[Mapping[str, Any]]:
        return [{"embedding": row_C.tolist()} for row_C in outputs_BC]


class _ImageClassifier(_Classifier):
    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from transformers import AutoImageProcessor

        super().__init__(folder, settings)
        self.processor = AutoImageProcessor.from_pretrained(folder)
        self.mode = "L" if settings["channels"] == 1 else "RGB"

    def encode(self, row: Any) -> npt.NDArray[Any]:
        from PIL import Image

        pixels = np.array(_plain(row))
        whole = pixels.astype(np.uint8)
        if not np.array_equal(whole, pixels):
            raise ValueError("a pixel is a whole number from 0 to 255")
        image = Image.fromarray(whole).convert(self.mode)
        found: npt.NDArray[Any] = self.processor([image], return_tensors="np")["pixel_values"][0].astype(np.float32)
        return found

    def length(self, encoded: Any) -> int:
        return 1

    def collate(self, encoded: Sequence[Any]) -> Arrays:
        return {"pixel_values": np.stack(encoded)}


class _LanguageModel:
    """Goes on with each text by the likeliest token; all tokens before it are read anew each time."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.run = _open(folder, settings)
        self.tokenizer = _tokenizer(folder) if (folder / "tokenizer.json").is_file() else None
        self.longest = int(settings["max_length"])
        self.most_new_tokens = int(settings["max_new_tokens"])
        self.ends = frozenset(settings["ends"])
        self.start: int | None = settings["start"]
        """Token that a text of its own begins with; None where the given text itself goes on."""

    def __call__(self, rows: Sequence[Any], params: Mapping[str, Any]) -> pd.DataFrame:
        most = int(params.get("max_new_tokens", self.most_new_tokens))
        return pd.DataFrame({"continuation": [self._go_on(str(row), most) for row in rows]})

    def _go_on(self, text: str, most: int) -> str:
        source = self._ids(text)[: self.longest]
        written = list(source) if self.start is None else [self.start]
        first = len(written)
        while len(written) - first < most and len(written) < self.longest:
            token = int(self.run(self._inputs(source, written))[0, -1].argmax())
            if token in self.ends:
                break
            written.append(token)
        return self._text(written[first:])

    def _inputs(self, source: list[int], written: list[int]) -> Arrays:
        if self.start is None:
            return _whole(written)
        target = {f"decoder_{name}": value for name, value in _whole(written).items()}
        return {**_whole(source), **target}

    def _ids(self, text: str) -> list[int]:
        if self.tokenizer is None:
            return list(text.encode())
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    def _text(self, ids: list[int]) -> str:
        if self.tokenizer is None:
            return bytes(token for token in ids if token < 256).decode(errors="replace")
        text: str = self.tokenizer.decode(ids)
        return text


_ANSWERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Answer]] = {
    "text-classification": _TextClassifier,
    "image-classification": _ImageClassifier,
    "causal-lm": _LanguageModel,
    "seq2seq-lm": _LanguageModel,
    "sentence-similarity": _SentenceEncoder,
}


def _open(folder: Path, settings: Mapping[str, Any]) -> Callable[[Arrays], npt.NDArray[Any]]:
    """Open the model as it was verified: sequential, with a fixed number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(settings["threads"])
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def run(inputs: Arrays) -> npt.NDArray[Any]:
        logits: npt.NDArray[Any] = session.run(None, {name: inputs[name] for name in names})[0]
        return logits

    return run


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _padded(rows: Sequence[Sequence[int]], value: int) -> npt.NDArray[np.int64]:
    """Stack rows of tokens, padded on the right; shape (B, S)."""
    padded_BS = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for place, row in enumerate(rows):
        padded_BS[place, : len(row)] = row
    return padded_BS


def _whole(ids: Sequence[int]) -> dict[str, npt.NDArray[np.int64]]:
    """One row of tokens, all of them attended to; shapes (1, S)."""
    ids_BS = np.array([ids], dtype=np.int64)
    return {"input_ids": ids_BS, _MASK: np.ones_like(ids_BS)}


def _plain(value: Any) -> Any:
    """Nested lists of arrays, as MLflow hands over columns of arrays, as lists."""
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple, np.ndarray)) else value


set_model(ServedModel())
