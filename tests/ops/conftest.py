"""What the tests of operations take: each Ops object in turn, draws, and torch's threads."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from hybrid.ops import ALL, Ops
from tests.ops.samples import draws


@pytest.fixture(params=ALL.values(), ids=list(ALL))
def ops(request: pytest.FixtureRequest) -> Ops:
    return request.param


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    return draws()


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
