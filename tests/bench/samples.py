"""Settings of the smallest models, and what a run of the benchmark says of them."""

from dataclasses import replace

import torch

from hybrid.jamba import jamba, parse_ratio
from hybrid.model import HybridLM, build
from hybrid.ops import REFERENCE, names_for
from hybrid.spec import Attention, MoE
from sweeps.bench import run
from sweeps.bench.record import Row
from sweeps.bench.roof import Roof
from sweeps.bench.setting import Phase, Setting, jamba_style
from sweeps.trial.recipe import Precision

PEERS = {
    "transformers": "transformers",
    "transformers (mambapy scan)": "mambapy.pscan",
    "mambapy": "mambapy.jamba",
}
HERE = [f"ours ({name})" for name in names_for(torch.device("cpu"))]
DENSE = jamba_style(ratio=(1, 7), width=16, hidden=24, blocks=1, vocab=32)
SPECS = {
    "dense": DENSE,
    "tied": replace(DENSE, tied=True),
    "routed": jamba(
        vocab=32,
        width=16,
        hidden=24,
        blocks=1,
        l=4,
        ratio=(1, 3),
        attention=Attention(heads=4, kv_heads=2),
        moe=MoE(hidden=24, n_experts=4, top_k=2),
    ),
}
PURE = {
    ratio: jamba_style(ratio=parse_ratio(ratio), width=16, hidden=24, blocks=1, vocab=32)
    for ratio in ("1:0", "0:1")
}
ROOF = Roof(
    gemm_flops_per_s=1e12, copy_bytes_per_s=1e10, exp_cached_per_s=4e9, exp_uncached_per_s=2e9
)


def setting_of(**changes) -> Setting:
    usual = Setting(
        spec=DENSE,
        device=torch.device("cpu"),
        precision=Precision.FP32,
        batch=2,
        tokens=8,
        contexts=(12,),
        decode_tokens=2,
        rounds=2,
        round_s=1e-3,
        phases=(Phase.TRAIN, Phase.DECODE),
    )
    return replace(usual, **changes)


def disturbed(setting: Setting) -> HybridLM:
    """A model of which no two parameters are equal, so that swapped ones would be seen."""
    model = build(setting.spec, ops=REFERENCE)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=draws)
    return model


def run_of(setting: Setting, *names: str, monkeypatch) -> dict[tuple[str, Phase], Row]:
    monkeypatch.setattr(run.roof, "measure", lambda setting: ROOF)
    rows = run.run(setting, names, memory=False, command="bench", say=lambda what: None)
    return {(row.contender, row.phase): row for row in rows}
