"""One trial in several processes: how they share weights and batches, and what they say.

    with process_group():  # in each of the processes that torchrun started
        record = run(spec, recipe, engine=Engine(parallel=Parallel.FSDP))

A step takes the tokens that it would take alone: the batch is a function of (recipe, step), and
each process takes its rows of it. The parts are of equal size, so the mean of their mean losses is
the batch's, and so are the gradients. The balance loss multiplies an expert's load by its
probability: with the load of the whole batch in every process, its mean over processes is the whole
batch's too. What differs from one process is the order of sums, that is rounding.

Decisions (stop, save, go on from here) are the first process's and go between CPUs, by gloo. Not
here: tensor, pipeline and expert parallelism, weights gathered in bf16, measuring with parts of the
weights: for held-out loss and speeds the first process takes all weights, without gradients.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from hybrid import ops as backends
from hybrid.init import initialise
from hybrid.layers.moe import Routing
from hybrid.model import HybridLM, build
from hybrid.ops import Ops
from hybrid.spec import ModelSpec, require
from sweeps.trial.device import choose_device
from sweeps.trial.engine import Engine, Parallel

Loss = Callable[[Tensor, Tensor], tuple[Tensor, tuple[Routing, ...]]]  # as HybridLM.loss
T = TypeVar("T")

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
HOW = "torchrun --nproc-per-node N -m sweeps.workers.together CONFIG --parallel fsdp"
WAIT = timedelta(hours=2)  # the others wait while the first measures; torchrun ends them if it dies


@contextmanager
def process_group(device: str = "auto") -> Iterator[None]:
    """Be one of the processes that torchrun started; on CUDA, on the GPU of its local rank.

    Once in a process's life. Raises ValueError where torchrun did not start it.
    """
    missing = [name for name in TORCHRUN if name not in os.environ]
    if missing:
        raise ValueError(f"{missing[0]} is not set: start this with torchrun, as in `{HOW}`")
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=WAIT)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Team(ABC):
    """The processes of one trial, as one of them sees them."""

    size: int
    first: bool  # whether this one measures, watches and writes

    @abstractmethod
    def build(self, spec: ModelSpec, ops: Ops, seed: int, device: torch.device) -> HybridLM:
        """Return the model as this process trains it; its weights do not depend on the team."""

    @abstractmethod
    def loss(self, model: HybridLM) -> Loss:
        """Return what to call for the loss of this process's part of a batch.

        After its backward pass, gradients are those of the mean over all processes.
        """

    @abstractmethod
    def part(self, x_BT: Tensor) -> Tensor:
        """Return this process's rows of a whole batch."""

    @abstractmethod
    def with_common_loads(self, routings: tuple[Routing, ...]) -> tuple[Routing, ...]:
        """Return the routings with the whole batch's loads in place of the part's."""

    @abstractmethod
    def means(self, *scalars: Tensor) -> list[float]:
        """Return the mean of each over the processes."""

    @abstractmethod
    def whole_model(self, model: HybridLM) -> HybridLM:
        """Return, in the first process, the model with all of its weights, of no team.

        All have to call it; what the others get is of no use.
        """

    @abstractmethod
    def from_first(self, value: T) -> T:
        """Return the first process's value, once it has come to this."""

    @abstractmethod
    def all_of(self, value: T) -> list[T]:
        """Return each process's value."""


class Alone(Team):
    """One process."""

    size, first = 1, True

    def build(self, spec: ModelSpec, ops: Ops, seed: int, device: torch.device) -> HybridLM:
        return build(spec, ops=ops, seed=seed, device=device)

    def loss(self, model: HybridLM) -> Loss:
        return model.loss

    def part(self, x_BT: Tensor) -> Tensor:
        return x_BT

    def with_common_loads(self, routings: tuple[Routing, ...]) -> tuple[Routing, ...]:
        return routings

    def means(self, *scalars: Tensor) -> list[float]:
        return [x.item() for x in scalars]

    def whole_model(self, model: HybridLM) -> HybridLM:
        return model

    def from_first(self, value: T) -> T:
        return value

    def all_of(self, value: T) -> list[T]:
        return [value]


class _Several(Team, ABC):
    """What does not depend on where the weights are."""

    def __init__(self) -> None:
        self.size, self.rank = dist.get_world_size(), dist.get_rank()
        self.first = self.rank == 0

    def part(self, x_BT: Tensor) -> Tensor:
        return x_BT.chunk(self.size)[self.rank]

    def with_common_loads(self, routings: tuple[Routing, ...]) -> tuple[Routing, ...]:
        if not routings:
            return routings
        loads = torch.cat([routing.load_X for routing in routings])
        dist.all_reduce(loads)
        each = (loads / self.size).split([len(routing.load_X) for routing in routings])
        return tuple(
            routing._replace(load_X=load_X) for routing, load_X in zip(routings, each, strict=True)
        )

    def means(self, *scalars: Tensor) -> list[float]:
        device = scalars[0].device
        sums = torch.stack([x.detach().to(device) for x in scalars])
        dist.all_reduce(sums)
        return (sums / self.size).tolist()

    def from_first(self, value: T) -> T:
        return self._from(0, value)

    def all_of(self, value: T) -> list[T]:
        return [self._from(rank, value) for rank in range(self.size)]

    def _from(self, rank: int, value: T) -> T:
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=rank, device=torch.device("cpu"))
        return box[0]


class Copies(_Several):
    """Every process has all weights; gradients are averaged while the backward pass goes on."""

    def build(self, spec: ModelSpec, ops: Ops, seed: int, device: torch.device) -> HybridLM:
        return build(spec, ops=ops, seed=seed, device=device)

    def loss(self, model: HybridLM) -> Loss:
        return DistributedDataParallel(_AsForward(model), gradient_as_bucket_view=True)

    def whole_model(self, model: HybridLM) -> HybridLM:
        return model


class Shards(_Several):
    """Each process has a part of every weight; a layer is whole only while it is computed."""

    def build(self, spec: ModelSpec, ops: Ops, seed: int, device: torch.device) -> HybridLM:
        # Takes a second to load, which every other command would wait for.
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        mesh = init_device_mesh(device.type, (self.size,))
        with torch.device("meta"):
            model = HybridLM(spec, ops)
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        register_fsdp_forward_method(model, "loss")
        model.to_empty(device=device)
        if spec.tied:
            model.head.weight = model.embed.weight
        initialise(model, spec, seed, put)
        return model

    def loss(self, model: HybridLM) -> Loss:
        return model.loss

    def whole_model(self, model: HybridLM) -> HybridLM:
        plain = _empty(model.spec, model.ops, model.embed.weight.device, allocate=self.first)
        with torch.no_grad():
            for mine, parameter in zip(plain.parameters(), model.parameters(), strict=True):
                full = whole(parameter)
                if self.first:
                    mine.copy_(full)
        return plain


ALONE = Alone()
TEAMS: dict[Parallel, Callable[[], Team]] = {
    Parallel.NONE: Alone,
    Parallel.DDP: Copies,
    Parallel.FSDP: Shards,
}


def team_of(engine: Engine, batch: int) -> Team:
    """Return this process's team.

    Raises ValueError outside `process_group`, for a `batch` that cannot be shared out evenly, and
    for FSDP with the one kind of kernels that it cannot have.
    """
    parallel = engine.parallel
    require(
        parallel is Parallel.NONE or dist.is_initialized(),
        f"parallel={parallel} needs several processes, in `parallel.process_group`: `{HOW}`",
    )
    team = TEAMS[parallel]()
    require(
        batch % team.size == 0,
        f"batch={batch} must be divisible by the {team.size} processes that share it",
    )
    # torch refuses to free memory of which a numpy array was made, as those kernels do.
    ops = backends.find(engine.ops, choose_device(engine.device)).name
    require(
        parallel is not Parallel.FSDP or ops != backends.CPU.name,
        f"parallel=fsdp frees weights between layers, which ops={ops} keeps it from; on a CPU, "
        "where fsdp is only to be tried out, take ops=reference",
    )
    return team


def whole(x: Tensor) -> Tensor:
    """Return a tensor with all its parts; where there are some, all processes have to call it."""
    return x.full_tensor() if _is_shared_out(x) else x  # type: ignore[attr-defined]


def put(target: Tensor, value: Tensor) -> Tensor:
    """Copy a whole value, the same in every process, into a tensor that may be a part of it."""
    if not _is_shared_out(target):
        return target.copy_(value)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(target, DTensor)
    value = value.to(target.device)
    parts = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    return target.copy_(parts)


def _is_shared_out(x: Tensor) -> bool:
    """Return whether the tensor is a DTensor, without loading what those are."""
    return hasattr(x, "full_tensor")


class _AsForward(nn.Module):
    """DDP watches the call of a module, and a loss is a method of ours."""

    def __init__(self, model: HybridLM):
        super().__init__()
        self.model = model

    def forward(self, ids_BT: Tensor, target_BT: Tensor) -> tuple[Tensor, tuple[Routing, ...]]:
        return self.model.loss(ids_BT, target_BT)


def _empty(spec: ModelSpec, ops: Ops, device: torch.device, allocate: bool) -> HybridLM:
    """Return a model whose weights are yet to be filled in, without memory unless `allocate`."""
    with torch.device("meta"):
        model = HybridLM(spec, ops)
    if allocate:
        model.to_empty(device=device)
        if spec.tied:
            model.head.weight = model.embed.weight
    return model
