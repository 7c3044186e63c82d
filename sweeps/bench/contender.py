"""What a contender can be asked, whoever wrote it."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Contender(ABC):
    """One implementation of the model, with weights of its own that equal everyone's."""

    module: nn.Module  # whose parameters are trained

    def notes(self) -> list[str]:
        """Return what a reader of its figures has to know."""
        return []

    @abstractmethod
    def logits(self, ids_BT: Tensor) -> Tensor:
        """Return logits (B, T, V)."""

    @abstractmethod
    def loss(self, ids_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mean nats a token, load-balancing loss, 0 without a router) to train on."""

    @abstractmethod
    def prefill(self, ids_BT: Tensor) -> tuple[Tensor, Any]:
        """Return (the logits after the last token (B, V), a cache)."""

    def ready(self, cache: Any) -> Any:
        """Return what decoding goes on from, made once for a prompt: not timed with its tokens."""
        return cache

    @abstractmethod
    def decode(self, ids_B: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Return (the logits after one more token (B, V), the cache with it)."""


def absent(package: str, extra: str) -> ImportError:
    """Return the error that says how to get a peer."""
    return ImportError(f"{package} is not installed: pip install 'hybrid-workbench[{extra}]'")
