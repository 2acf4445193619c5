"""Descent through torch: the same lines on a device. On the CPU everywhere, on a CUDA device where there is one."""

import contextlib

import numpy as np
import pytest
import torch

from eoslib import cuda, descent, loops, network

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]
KINDS = [{}, {"keep": 20}, {"every": 13, "observe": {"norm": lambda w: (w * w).sum((-3, -2, -1))}}]


def setting(depth, width, start="unbalanced"):
    rng = np.random.default_rng(depth + width)
    M = network.target((10, 9, 6)[:width], width, rng=rng).matrix
    return network.initialise(start, depth=depth, width=width, scale=0.1, rng=rng), M, depth * 10 ** (2 - 2 / depth)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS, ids=["whole", "keep", "every"])
@pytest.mark.parametrize(("depth", "width"), [(1, 3), (2, 5), (3, 1), (3, 20), (4, 5)])
def test_a_device_agrees_with_the_cpu(device, kind, depth, width):
    """Below the edge, where rounding does not grow: 400 steps move each entry by some 1e-13."""
    W, M, S = setting(depth, width)
    rates = np.array([0.5, 1.2, 1.9]) / S
    here, there = descent.descend(W, M, rates, 400, **kind), descent.descend(W, M, rates, 400, device=device, **kind)
    for name in ("weights", "loss", "singular_values", "learning_rate"):
        ours, theirs = getattr(here, name), getattr(there, name)
        assert type(theirs) is np.ndarray and theirs.dtype == ours.dtype
        np.testing.assert_allclose(theirs, ours, rtol=1e-10, atol=1e-10)
    for name, value in here.observed.items():
        np.testing.assert_allclose(there.observed[name], value, rtol=1e-10)
    assert np.array_equal(here.steps, there.steps) and not there.diverged.any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep", [None, 3])
def test_divergence_on_a_device(device, keep):
    W, M, S = setting(3, 5)
    rates = np.array([1.0, 8.0, 1.5, 40.0]) / S
    here, there = (descent.descend(W, M, rates, 900, keep=keep, device=where) for where in (None, device))
    assert there.diverged.tolist() == [False, True, False, True] and np.isfinite(there.weights).all()
    assert np.abs(there.diverged_at - here.diverged_at).max() <= 3  # the way out is chaotic
    for w, at, rate, loss in zip(there.weights, there.diverged_at, rates, there.loss):
        if at >= 0:
            assert np.isfinite(network.loss(w, M)) and np.isinf(loss[-1])
            with np.errstate(over="ignore", invalid="ignore"):
                a, b, c = w - rate * network.gradient(w, M)
                assert not np.isfinite(np.sum((c @ b @ a - M) ** 2))


@pytest.mark.parametrize("device", DEVICES)
def test_beyond_the_edge_the_cycle_is_the_same(device):
    """A two-cycle of the first mode, which attracts: after it is reached, rounding does not grow either."""
    W, M, S = setting(3, 5, "balanced")
    M = np.diag([10.0, 6.0, 3.0, 0.0, 0.0])
    rates = np.array([2.1, 2.2]) / S
    ends = [descent.descend(W, M, rates, 4000, keep=2, device=where).singular_values for where in (None, device)]
    assert np.abs(ends[0][:, 0] - ends[0][:, 1]).max() > 1
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_float32_stays_and_the_thread_count_is_left_alone(device):
    W, M, S = setting(3, 5)
    before = torch.get_num_threads()
    run = descent.descend(W.astype(np.float32), M.astype(np.float32), 1 / S, 100, device=device)
    assert run.weights.dtype == run.loss.dtype == np.float32 and torch.get_num_threads() == before
    np.testing.assert_allclose(run.loss, descent.descend(W, M, 1 / S, 100).loss, rtol=1e-3)  # 100 steps of roundings


@CUDA
def test_many_runs_on_the_device_are_the_runs_one_by_one_to_rounding():
    W, M, S = setting(3, 5)
    rates = np.linspace(0.5, 1.9, 500) / S
    together = descent.descend(W, M, rates, 300, keep=5, device="cuda")
    for i in (0, 250, 499):
        alone = descent.descend(W, M, rates[i], 300, keep=5, device="cuda")
        np.testing.assert_allclose(together.singular_values[i], alone.singular_values, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("device", ["abacus", 3.5, object(), "", True])
def test_a_device_that_is_not_there_is_named(device):
    W, M, S = setting(2, 3)
    with pytest.raises(ValueError, match="^device: "):
        descent.descend(W, M, 1 / S, 5, device=device)


def test_what_a_device_cannot_do_is_named():
    W, M, S = setting(2, 3)
    with pytest.raises(ValueError, match="^device: .*longdouble|^device: .*float128"):
        descent.descend(W.astype(np.longdouble), M, 1 / S, 5, device="cpu")
    with pytest.raises(ValueError, match="^device: .*one or the other"):
        descent.descend(W, M, 1 / S, 5, device="cpu", compiled=True)


@pytest.mark.parametrize("width", [1, 2, 5, 13])
def test_products_of_narrow_matrices(width):
    """Against torch's batched product, transposed factors included; a product of d terms rounds d times."""
    a, b = torch.tensor(np.random.default_rng(width).standard_normal((2, 7, width, width)))
    for left, right in ((a, b), (a.mT, b), (a, b.mT)):
        cuda.multiply(left, right, out := torch.full_like(a, torch.nan))
        np.testing.assert_allclose(out, torch.bmm(left, right), rtol=0, atol=width * 1e-15 * 10)


@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("device", DEVICES)
def test_losses_and_singular_values_are_those_of_the_plain_loop(device, copies):
    rng = np.random.default_rng(0)
    W, M, rates = rng.standard_normal((3, 2, 4, 4)), rng.standard_normal((4, 4)), np.full(3, 0.01)
    here, there = loops.Loop(W, M, rates), cuda.Loop(W, M, rates, device)
    here.copies = there.copies = copies
    ours, theirs = here.room(5), there.room(5)
    here.record(ours), there.record(theirs)
    np.testing.assert_allclose(there.losses(theirs, there.room(5)), here.losses(ours, here.room(5)), rtol=1e-13)
    dead = np.zeros((5, 3), bool)
    dead[2, 1] = True
    found = there.singular_values(theirs, dead)
    np.testing.assert_allclose(found, here.singular_values(ours, dead), rtol=0, atol=1e-13)
    assert not found[2, 1].any() and found[2, 0].all()


@pytest.mark.parametrize("device", DEVICES)
def test_only_a_loss_out_of_range_is_told_and_only_once(device):
    """One layer at rate one is at its target after a step; the zeros beside the diagonal are at it from the start."""
    start = lambda size: np.full((1, 1, 1, 1), size) * np.eye(3)
    loop = cuda.Loop(start(1e60), np.zeros((3, 3)), np.ones(1), device)  # far out of the range of float32
    assert loop.skip(1) is True
    loop.write(start(1e160))
    assert loop.skip(1) is False and loop.skip(1) is True
    loop.copies = 1000
    loop.write(start(1e153))  # the square is 1e306, and half of a thousand times that out of range
    assert loop.skip(1) is False
    loop.copies = 1
    loop.write(start(1e153))
    assert loop.skip(1) is True


@pytest.mark.parametrize("device", DEVICES)
def test_retired_runs_rest_at_zero_on_a_device(device):
    loop = cuda.Loop(np.ones((3, 2, 2, 2)), np.eye(2), np.full(3, 0.1), device)
    loop.retire(np.array([False, True, False]))
    assert not loop.read()[1].any() and loop.read()[[0, 2]].all() and loop.rates.ravel().tolist() == [0.1, 0.0, 0.1]


def test_all_that_a_loop_holds_is_on_the_device():
    """Torch's device without memory: nothing can be computed on it, but it is not the one that is taken unasked."""
    loop = cuda.Loop(np.ones((3, 2, 2, 2)), np.eye(2), np.full(3, 0.1), "meta")
    held = [loop.weights, loop.target, loop.rates, loop.total, loop.gradients, loop.residual, loop.product, loop.room(2)]
    assert {tensor.device.type for tensor in held} == {"meta"} and {tensor.dtype for tensor in held} == {torch.float64}


# -- a device that the CPU plays ----------------------------------------------------------------------------------------
class Stream:
    def __init__(self, log, name):
        self.log, self.name = log, name

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")


class Graph:
    """What was captured is not done, and is done again at each replay."""

    def __init__(self):
        self.captured, self.replays, self.open = [], 0, False

    def replay(self):
        self.replays += 1
        for step in self.captured:
            step()


@pytest.fixture
def played(monkeypatch):
    """What happens on a CUDA device that the CPU plays: this shows the order of things here, and nothing of the device."""
    log, graphs, on, once = [], [], [], cuda.Loop._once
    current = Stream(log, "current")

    def step(loop):
        if graphs and graphs[-1].open:
            graphs[-1].captured.append(lambda: once(loop))
        else:
            log.append(f"step on {on[-1].name if on else current.name}")
            once(loop)

    @contextlib.contextmanager
    def graph(of):
        graphs.append(of)
        of.open = True
        yield
        of.open = False
        log.append("captured")

    @contextlib.contextmanager
    def stream(side):
        on.append(side)
        yield
        on.pop()

    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True), raising=False)
    monkeypatch.setattr(cuda.Loop, "_once", step)
    for name, value in {
        "CUDAGraph": Graph,
        "Stream": lambda device: Stream(log, "side"),
        "current_stream": lambda: current,
        "device": lambda device: contextlib.nullcontext(),
        "stream": stream,
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return log, graphs


@pytest.mark.parametrize("width", [1, cuda.NARROW, cuda.NARROW + 1])
def test_a_captured_step_is_replayed_from_the_start_on(played, monkeypatch, width):
    log, graphs = played
    narrow, multiply = [], cuda.multiply
    monkeypatch.setattr(cuda, "multiply", lambda *factors, out: narrow.append(1) or multiply(*factors, out))
    W, M, S = setting(3, width)
    here, there = (descent.descend(W, M, np.array([0.5, 1.2]) / S, 900, keep=3, device=d) for d in (None, "cpu"))
    np.testing.assert_allclose(there.weights, here.weights, rtol=0, atol=1e-11)  # below the edge: roundings of 900 steps
    np.testing.assert_allclose(there.loss, here.loss, rtol=0, atol=1e-11 * np.sum(M * M))
    before = log[: log.index("captured")]
    assert before[0] == "side waits for current" and before[-1] == "current waits for side"
    assert len(before) > 2 and set(before[1:-1]) == {"step on side"}  # the libraries have been used before
    (graph,) = graphs
    assert len(graph.captured) == 1 and graph.replays >= 901 and log[-1] == "captured"  # no step but by the graph
    assert bool(narrow) == (width <= cuda.NARROW)


def test_capturing_a_step_leaves_the_start_as_it_was(played):
    W, M, _ = setting(3, 4, "gaussian")
    assert np.array_equal(cuda.Loop(W[None], M, np.array([0.1]), "cpu").read()[0], W)
