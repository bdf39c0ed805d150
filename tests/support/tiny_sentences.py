"""A tiny sentence encoder with random weights, and pairs of sentences with scores that it nearly agrees with."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn import functional

WORDS = 120
_BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_MODULES = "sentence_transformers.models"


def write_encoder(folder: Path, tokenizer: Path, *, modules: Sequence[str] = ("Pooling", "Normalize")) -> Any:
    """Write BERT without a head, as sentence-transformers lay it out; return the model.

    Args:
        folder: Made.
        tokenizer: Folder of a tokenizer of words "w0" and on.
        modules: What stands behind the encoder; none leaves no word of it.
    """
    names = transformers.AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(names), max_position_embeddings=64, initializer_range=0.15, pad_token_id=0, **_BERT
    )
    model = transformers.BertModel(config).eval()
    model.save_pretrained(folder)
    names.save_pretrained(folder)
    if modules:
        listed = [("Transformer", ""), *((name, f"{number + 1}_{name}") for number, name in enumerate(modules))]
        content = [{"idx": n, "name": str(n), "path": p, "type": f"{_MODULES}.{k}"} for n, (k, p) in enumerate(listed)]
        (folder / "modules.json").write_text(json.dumps(content))
        write_pooling(folder, pooling_mode_mean_tokens=True)
    return model


def write_pooling(folder: Path, **content: Any) -> None:
    """Write what the pooling module says."""
    shutil.rmtree(folder / "1_Pooling", ignore_errors=True)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **content}))


def write_pairs(path: Path, encoder: Path, *, count: int = 120) -> None:
    """Write rows of two sentences and a score from 0 to 5: the encoder's own cosine, blurred."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.BertModel.from_pretrained(encoder).eval()
    generator = random.Random(0)
    firsts = [[f"w{generator.randrange(WORDS)}" for _ in range(generator.randint(3, 12))] for _ in range(count)]
    seconds = [
        [word if generator.random() < kept else f"w{generator.randrange(WORDS)}" for word in words]
        for words in firsts
        for kept in [generator.random()]
    ]
    texts = [[" ".join(words) for words in side] for side in (firsts, seconds)]
    embedded = []
    for side in texts:
        inputs = tokenizer(side, padding=True, return_tensors="pt")
        mask = inputs["attention_mask"][..., None]
        with torch.inference_mode():
            embedded.append((model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1))
    cosines = functional.cosine_similarity(*embedded)
    ranks = (cosines + 0.02 * torch.randn(count, generator=torch.Generator().manual_seed(0))).argsort().argsort()
    rows = [f"{a}\t{b}\t{5 * float(rank) / count:.2f}" for a, b, rank in zip(*texts, ranks, strict=True)]
    path.write_text("\n".join(["first\tsecond\tscore", *rows]) + "\n")
