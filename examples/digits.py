"""A small vision transformer trained on scikit-learn's handwritten digits, and its data as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TRAIN_ROWS = 1000
_EPOCHS = 40
_BATCH = 32
_LEARNING_RATE = 1e-3


def write_digits(folder: Path) -> None:
    """Write train.jsonl and test.jsonl: rows of 8 by 8 pixels from 0 to 255, and the digit.

    Args:
        folder: Made where it does not exist.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    pixels = np.rint(digits.images * 255 / 16).astype(int)
    order = np.random.default_rng(0).permutation(len(pixels))
    for name, rows in (("train", order[:TRAIN_ROWS]), ("test", order[TRAIN_ROWS:])):
        lines = [json.dumps({"image": pixels[row].tolist(), "label": int(digits.target[row])}) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def train_digits_model(data: Path, out: Path, *, seed: int = 0) -> float:
    """Train the transformer on train.jsonl and save it with its image processor.

    Args:
        data: Folder that `write_digits` wrote.
        out: Folder of the model.
        seed: Seed of weights and batches.

    Returns:
        Accuracy on test.jsonl, 0 to 1.
    """
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=64,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=256,
        image_size=8,
        patch_size=2,
        num_channels=1,
        num_labels=10,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    processor = ViTImageProcessorPil(
        do_resize=False, size={"height": 8, "width": 8}, image_mean=[0.3], image_std=[0.37]
    )
    model = ViTForImageClassification(config)
    images, labels = _read(data / "train.jsonl")
    optimiser = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=0.05)
    steps = _EPOCHS * (len(images) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(_EPOCHS):
        order = torch.randperm(len(images))
        for start in range(0, len(images) - _BATCH + 1, _BATCH):
            rows = order[start : start + _BATCH]
            pixels = (images[rows] / 255 - 0.3) / 0.37
            loss = torch.nn.functional.cross_entropy(model(pixel_values=pixels).logits, labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    model.eval()
    model.save_pretrained(out, save_original_format=False)
    processor.save_pretrained(out)
    images, labels = _read(data / "test.jsonl")
    with torch.inference_mode():
        answers = model(pixel_values=(images / 255 - 0.3) / 0.37).logits.argmax(-1)
    return float((answers == labels).float().mean())


def _read(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    images = torch.tensor([row["image"] for row in rows], dtype=torch.float32)[:, None]
    return images, torch.tensor([row["label"] for row in rows])
