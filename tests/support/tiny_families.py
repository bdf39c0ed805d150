"""A tiny model of every architecture, with random weights."""

from collections.abc import Callable, Mapping

import transformers
from torch import nn

from evaluators.tasks import sentence_encoder

LAYERS = 2
_ENCODER = {"vocab_size": 50, "num_labels": 3, "pad_token_id": 1}
_BLOCK = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 48}
_DECODER = {**_BLOCK, "vocab_size": 50, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
_DECODER |= {"max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None}
_T5 = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": LAYERS, "num_heads": 4}
_T5 |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "decoder_start_token_id": 0}
_IMAGE = {**_BLOCK, "num_labels": 3, "image_size": 24, "patch_size": 8}
_RESNET = {"embedding_size": 16, "depths": [2, 2], "image_size": 24, "num_labels": 3}

_T, _E = transformers, sentence_encoder
FAMILIES: Mapping[str, Callable[[], nn.Module]] = {
    "bert": lambda: _T.BertForSequenceClassification(_T.BertConfig(**_ENCODER, **_BLOCK)),
    "roberta": lambda: _T.RobertaForSequenceClassification(_T.RobertaConfig(**_ENCODER, **_BLOCK)),
    "xlm-roberta": lambda: _T.XLMRobertaForSequenceClassification(_T.XLMRobertaConfig(**_ENCODER, **_BLOCK)),
    "camembert": lambda: _T.CamembertForSequenceClassification(_T.CamembertConfig(**_ENCODER, **_BLOCK)),
    "distilbert": lambda: _T.DistilBertForSequenceClassification(
        _T.DistilBertConfig(**_ENCODER, dim=32, n_layers=LAYERS, n_heads=4, hidden_dim=48)
    ),
    "bert, embedding": lambda: _E.BertForSentenceEmbedding(
        _T.BertConfig(**_ENCODER, **_BLOCK, sentence_normalize=True)
    ),
    "roberta, embedding": lambda: _E.RobertaForSentenceEmbedding(_T.RobertaConfig(**_ENCODER, **_BLOCK)),
    "distilbert, embedding": lambda: _E.DistilBertForSentenceEmbedding(
        _T.DistilBertConfig(**_ENCODER, dim=32, n_layers=LAYERS, n_heads=4, hidden_dim=48, sentence_pooling="cls")
    ),
    "vit": lambda: _T.ViTForImageClassification(_T.ViTConfig(**_IMAGE)),
    "deit": lambda: _T.DeiTForImageClassification(_T.DeiTConfig(**_IMAGE)),
    "deit with teacher": lambda: _T.DeiTForImageClassificationWithTeacher(_T.DeiTConfig(**_IMAGE)),
    "llama": lambda: _T.LlamaForCausalLM(_T.LlamaConfig(**_DECODER)),
    "llama, tied": lambda: _T.LlamaForCausalLM(_T.LlamaConfig(**_DECODER, tie_word_embeddings=True)),
    "llama, classifier": lambda: _T.LlamaForSequenceClassification(_T.LlamaConfig(**_DECODER, num_labels=3)),
    "mistral": lambda: _T.MistralForCausalLM(_T.MistralConfig(**_DECODER)),
    "qwen2": lambda: _T.Qwen2ForCausalLM(_T.Qwen2Config(**_DECODER)),
    "qwen3": lambda: _T.Qwen3ForCausalLM(_T.Qwen3Config(**_DECODER)),
    "gemma": lambda: _T.GemmaForCausalLM(_T.GemmaConfig(**_DECODER)),
    "gemma2": lambda: _T.Gemma2ForCausalLM(_T.Gemma2Config(**_DECODER)),
    "glm": lambda: _T.GlmForCausalLM(_T.GlmConfig(**_DECODER, attention_bias=True)),
    "glm4": lambda: _T.Glm4ForCausalLM(_T.Glm4Config(**_DECODER, attention_bias=True)),
    "t5": lambda: _T.T5ForConditionalGeneration(_T.T5Config(**_T5)),
    "t5, gated": lambda: _T.T5ForConditionalGeneration(
        _T.T5Config(**_T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    ),
    "mt5": lambda: _T.MT5ForConditionalGeneration(_T.MT5Config(**_T5)),
    "resnet": lambda: _T.ResNetForImageClassification(
        _T.ResNetConfig(layer_type="basic", hidden_sizes=[16, 32], **_RESNET)
    ),
    "resnet, bottleneck": lambda: _T.ResNetForImageClassification(
        _T.ResNetConfig(layer_type="bottleneck", hidden_sizes=[32, 64], **_RESNET)
    ),
    "mobilenet_v2": lambda: _T.MobileNetV2ForImageClassification(
        _T.MobileNetV2Config(depth_multiplier=0.1, finegrained_output=False, image_size=24, num_labels=3)
    ),
}
CONVOLUTIONAL = ("resnet", "resnet, bottleneck", "mobilenet_v2")
