"""transformers' Jamba as a contender, with our weights. Written against transformers 5.23.

What the library would print is kept as notes instead: above all that it runs plain torch, because
its compiled kernels are not there.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid.huggingface import save
from hybrid.model import HybridLM
from hybrid.spec import MoE
from sweeps.bench.contender import Contender, absent


class TransformersJamba(Contender):
    """transformers' JambaForCausalLM, opened from a folder that we wrote.

    `mambapy_scan` lets it use mambapy's parallel scan, which it does not by itself.
    """

    def __init__(self, source: HybridLM, *, mambapy_scan: bool):
        transformers = _library(mambapy_scan)
        _listen(transformers)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            save(source, folder)
            self.module: nn.Module = transformers.AutoModelForCausalLM.from_pretrained(
                folder, use_mambapy=mambapy_scan
            )
        self.module.to(source.embed.weight.device)
        self.routed = any(isinstance(layer.feed_forward, MoE) for layer in source.spec.layers)

    def notes(self) -> list[str]:
        return list(HEARD)

    def logits(self, ids_BT: Tensor) -> Tensor:
        return self.module(ids_BT, use_cache=False).logits

    def loss(self, ids_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        output = self.module(ids_BT, use_cache=False, output_router_logits=self.routed)
        nats = F.cross_entropy(output.logits.flatten(0, 1).float(), targets_BT.flatten())
        return nats, output.aux_loss if self.routed else torch.zeros_like(nats)

    def prefill(self, ids_BT: Tensor) -> tuple[Tensor, Any]:
        return self._serve(ids_BT, None)

    def decode(self, ids_B: Tensor, cache: Any) -> tuple[Tensor, Any]:
        return self._serve(ids_B[:, None], cache)

    def _serve(self, ids_BT: Tensor, cache: Any) -> tuple[Tensor, Any]:
        output = self.module(ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1], output.past_key_values


def _library(mambapy_scan: bool) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise absent("transformers", "hf") from error
    if mambapy_scan:
        try:
            import mambapy.pscan  # noqa: F401 - theirs falls back in silence without it
        except ImportError as error:
            raise absent("mambapy", "dev") from error
    return transformers


HEARD: list[str] = []  # what transformers said in this process; it says most things once


class _Ear(logging.Handler):
    """Keeps what a library warns of, each sentence once."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() not in HEARD:
            HEARD.append(record.getMessage())


def _listen(transformers: Any) -> None:
    library = logging.getLogger("transformers")
    if not any(isinstance(handler, _Ear) for handler in library.handlers):
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_default_handler()
        library.addHandler(_Ear(logging.WARNING))
