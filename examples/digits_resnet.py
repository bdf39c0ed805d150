"""A small ResNet trained on scikit-learn's handwritten digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_EPOCHS = 12
_BATCH = 32
_LEARNING_RATE = 5e-3
_MEAN, _DEVIATION = 0.3, 0.37


def train_digits_resnet(data: Path, out: Path, *, seed: int = 0) -> float:
    """Train a ResNet on train.jsonl and save it with its image processor.

    Args:
        data: Folder that `examples.digits.write_digits` wrote.
        out: Folder of the model.
        seed: Seed of weights and batches.

    Returns:
        Accuracy on test.jsonl, 0 to 1.
    """
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

    torch.manual_seed(seed)
    config = ResNetConfig(
        num_channels=1,
        embedding_size=32,
        hidden_sizes=[32, 64],
        depths=[2, 2],
        layer_type="basic",
        num_labels=10,
        image_size=16,
    )
    size = {"height": 16, "width": 16}
    processor = ViTImageProcessorPil(size=size, image_mean=[_MEAN], image_std=[_DEVIATION])
    model = ResNetForImageClassification(config)
    images, labels = _read(data / "train.jsonl", processor)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=0.05)
    steps = _EPOCHS * (len(images) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(_EPOCHS):
        order = torch.randperm(len(images))
        for start in range(0, len(images) - _BATCH + 1, _BATCH):
            rows = order[start : start + _BATCH]
            loss = torch.nn.functional.cross_entropy(model(pixel_values=images[rows]).logits, labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    model.eval()
    model.save_pretrained(out)
    processor.save_pretrained(out)
    images, labels = _read(data / "test.jsonl", processor)
    with torch.inference_mode():
        answers = model(pixel_values=images).logits.argmax(-1)
    return float((answers == labels).float().mean())


def _read(path: Path, processor: object) -> tuple[torch.Tensor, torch.Tensor]:
    import numpy as np
    import torch
    from PIL import Image

    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    images = [Image.fromarray(np.asarray(row["image"], np.uint8)) for row in rows]
    pixels: torch.Tensor = processor(images, return_tensors="pt")["pixel_values"]  # type: ignore[operator]
    return pixels, torch.tensor([row["label"] for row in rows])
