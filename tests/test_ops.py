"""What every Ops object must do: agree with the reference in double precision, gradients included.

Each test takes the object as an argument and runs once per entry of `hybrid.ops.ALL`; those about
the CPU kernels alone (errors, threads, registration) come last. One file,
since one contract runs over all of them.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

from hybrid.ops import ALL, CPU, REFERENCE, Ops, cpu, cpu_run

Op = Callable[..., tuple[Tensor, Tensor]]
Tensors = list[Tensor]

# Every value beside most of the others: a stride without a factor in common with any list's length.
SCAN_SHAPES = list(
    product(
        [1, 3], [1, 2, 5, 16, 17, 33, 64], [1, 8, 16, 20, 48], [1, 3, 16, 17, 40], [False, True]
    )
)[::23]
CONV_SHAPES = list(
    product([1, 3], [1, 2, 5, 31, 33, 64, 70], [1, 8, 16, 20, 48], [1, 2, 4, 7, 40])
)[::9]


@pytest.fixture(params=ALL.values(), ids=list(ALL))
def ops(request: pytest.FixtureRequest) -> Ops:
    return request.param


def draws() -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator)


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    return draws()


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def scan_inputs(
    draw: Callable[..., Tensor], B: int, T: int, E: int, N: int, started: bool
) -> Tensors:
    """Return u, dt, a, b, c, d, h of the sizes Mamba's initialisation gives them, roughly."""
    dt_BTE = draw(B, T, E).abs() * 0.3
    a_EN = -draw(E, N).abs() * 4
    h_BEN = draw(B, E, N) * started
    return [draw(B, T, E), dt_BTE, a_EN, draw(B, T, N), draw(B, T, N), draw(E), h_BEN]


def conv_inputs(draw: Callable[..., Tensor], B: int, T: int, E: int, W: int) -> Tensors:
    return [draw(B, T, E), draw(E, W), draw(E), draw(B, W - 1, E)]


def results(op: Op, inputs: Tensors, pulls: Tensors) -> Tensors:
    """Return both outputs, then the gradient of every input when each output is pulled so."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = op(*leaves)
    gradients = torch.autograd.grad(outputs, leaves, pulls)
    return [x.detach() for x in (*outputs, *gradients)]


def assert_near(
    found: Tensors, wanted: Tensors, tolerance: float = 3e-6, floor: float = 1e-30
) -> None:
    """Compare against the largest element of each tensor, or `floor`: sums cancel in the others."""
    for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.shape == other.shape
        if one.numel():
            error = (one.double() - other).abs().max() / other.abs().max().clamp_min(floor)
            assert error <= tolerance, f"result {place}: relative error {error:.1e}"


def truth(reference: Op, inputs: Tensors, pulls: Tensors) -> Tensors:
    return results(reference, [x.double() for x in inputs], [x.double() for x in pulls])


# ---- scan ----------------------------------------------------------------------------------------


@cache
def scan_case(B: int, T: int, E: int, N: int, started: bool) -> tuple[Tensors, Tensors, Tensors]:
    """Return (inputs, pulls, the truth), computed once for all implementations."""
    draw = draws()
    inputs, pulls = scan_inputs(draw, B, T, E, N, started), [draw(B, T, E), draw(B, E, N)]
    return inputs, pulls, truth(REFERENCE.scan, inputs, pulls)


@pytest.mark.parametrize("shape", SCAN_SHAPES, ids=str)
def test_scan_agrees(ops: Ops, shape: tuple[int, int, int, int, bool]) -> None:
    inputs, pulls, wanted = scan_case(*shape)
    assert_near(results(ops.scan, inputs, pulls), wanted)


@pytest.mark.parametrize("dt", [1e-6, 50.0])
def test_scan_agrees_at_extreme_steps(ops: Ops, draw, dt: float) -> None:
    inputs = scan_inputs(draw, 2, 40, 20, 5, True)
    inputs[1].fill_(dt)
    inputs[2].fill_(-16.0)
    pulls = [draw(2, 40, 20), draw(2, 20, 5)]
    assert_near(results(ops.scan, inputs, pulls), truth(REFERENCE.scan, inputs, pulls))


def decay(ops: Ops, dt_E: Tensor, a: float) -> Tensor:
    """Return exp(dt a), read off a state of one that nothing drives."""
    E = len(dt_E)
    none_11E, one_1E1 = torch.zeros(1, 1, E), torch.ones(1, E, 1)
    none_111, none_E = torch.zeros(1, 1, 1), torch.zeros(E)
    a_E1 = torch.full((E, 1), a)
    return ops.scan(none_11E, dt_E[None, None], a_E1, none_111, none_111, none_E, one_1E1)[1][
        0, :, 0
    ]


def test_decay_is_exact_at_the_ends(ops: Ops) -> None:
    found = decay(ops, torch.tensor([0.0, 1e4, 1e9, 1e30]), -1.0)
    assert found.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_decay_is_as_precise_as_its_argument(ops: Ops) -> None:
    dt_E = torch.linspace(0, 80, 50_000)
    a = -0.8125
    wanted_E = torch.exp(dt_E.double() * a)
    error_E = (decay(ops, dt_E, a).double() / wanted_E - 1).abs()
    # A rounded product x = dt a moves exp(x) by |x| half-units in the last place.
    assert (error_E <= 2.5e-7 + 2.0**-24 * 1.1 * (dt_E * -a)).all()


@pytest.mark.parametrize("place", range(7))
def test_scan_does_not_hide_a_nan(ops: Ops, draw, place: int) -> None:
    inputs = scan_inputs(draw, 1, 3, 16, 2, True)
    inputs[place].view(-1)[0] = float("nan")
    assert ops.scan(*inputs)[0].isnan().any()


@pytest.mark.parametrize("first", [1, 16, 31, 45])
def test_scan_in_two_calls_is_one(ops: Ops, draw, first: int) -> None:
    def in_two(u, dt, a, b, c, d, h) -> tuple[Tensor, Tensor]:
        y1, h = ops.scan(u[:, :first], dt[:, :first], a, b[:, :first], c[:, :first], d, h)
        y2, h = ops.scan(u[:, first:], dt[:, first:], a, b[:, first:], c[:, first:], d, h)
        return torch.cat([y1, y2], dim=1), h

    inputs, pulls = scan_inputs(draw, 2, 46, 20, 3, True), [draw(2, 46, 20), draw(2, 20, 3)]
    assert_near(results(in_two, inputs, pulls), results(ops.scan, inputs, pulls))


@pytest.mark.parametrize("place", [0, 1])
def test_scan_gradient_of_one_output_alone(ops: Ops, draw, place: int) -> None:
    def gradients(op: Op, inputs: Tensors, pull: Tensor) -> Tensors:
        leaves = [x.detach().requires_grad_() for x in inputs]
        output = op(*leaves)[place]
        return list(torch.autograd.grad(output, leaves, pull, materialize_grads=True))

    inputs = scan_inputs(draw, 2, 5, 8, 3, True)
    pull = draw(2, 5, 8) if place == 0 else draw(2, 8, 3)
    wanted = gradients(REFERENCE.scan, [x.double() for x in inputs], pull.double())
    assert_near(gradients(ops.scan, inputs, pull), wanted)


# ---- convolution ---------------------------------------------------------------------------------


@cache
def conv_case(B: int, T: int, E: int, W: int) -> tuple[Tensors, Tensors, Tensors]:
    """Return (inputs, pulls, the truth), computed once for all implementations."""
    draw = draws()
    inputs, pulls = conv_inputs(draw, B, T, E, W), [draw(B, T, E), draw(B, W - 1, E)]
    return inputs, pulls, truth(REFERENCE.conv, inputs, pulls)


@pytest.mark.parametrize("shape", CONV_SHAPES, ids=str)
def test_conv_agrees(ops: Ops, shape: tuple[int, int, int, int]) -> None:
    inputs, pulls, wanted = conv_case(*shape)
    assert_near(results(ops.conv, inputs, pulls), wanted)


def test_conv_agrees_where_the_activation_saturates(ops: Ops, draw) -> None:
    inputs = conv_inputs(draw, 1, 9, 16, 4)
    inputs[2] = torch.linspace(-300, 300, 16)
    pulls = [draw(1, 9, 16), draw(1, 3, 16)]
    assert_near(results(ops.conv, inputs, pulls), truth(REFERENCE.conv, inputs, pulls))


@pytest.mark.parametrize("first", [1, 2, 32, 40])
def test_conv_in_two_calls_is_one(ops: Ops, draw, first: int) -> None:
    def in_two(x, weight, bias, tail) -> tuple[Tensor, Tensor]:
        y1, tail = ops.conv(x[:, :first], weight, bias, tail)
        y2, tail = ops.conv(x[:, first:], weight, bias, tail)
        return torch.cat([y1, y2], dim=1), tail

    inputs, pulls = conv_inputs(draw, 2, 41, 20, 4), [draw(2, 41, 20), draw(2, 3, 20)]
    assert_near(results(in_two, inputs, pulls), results(ops.conv, inputs, pulls))


# ---- both ----------------------------------------------------------------------------------------


def strided(x: Tensor) -> Tensor:
    """Return an equal tensor whose elements do not lie next to each other."""
    return torch.stack([x, x], dim=-1)[..., 0].transpose(0, -1).contiguous().transpose(0, -1)


def test_inputs_need_not_be_contiguous(ops: Ops, draw) -> None:
    for op, inputs, pulls in (
        (ops.scan, scan_inputs(draw, 3, 18, 20, 5, True), [draw(3, 18, 20), draw(3, 20, 5)]),
        (ops.conv, conv_inputs(draw, 3, 18, 20, 4), [draw(3, 18, 20), draw(3, 3, 20)]),
    ):
        moved = results(op, [strided(x) for x in inputs], [strided(x) for x in pulls])
        assert_near(moved, results(op, inputs, pulls))


# ---- attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 9), (9, 9), (4, 9)])
@pytest.mark.parametrize(("H", "K"), [(4, 4), (4, 2), (3, 1)])
def test_attend_agrees(ops: Ops, draw, H: int, K: int, T: int, S: int, window: int | None) -> None:
    def under(op: Callable[..., Tensor]) -> Op:
        return lambda q, k, v: (op(q, k, v, window),)

    inputs = [draw(2, T, H, 8), draw(2, S, K, 8), draw(2, S, K, 8)]
    pulls = [draw(2, T, H, 8)]
    wanted = truth(under(REFERENCE.attend), inputs, pulls)
    # A query that sees one key has no gradient: the floor is for what rounding leaves there.
    assert_near(results(under(ops.attend), inputs, pulls), wanted, floor=1.0)


@pytest.mark.parametrize(("T", "S", "window"), [(9, 9, None), (1, 9, None), (4, 9, 3)])
def test_attend_takes_bfloat16(ops: Ops, draw, T: int, S: int, window: int | None) -> None:
    q, k, v = (x.bfloat16() for x in (draw(2, T, 4, 8), draw(2, S, 2, 8), draw(2, S, 2, 8)))
    found = ops.attend(q, k, v, window)
    assert found.dtype == torch.bfloat16
    wanted = REFERENCE.attend(q.double(), k.double(), v.double(), window)
    assert_near([found], [wanted], tolerance=2e-2)


# ---- the CPU kernels alone -----------------------------------------------------------------------


def big_calls(draw: Callable[..., Tensor]) -> list[tuple[Op, Tensors, Tensors]]:
    """Return calls with enough work to be shared among threads."""
    scans = [(1, 70, 272, 17), (3, 70, 100, 17)]
    calls = [
        (CPU.scan, scan_inputs(draw, *shape, True), [draw(*shape[:3]), draw(shape[0], *shape[2:])])
        for shape in scans
    ]
    assert all(torch.Size(shape).numel() > cpu_run.INLINE for shape in scans)
    conv = (CPU.conv, conv_inputs(draw, 3, 70, 272, 17), [draw(3, 70, 272), draw(3, 16, 272)])
    return [*calls, conv]


def test_results_do_not_depend_on_threads(draw, threads) -> None:
    for call in big_calls(draw):
        found = []
        for count in (1, 2, 2, 5):
            threads(count)
            found.append(results(*call))
        for other in found[1:]:
            assert all(map(torch.equal, found[0], other))


def test_calls_from_several_python_threads(draw) -> None:
    calls = big_calls(draw)
    alone = [results(*call) for call in calls]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda call: results(*call), calls * 4))
    for place, found in enumerate(together):
        assert all(map(torch.equal, found, alone[place % len(calls)]))


def test_scan_is_registered_as_torch_wants(draw) -> None:
    inputs = scan_inputs(draw, 2, 35, 20, 3, True)
    torch.library.opcheck(cpu._scan, (*inputs, False))
    for form in (Tensor.clone, strided):
        given = [form(x) for x in inputs]
        y_BTE, h_BEN, saved = cpu._scan(*given, True)
        torch.library.opcheck(cpu._scan_backward, (*given[:6], saved, form(y_BTE), form(h_BEN)))
        torch.library.opcheck(cpu._scan_backward, (*given[:6], saved, None, None))
        torch.library.opcheck(cpu._scan, (*(x.requires_grad_() for x in given), True))


@pytest.mark.parametrize("W", [1, 4])
def test_conv_is_registered_as_torch_wants(draw, W: int) -> None:
    inputs = conv_inputs(draw, 2, 9, 20, W)
    for form in (Tensor.clone, strided):
        given = [form(x) for x in inputs]
        pulls = [form(x) for x in cpu._conv(*given)]
        torch.library.opcheck(cpu._conv_backward, (*given, *pulls))
        torch.library.opcheck(cpu._conv, tuple(x.requires_grad_() for x in given))


SCAN_NAMES = ["u_BTE", "dt_BTE", "a_EN", "b_BTN", "c_BTN", "d_E", "h_BEN"]
CONV_NAMES = ["x_BTE", "weight_EW", "bias_E", "tail_BLE"]
ARGUMENTS = [("scan", name) for name in SCAN_NAMES] + [("conv", name) for name in CONV_NAMES]


def arguments(draw: Callable[..., Tensor], op: str) -> dict[str, Tensor]:
    if op == "scan":
        return dict(zip(SCAN_NAMES, scan_inputs(draw, 2, 5, 16, 3, True), strict=True))
    return dict(zip(CONV_NAMES, conv_inputs(draw, 2, 5, 16, 4), strict=True))


@pytest.mark.parametrize(("op", "name"), ARGUMENTS)
def test_a_wrong_dtype_is_named(draw, op: str, name: str) -> None:
    given = arguments(draw, op)
    given[name] = given[name].double()
    with pytest.raises(
        TypeError, match=rf"{op}: {name} is torch\.float64 on cpu; .*torch\.float32"
    ):
        getattr(CPU, op)(**given)


@pytest.mark.parametrize(("op", "name"), ARGUMENTS[1:7] + ARGUMENTS[8:])
def test_a_wrong_shape_is_named(draw, op: str, name: str) -> None:
    given = arguments(draw, op)
    given[name] = torch.cat([given[name], given[name]])
    with pytest.raises(ValueError, match=rf"{op}: {name} has shape \({len(given[name])},.*must be"):
        getattr(CPU, op)(**given)


@pytest.mark.parametrize(("op", "name"), [("scan", "u_BTE"), ("conv", "x_BTE")])
def test_an_empty_sequence_is_refused(draw, op: str, name: str) -> None:
    given = arguments(draw, op)
    given[name] = given[name][:, :0]
    with pytest.raises(ValueError, match=rf"{op}: {name} has shape \(2, 0, 16\).*at least 1"):
        getattr(CPU, op)(**given)
