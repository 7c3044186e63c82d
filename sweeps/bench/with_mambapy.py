"""mambapy's Jamba as a contender, with our weights. Written against mambapy 1.2.

It computes what ours does, the norms on dt, B and C included. Two differences stand in its names
and its calls: a dense feed-forward is a mixture of one expert, and its only way to a cache is one
token at a time, so that is how it reads a prompt. (Its own `from_pretrained` expects names of older
transformers.) It gets no padding token, whose embedding would have no gradient.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid.huggingface import config_of, views
from hybrid.model import HybridLM
from hybrid.spec import ModelSpec
from sweeps.bench.contender import Contender, absent

# The arguments of their configuration, and transformers' names for the same.
CONFIG = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "mlp_size": "intermediate_size",
    "rms_norm_eps": "rms_norm_eps",
    "d_state": "mamba_d_state",
    "expand_factor": "mamba_expand",
    "d_conv": "mamba_d_conv",
    "dt_rank": "mamba_dt_rank",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "num_experts": "num_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "attn_layer_offset": "attn_layer_offset",
    "attn_layer_period": "attn_layer_period",
    "expert_layer_offset": "expert_layer_offset",
    "expert_layer_period": "expert_layer_period",
    "vocab_size": "vocab_size",
    "pad_token_id": "pad_token_id",
    "tie_lm_weights": "tie_word_embeddings",
}
# Parts of tensors' names in transformers' files, and theirs, to be replaced in this order.
TENSORS = {
    "model.embed_tokens.": "embedding.",
    "model.final_layernorm.": "final_layernorm.",
    "model.layers.": "jamba.layers.",
    "pre_ff_layernorm.": "pre_moe_layernorm.",
    "mamba.b_layernorm.": "mamba.B_layernorm.",
    "mamba.c_layernorm.": "mamba.C_layernorm.",
    "feed_forward.router.": "moe.router.",
    "feed_forward.experts.": "moe.experts.",
    "feed_forward.": "moe.experts.0.",
}


class MambapyJamba(Contender):
    """mambapy's JambaLM, with its parallel scan."""

    def __init__(self, source: HybridLM):
        try:
            from mambapy import jamba
        except ImportError as error:
            raise absent("mambapy", "dev") from error
        self.library, self.config = jamba, jamba.JambaLMConfig(**config(source.spec))
        self.model: Any = jamba.JambaLM(self.config).to(source.embed.weight.device)
        self.module: nn.Module = self.model
        self.module.load_state_dict(weights(source))

    def notes(self) -> list[str]:
        return ["reads a prompt one token at a time, its only way to a cache"]

    def logits(self, ids_BT: Tensor) -> Tensor:
        return self._forward(ids_BT)[0]

    def loss(self, ids_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        logits_BTV, router_logits = self._forward(ids_BT)
        nats = F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())
        if not router_logits:
            return nats, torch.zeros_like(nats)
        sizes = self.config.num_experts, self.config.num_experts_per_tok
        return nats, self.library.load_balancing_loss(router_logits, *sizes)

    def prefill(self, ids_BT: Tensor) -> tuple[Tensor, Any]:
        layers = self.model.jamba.layers
        cache = [layer.get_empty_cache(len(ids_BT), ids_BT.device) for layer in layers]
        for ids_B in ids_BT.unbind(1):
            logits_BV, cache = self.decode(ids_B, cache)
        return logits_BV, cache

    def decode(self, ids_B: Tensor, cache: Any) -> tuple[Tensor, Any]:
        logits_BTV, cache = self.model.step(ids_B[:, None], cache)
        return logits_BTV[:, -1], cache

    def _forward(self, ids_BT: Tensor) -> tuple[Tensor, Any]:
        output = self.model(ids_BT)  # a pair exactly when the configuration has experts
        return (output, ()) if self.config.num_experts == 1 else output


def config(spec: ModelSpec) -> dict[str, Any]:
    """Return the arguments of their configuration; ValueError for what their Jamba cannot be."""
    said = config_of(spec)
    return {theirs: said[name] for theirs, name in CONFIG.items()}


def weights(source: HybridLM) -> dict[str, Tensor]:
    """Return our weights by their names."""
    found = {_name(name): view for name, view in views(source).items()}
    if source.spec.tied:
        found["lm_head.weight"] = source.embed.weight
    return found


def _name(name: str) -> str:
    for part, theirs in TENSORS.items():
        name = name.replace(part, theirs)
    return name
