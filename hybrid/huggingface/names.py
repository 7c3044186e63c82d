"""The one table of names between our parameters and transformers' Jamba, used both ways.

Every name of theirs stands beside a view of our memory in their shape. Writing a checkpoint reads
the views, reading one fills them, and a model on the meta device says which names and shapes a
checkpoint must have. Names and layout are those of files: on disk every expert is by itself, as in
the released checkpoints, while transformers stacks them in memory, as we do.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hybrid import layers
from hybrid.model import HybridLM
from hybrid.spec import require


def attention(mixer: layers.Attention) -> dict[str, Tensor]:
    kv_width = mixer.config.kv_heads * mixer.head_width
    q, k, v = mixer.qkv.weight.split([mixer.out.in_features, kv_width, kv_width])
    return {
        "self_attn.q_proj.weight": q,
        "self_attn.k_proj.weight": k,
        "self_attn.v_proj.weight": v,
        "self_attn.o_proj.weight": mixer.out.weight,
    }


def mamba(mixer: Any) -> dict[str, Tensor]:  # its convolution and norms have to be there
    return {
        "mamba.in_proj.weight": mixer.in_proj.weight,
        "mamba.conv1d.weight": mixer.short.weight_EW[:, None],
        "mamba.conv1d.bias": mixer.short.bias_E,
        "mamba.x_proj.weight": mixer.x_proj.weight,
        "mamba.dt_layernorm.weight": mixer.dt_norm.weight,
        "mamba.b_layernorm.weight": mixer.b_norm.weight,
        "mamba.c_layernorm.weight": mixer.c_norm.weight,
        "mamba.dt_proj.weight": mixer.dt_proj.weight,
        "mamba.dt_proj.bias": mixer.dt_bias_E,
        "mamba.A_log": mixer.a_log_EN,
        "mamba.D": mixer.d_E,
        "mamba.out_proj.weight": mixer.out_proj.weight,
    }


def mlp(feed_forward: layers.MLP) -> dict[str, Tensor]:
    return _swiglu("feed_forward", feed_forward.gate_up.weight, feed_forward.down.weight)


def moe(feed_forward: layers.MoE) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {"feed_forward.router.weight": feed_forward.router_XD}
    experts = zip(feed_forward.gate_up_XFD, feed_forward.down_XDF, strict=True)
    for x, (gate_up, down) in enumerate(experts):
        found |= _swiglu(f"feed_forward.experts.{x}", gate_up, down)
    return found


NAMES: dict[type, Callable[[Any], dict[str, Tensor]]] = {
    layers.Attention: attention,
    layers.Mamba: mamba,
    layers.MLP: mlp,
    layers.MoE: moe,
}


@torch.no_grad()
def views(model: HybridLM) -> dict[str, Tensor]:
    """Return every tensor of transformers' Jamba, by its name in a file, as a view of `model`'s.

    To write into a view is to write into the model. A tied unembedding has no name of its own.
    The model's spec must be one that `hybrid.huggingface.config_of` accepts. Raises ValueError,
    naming the layer, for a kind of layer that their Jamba does not have.
    """
    found: dict[str, Tensor] = {"model.embed_tokens.weight": model.embed.weight}
    for i, block in enumerate(model.blocks):
        found |= {f"model.layers.{i}.{name}": view for name, view in _block(i, block).items()}
    found["model.final_layernorm.weight"] = model.norm.weight
    if not model.spec.tied:
        found["lm_head.weight"] = model.head.weight
    return found


def _block(i: int, block: Any) -> dict[str, Tensor]:
    mixer, feed_forward = block.mixing.mixer, block.feeding.feed_forward
    for part, module in (("mixer", mixer), ("feed_forward", feed_forward)):
        require(
            type(module) in NAMES,
            f"layers[{i}].{part}: a {type(module).__name__} must be one of "
            f"{', '.join(kind.__name__ for kind in NAMES)}, which transformers' Jamba has; a model "
            "with experts in 8 bits is saved as the model that it was made of",
        )
    return {
        "input_layernorm.weight": block.mixing.norm.weight,
        **NAMES[type(mixer)](mixer),
        "pre_ff_layernorm.weight": block.feeding.norm.weight,
        **NAMES[type(feed_forward)](feed_forward),
    }


def _swiglu(prefix: str, gate_up: Tensor, down: Tensor) -> dict[str, Tensor]:
    gate, up = gate_up.chunk(2)
    return {
        f"{prefix}.gate_proj.weight": gate,
        f"{prefix}.up_proj.weight": up,
        f"{prefix}.down_proj.weight": down,
    }
