"""Spec class -> module class. A new kind of layer is one spec, one file here and one line here.

Every mixer is called as (x_BTD, state) -> (y_BTD, state), where state None starts a sequence.
Its `misfit` says why the mixer cannot continue a state, and returns "" where it can.
Every feed-forward is called as x_BTD -> (y_BTD, routings), one Routing per router it holds.
"""

from hybrid import spec
from hybrid.layers.attention import Attention
from hybrid.layers.int8_moe import Int8MoE
from hybrid.layers.mamba import Mamba
from hybrid.layers.mamba2 import Mamba2
from hybrid.layers.mlp import MLP
from hybrid.layers.moe import MoE

MIXERS = {spec.Attention: Attention, spec.Mamba: Mamba, spec.Mamba2: Mamba2}
FEED_FORWARDS = {spec.MLP: MLP, spec.MoE: MoE}

__all__ = ["FEED_FORWARDS", "MIXERS", "MLP", "Attention", "Int8MoE", "Mamba", "Mamba2", "MoE"]
