"""Encoders whose output is one embedding of a text: transformers' own, with pooling behind them.

How tokens are pooled stands in the configuration, under names of ours: there everything that loads a model finds it.
Beside models from sentence-transformers it lies in files of theirs, which are read when such a model is loaded.

Shape letters: B batch, S sequence, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers.utils import ModelOutput

from evaluators.tasks.sentence_pooling import Pooling, note_pooling, pooling_of, read_pooling, write_pooling


@dataclass
class SentenceEmbeddingOutput(ModelOutput):  # type: ignore[misc]
    """What an encoder answers.

    Attributes:
        logits: Embeddings of shape (B, D), under the name that all other models have for what they answer.
        hidden_states: Of each layer, shape (B, S, D), where asked for.
    """

    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


def pool(hidden_BSD: Tensor, mask_BS: Tensor, pooling: Pooling) -> Tensor:
    """One vector of each text, shape (B, D).

    Args:
        hidden_BSD: The encoder's output.
        mask_BS: 1 where a token is no padding, which stands at the end.
        pooling: What to make of it.
    """
    if pooling.mode == "cls":
        pooled_BD = hidden_BSD[:, 0]
    else:
        mask_BS1 = mask_BS.unsqueeze(-1).to(hidden_BSD.dtype)
        pooled_BD = (hidden_BSD * mask_BS1).sum(1) / mask_BS1.sum(1).clamp(min=1)
    return functional.normalize(pooled_BD, dim=-1) if pooling.normalize else pooled_BD


class SentenceEncoder(nn.Module):
    """Pools what an encoder gives; mixed into the encoder's own family, whose loading and saving it takes."""

    gives_embeddings = True
    """Whether `logits` are embeddings, which no softmax is to be taken of."""
    encoder_class: ClassVar[Any]
    encoder_arguments: ClassVar[Mapping[str, Any]] = {"add_pooling_layer": False}
    base_model_prefix: str
    # Heads for other tasks; the encoder's own pooler belongs to one of them.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"pooler\.", r"^(cls|lm_head|vocab_\w+|classifier)\."]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.encoder_class(config, **self.encoder_arguments))
        self.post_init()  # type: ignore[operator]

    @property
    def published_as(self) -> str:
        """Class under which programs other than this one know the weights."""
        return str(self.encoder_class.__name__)

    def save_modules(self, folder: Path) -> None:
        """Write how tokens are pooled where sentence-transformers look for it."""
        config: Any = self.config
        write_pooling(folder, pooling_of(config), width=int(config.hidden_size))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Any
    ) -> SentenceEmbeddingOutput:
        """Embed texts.

        Args:
            input_ids: Shape (B, S).
            attention_mask: Shape (B, S); None where nothing is padded.
            **others: Further inputs of the encoder.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        found = getattr(self, self.base_model_prefix)(input_ids=input_ids, attention_mask=attention_mask, **others)
        config: Any = self.config
        embeddings_BD = pool(found.last_hidden_state, attention_mask, pooling_of(config))
        return SentenceEmbeddingOutput(logits=embeddings_BD, hidden_states=found.hidden_states)


class BertForSentenceEmbedding(SentenceEncoder, transformers.BertPreTrainedModel):  # type: ignore[misc]
    """BERT."""

    encoder_class = transformers.BertModel


class RobertaForSentenceEmbedding(SentenceEncoder, transformers.RobertaPreTrainedModel):  # type: ignore[misc]
    """RoBERTa."""

    encoder_class = transformers.RobertaModel


class XLMRobertaForSentenceEmbedding(SentenceEncoder, transformers.XLMRobertaPreTrainedModel):  # type: ignore[misc]
    """XLM-RoBERTa."""

    encoder_class = transformers.XLMRobertaModel


class CamembertForSentenceEmbedding(SentenceEncoder, transformers.CamembertPreTrainedModel):  # type: ignore[misc]
    """CamemBERT."""

    encoder_class = transformers.CamembertModel


class DistilBertForSentenceEmbedding(SentenceEncoder, transformers.DistilBertPreTrainedModel):  # type: ignore[misc]
    """DistilBERT."""

    encoder_class = transformers.DistilBertModel
    encoder_arguments: ClassVar[Mapping[str, Any]] = {}


class AutoModelForSentenceEmbedding:
    """Finds the class of a configuration, as the Auto classes of transformers do."""

    _model_mapping: ClassVar[Mapping[type, type[Any]]] = {
        transformers.BertConfig: BertForSentenceEmbedding,
        transformers.RobertaConfig: RobertaForSentenceEmbedding,
        transformers.XLMRobertaConfig: XLMRobertaForSentenceEmbedding,
        transformers.CamembertConfig: CamembertForSentenceEmbedding,
        transformers.DistilBertConfig: DistilBertForSentenceEmbedding,
    }

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None, trust_remote_code: bool, **options: Any) -> Any:
        """Load an encoder from a folder or the hub, with the pooling that lies beside it.

        Args:
            name: Folder or hub id.
            revision: Commit or tag on the hub.
            trust_remote_code: Must be false.
            **options: As `PreTrainedModel.from_pretrained` takes them.

        Raises:
            ValueError: The family has no such class, or pools in a way that is not known here.
            OSError: It can't be read.
        """
        config = transformers.AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
        found = cls._class_of(config)
        note_pooling(config, read_pooling(name, revision=revision))
        return found.from_pretrained(name, config=config, revision=revision, **options)

    @classmethod
    def from_config(cls, config: Any) -> Any:
        """Make an encoder with random weights.

        Raises:
            ValueError: The family has no such class.
        """
        return cls._class_of(config)._from_config(config)

    @classmethod
    def _class_of(cls, config: Any) -> Any:
        if type(config) not in cls._model_mapping:
            known = sorted(one.model_type for one in cls._model_mapping)  # type: ignore[attr-defined]
            raise ValueError(f"texts are embedded by models of type {', '.join(known)}; got {config.model_type!r}")
        return cls._model_mapping[type(config)]
