"""Descent of torch networks and eigenvalues of their Hessians, against dense objects, closed forms and NumPy."""

import copy
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eoslib import descent, hessian, network, training

F64, F32 = torch.float64, torch.float32


def problem(dtype=F64, seed=0, activation=torch.nn.Tanh):
    """A network of 363 parameters, its loss, and the loss as a function of one flat vector."""
    g = torch.Generator().manual_seed(seed)
    X, Y = torch.randn(60, 20, generator=g, dtype=F64).to(dtype), torch.randn(60, 3, generator=g, dtype=F64).to(dtype)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(20, 15), activation(), torch.nn.Linear(15, 3)).double().to(dtype)

    def loss(model):
        return ((model(X) - Y) ** 2).mean()

    return net, loss


def dense(net, loss):
    """The Hessian by reverse mode over reverse mode, one row at a time, in float64: no vector products."""
    twin = copy.deepcopy(net)
    parameters = [p for p in twin.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(twin), parameters, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in gradients])
    rows = [torch.autograd.grad(entry, parameters, retain_graph=True) for entry in flat]
    H = torch.stack([torch.cat([p.reshape(-1) for p in row]) for row in rows]).double().numpy()
    return (H + H.T) / 2


class Quadratic(torch.nn.Module):
    """loss = scale * x.A x / 2 with known eigenvalues."""

    def __init__(self, eigenvalues, dtype=F64, seed=0):
        super().__init__()
        n = len(eigenvalues)
        self.x = torch.nn.Parameter(torch.ones(n, dtype=dtype))
        basis = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=F64)).Q
        self.A = (basis @ torch.diag(torch.as_tensor(eigenvalues, dtype=F64)) @ basis.mT).to(dtype)

    def energy(self, scale=1.0):
        return scale * (self.x @ self.A @ self.x) / 2


# -- eigenvalues ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.ReLU])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_largest_eigenvalues_are_those_of_the_dense_hessian(k, activation):
    net, loss = problem(activation=activation)
    wanted = np.linalg.eigvalsh(dense(net, loss))[::-1]
    found = training.sharpness(net, loss, k=k)
    # the error is at most residual squared over the gap (Kato-Temple): 1e-10 over a gap of at least 1e-2 here
    assert np.allclose(found.values, wanted[:k], rtol=1e-7, atol=0)
    assert found.residuals.shape == (k,) and np.all(found.residuals <= 1e-5 * wanted[:k] * 1.001)
    assert torch.allclose(found.vectors @ found.vectors.mT, torch.eye(k, dtype=F64), atol=1e-12)


def test_the_smallest_eigenvalues_come_most_negative_first():
    net, loss = problem()
    wanted = np.linalg.eigvalsh(dense(net, loss))
    found = training.sharpness(net, loss, k=2, smallest=True, tolerance=1e-7)
    assert wanted[0] < 0 and np.allclose(found.values, wanted[:2], rtol=1e-8, atol=0)


def test_the_residual_is_a_bound_and_not_an_estimate():
    net, loss = problem()
    H = dense(net, loss)
    spectrum = np.linalg.eigvalsh(H)
    found = training.sharpness(net, loss, k=4, tolerance=0.05)
    V = found.vectors.numpy()
    assert np.allclose(np.linalg.norm(V @ H - found.values[:, None] * V, axis=1), found.residuals, rtol=1e-9)
    distances = np.abs(found.values[:, None] - spectrum).min(axis=1)
    assert np.all(distances <= found.residuals) and found.residuals.max() > 1e-4  # it did stop early


@pytest.mark.parametrize("copies", [2, 5])
def test_every_copy_of_a_repeated_eigenvalue_is_found(copies):
    values = [3.0] * copies + [2.0, 1.0] + list(np.linspace(-1, 0.9, 120))
    model = Quadratic(values)
    found = training.sharpness(model, Quadratic.energy, k=copies + 1)
    assert np.allclose(found.values, [3.0] * copies + [2.0], atol=1e-8)


def test_a_nearly_hidden_top_eigenvector_is_found_again_at_each_call():
    # the top two change places between two states; each call starts from nothing and so cannot stay with the old one
    first = Quadratic([2.0, 1.9, *np.linspace(-1, 1, 98)])
    second = Quadratic([1.8, 1.9, *np.linspace(-1, 1, 98)])
    one, two = (training.sharpness(m, Quadratic.energy, tolerance=1e-6) for m in (first, second))
    assert np.isclose(one.values[0], 2.0, atol=1e-9) and np.isclose(two.values[0], 1.9, atol=1e-9)
    assert abs(float(one.vectors[0] @ two.vectors[0])) < 1e-4


@pytest.mark.parametrize("scale", [1e-200, 1e-8, 1e8, 1e200])
def test_scaling_the_loss_scales_eigenvalues_and_residuals(scale):
    model = Quadratic([3.0, 2.0, *np.linspace(-1, 1, 60)])
    plain = training.sharpness(model, Quadratic.energy, k=2)
    scaled = training.sharpness(model, lambda m: m.energy(scale), k=2)
    assert np.allclose(scaled.values / scale, plain.values, rtol=1e-10)
    assert scaled.residuals.max() <= 1e-5 * 3 * scale and scaled.products == plain.products


@pytest.mark.parametrize("values", [[2.0], [2.0, 2.0], [0.0] * 50, [1.0] * 50, [4.0, *[0.0] * 49]])
def test_small_constant_and_low_rank_operators(values):
    found = training.sharpness(Quadratic(values), Quadratic.energy, k=min(2, len(values)))
    assert np.allclose(found.values, values[:2], atol=1e-12)


def test_the_whole_spectrum_may_be_asked_for():
    net, loss = problem()
    small = torch.nn.Sequential(torch.nn.Linear(20, 1, dtype=F64), torch.nn.Tanh())
    found = training.sharpness(small, lambda m: loss(lambda x: m(x)), k=21)
    assert np.allclose(found.values, np.linalg.eigvalsh(dense(small, loss))[::-1], atol=1e-11)


def test_restarts_do_not_lose_the_answer():
    values = [1.001, 1.0, *np.linspace(0, 0.99, 400)]
    model = Quadratic(values)
    found = training.sharpness(model, Quadratic.energy, k=2, basis=12, tolerance=1e-6)
    assert found.products > 60 and np.allclose(found.values, values[:2], atol=1e-8)


def test_single_precision_reaches_its_rounding_and_says_when_it_cannot():
    net, loss = problem(F32)
    wide, wide_loss = problem(F64)
    wide.load_state_dict({key: value.double() for key, value in net.state_dict().items()})
    wanted = training.sharpness(wide, wide_loss, k=3).values
    found = training.sharpness(net, loss, k=3)
    assert np.allclose(found.values, wanted, rtol=1e-5) and found.vectors.dtype == F32
    floor = training.sharpness(net, loss, k=3, tolerance=1e-12)  # as far as it goes, and it says how far that is
    assert 1e-12 * wanted[0] < floor.residuals.max() < 4e-6 * wanted[0]


def test_a_product_that_is_no_function_of_its_vector_is_noticed():
    model, noise = Quadratic([3.0, 2.0, *np.linspace(-1, 1, 60)]), torch.Generator().manual_seed(0)

    class Noisy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g + 1e-6 * torch.randn(g.shape, generator=noise, dtype=g.dtype)

    def loss(m):
        x = Noisy.apply(m.x)
        return (x @ m.A @ x) / 2

    with pytest.raises(RuntimeError, match="tolerance: residual|products: residual"):
        training.sharpness(model, loss, tolerance=1e-9, products=200)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_a_spectrum_crowded_at_zero_does_not_pass_for_its_end(dtype):
    # a random vector of so many dimensions has a residual of a few per cent of the largest eigenvalue at value zero
    model = Quadratic([1.0, 0.03, *np.linspace(-1e-3, 1e-3, 900), -0.02], dtype)
    lowest = training.sharpness(model, Quadratic.energy, smallest=True, tolerance=2e-2)
    highest = training.sharpness(model, Quadratic.energy, k=2, tolerance=2e-2)
    assert np.isclose(lowest.values[0], -0.02, rtol=1e-3) and np.allclose(highest.values, [1, 0.03], rtol=1e-3)
    assert lowest.residuals[0] <= 2e-2 * 0.02 * 1.001


def test_too_few_products_are_an_error_and_not_an_answer():
    model = Quadratic(np.linspace(0, 1, 300))
    with pytest.raises(RuntimeError, match="products: residual .* after 20"):
        training.sharpness(model, Quadratic.energy, products=20, tolerance=1e-8)


def test_parameters_without_curvature_or_gradient_are_counted_rightly():
    model = torch.nn.Sequential(torch.nn.Linear(4, 1, dtype=F64), torch.nn.Linear(2, 1, dtype=F64))
    model[1].weight.requires_grad_(False)
    x = torch.tensor([1.0, 2.0, 2.0, 4.0], dtype=F64)
    found = training.sharpness(model, lambda m: m[0](x)[0] ** 2 + m[1].bias[0], k=2)
    # Hessian 2 (x, 1)(x, 1)^T in the first layer, none in the linear term, the frozen weight absent: 4 + 1 + 1 numbers
    assert np.allclose(found.values, [2 * (25 + 1), 0], atol=1e-12) and found.vectors.shape == (2, 6)


# -- singular values --------------------------------------------------------------------------------------------------
def test_singular_values_agree_with_lapack():
    rng = np.random.default_rng(0)
    for shape in ((7, 4), (4, 7), (6, 3, 2, 2), (1, 5)):
        A = rng.standard_normal(shape)
        k = min(shape[0], A[0].size)
        wanted = np.linalg.svd(A.reshape(shape[0], -1), compute_uv=False)
        for scale in (1e-200, 1.0, 1e200):
            assert np.allclose(training.singular_values(torch.from_numpy(A * scale), k) / scale, wanted, rtol=1e-12)
    assert training.singular_values(torch.zeros(3, 3), 2).tolist() == [0, 0]


# -- descent ----------------------------------------------------------------------------------------------------------
class DeepLinear(torch.nn.Module):
    def __init__(self, W):
        super().__init__()
        self.layers = torch.nn.ParameterList([torch.nn.Parameter(torch.from_numpy(w.copy())) for w in W])

    def forward(self):
        product = self.layers[0]
        for W in self.layers[1:]:
            product = W @ product
        return product


def test_a_deep_linear_network_does_what_the_numpy_library_does():
    t = network.target((2.0, 1.2), 4, rng=np.random.default_rng(1))
    W = network.initialise("gaussian", depth=3, width=4, scale=0.5, rng=np.random.default_rng(2))
    M = torch.from_numpy(t.matrix)
    watch = {"product": lambda m: np.linalg.svd(m().numpy(), compute_uv=False)}
    run = training.descend(
        DeepLinear(W), lambda m: ((m() - M) ** 2).sum() / 2, 0.05, 60, k=4, sharpness_every=20, observe=watch
    )
    reference = descent.descend(W, t.matrix, 0.05, 60)
    assert np.allclose(run.loss, reference.loss, rtol=1e-12)
    assert np.allclose(run.observed["product"], reference.singular_values, atol=1e-11)
    final = np.stack([p.detach().numpy() for p in run.model.layers])
    assert np.allclose(final, reference.weights, atol=1e-12)
    assert run.sharpness_steps.tolist() == [0, 20, 40, 60] and run.steps.tolist() == list(range(61))
    # tolerance 1e-3 bounds the residual; the error of the value is below it
    assert abs(run.sharpness[-1, 0] / hessian.sharpness(final, t.matrix) - 1) < 1e-3
    assert np.allclose(run.singular_values["layers.0"][-1], np.linalg.svd(final[0], compute_uv=False), atol=1e-8)


def test_nothing_of_the_caller_changes():
    class Noisy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm = torch.nn.Linear(20, 8, dtype=F64), torch.nn.BatchNorm1d(8, dtype=F64)
            self.drop, self.b = torch.nn.Dropout(0.2), torch.nn.Linear(8, 3, dtype=F64)

        def forward(self, x):
            return self.b(self.drop(torch.tanh(self.norm(self.a(x)))))

    _, loss = problem()
    net = Noisy().train()
    net.drop.eval()
    net.a.weight.grad = torch.full_like(net.a.weight, 7.0)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    before = (
        torch.get_rng_state(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        np.random.get_state()[1].copy(),
    )
    try:
        torch.set_num_threads(2)
        with torch.no_grad():
            training.sharpness(net, loss, tolerance=1e-3)
            training.descend(net, loss, 0.1, 5, k=2, sharpness_every=2)
        with pytest.raises(ZeroDivisionError):
            training.descend(net, loss, lambda step: 1 / 0, 5)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before[2])
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.get_default_dtype() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[3]) and torch.is_grad_enabled()
    assert net.training and not net.drop.training and torch.all(net.a.weight.grad == 7) and net.b.weight.grad is None
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_a_frozen_layer_stays_and_rates_may_change():
    net, loss = problem()
    net[0].weight.requires_grad_(False)
    run = training.descend(net, loss, lambda step: 0.0 if step < 3 else 0.1, 5, every=1)
    assert torch.equal(run.model[0].weight, net[0].weight)
    assert run.loss[0] == run.loss[3] > run.loss[4] > run.loss[5]


def test_a_run_that_diverges_says_so():
    model = Quadratic([2.0, 1.0])
    run = training.descend(model, lambda m: torch.exp(m.energy()), 5.0, 50, k=0, sharpness_every=5)
    step = run.diverged_at
    assert run.diverged and 0 < step < 50
    assert np.isfinite(run.loss[:step]).all() and np.isposinf(run.loss[step:]).all() and len(run.loss) == 51
    assert np.isfinite(float(torch.exp(run.model.energy().detach()))) and run.sharpness.shape == (11, 1)
    assert np.isposinf(run.sharpness[-1, 0])


def test_float32_and_what_is_recorded():
    net, loss = problem(F32)
    run = training.descend(net, loss, 0.1, 10, every=4, layers=["2.weight"], k=9, sharpness_every=5, eigenvalues=2)
    assert run.steps.tolist() == [0, 4, 8] and list(run.singular_values) == ["2.weight"]
    assert run.singular_values["2.weight"].shape == (3, 3) and run.sharpness.shape == run.residuals.shape == (3, 2)
    assert next(run.model.parameters()).dtype == F32 and run.loss.dtype == np.float64
    assert np.all(run.residuals <= 1e-3 * run.sharpness[:, :1] * 1.001)


def test_curvature_may_be_asked_for_at_chosen_steps_and_does_not_touch_the_run():
    net, loss = problem()
    run = training.descend(net, loss, 0.3, 10, sharpness_every=4, sharpness_at=[9, 3])
    assert run.sharpness_steps.tolist() == [0, 3, 4, 8, 9] and len(run.sharpness) == 5
    assert np.array_equal(run.loss, training.descend(net, loss, 0.3, 10).loss)
    with pytest.raises(ValueError, match="sharpness_at: got -1"):
        training.descend(net, loss, 0.3, 10, sharpness_at=[-1])


def test_two_runs_are_equal_to_the_last_bit():
    net, loss = problem()
    one, two = (training.descend(net, loss, 0.3, 20, k=2, sharpness_every=7) for _ in range(2))
    assert np.array_equal(one.loss, two.loss) and np.array_equal(one.sharpness, two.sharpness)


# -- interruption -----------------------------------------------------------------------------------------------------
SCRIPT = """
import sys, time, numpy as np
sys.path.insert(0, sys.argv[1])
from test_training import problem
from eoslib import training
net, loss = problem()
def slow(step):
    time.sleep(float(sys.argv[3]))
    return 0.3
run = training.descend(net, loss, slow, 300, k=2, sharpness_every=10, checkpoint=sys.argv[2] + "/run.npz", checkpoint_every=7)
np.savez(sys.argv[2] + "/done.npz", loss=run.loss, sharpness=run.sharpness, values=run.singular_values["0.weight"])
"""


def test_a_killed_run_goes_on_to_the_same_end(tmp_path):
    command = [sys.executable, "-c", SCRIPT, os.path.dirname(__file__), str(tmp_path)]
    process = subprocess.Popen([*command, "0.01"])
    deadline = time.monotonic() + 120
    while not (tmp_path / "run.npz").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(float(np.random.default_rng().uniform(0, 0.5)))  # any moment will do
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "done.npz").exists()
    with np.load(tmp_path / "run.npz", allow_pickle=False) as file:
        assert 0 < int(file["step"]) < 300
    subprocess.run([*command, "0"], check=True)
    net, loss = problem()
    whole = training.descend(net, loss, 0.3, 300, k=2, sharpness_every=10)
    with np.load(tmp_path / "done.npz") as file:
        assert np.array_equal(file["loss"], whole.loss) and np.array_equal(file["sharpness"], whole.sharpness)
        assert np.array_equal(file["values"], whole.singular_values["0.weight"])
    assert not (tmp_path / "run.npz").exists()


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    net, loss = problem()
    path = tmp_path / "run.npz"
    calls = []

    def rate(step):
        calls.append(step)
        if len(calls) > 16 + 12:  # the first 16 calls note the rates
            raise KeyboardInterrupt
        return 0.3

    with pytest.raises(KeyboardInterrupt):
        training.descend(net, loss, rate, 16, k=1, checkpoint=path, checkpoint_every=5)
    kept = path.read_bytes()
    other, other_loss = problem(seed=1)
    for arguments, options, what in (
        ((other, loss, 0.3, 16), {"k": 1}, "loss, weights"),
        ((net, other_loss, 0.3, 16), {"k": 1}, "loss"),
        ((net, loss, 0.2, 16), {"k": 1}, "rates"),
        ((net, loss, 0.3, 16), {"k": 2}, "options"),
    ):
        with pytest.raises(ValueError, match=f"checkpoint: .* other {what}"):
            training.descend(*arguments, checkpoint=path, **options)
    assert path.read_bytes() == kept
    longer = training.descend(net, loss, 0.3, 25, k=1, checkpoint=path)  # more steps are the same run
    assert np.array_equal(longer.loss, training.descend(net, loss, 0.3, 25).loss)


# -- arguments --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 3}, "model: got int, needs a torch.nn.Module"),
        ({"model": torch.nn.ReLU()}, "model: got no parameter that requires a gradient"),
        ({"model": torch.nn.Linear(2, 2).half()}, "model: got torch.float16"),
        ({"loss": lambda m: torch.ones(2)}, r"loss: got \(2,\)"),
        ({"loss": lambda m: 1.0}, "loss: got float"),
        ({"loss": lambda m: torch.tensor(1.0)}, "loss: does not depend on the model"),
        ({"loss": lambda m: torch.tensor(np.nan)}, "loss: got nan"),
        ({"k": 0}, "k: got 0"),
        ({"k": 10**6}, "k: got 1000000, needs at most 363"),
        ({"tolerance": 0.0}, "tolerance: got 0.0"),
        ({"block": 0}, "block: got 0"),
        ({"basis": 2}, "basis: got 2"),
        ({"seed": -1}, "seed: got -1"),
        ({"threads": 0}, "threads: got 0"),
    ],
)
def test_bad_arguments_of_sharpness_are_named(change, message):
    net, loss = problem()
    arguments = {"model": net, "loss": loss} | change
    with pytest.raises(ValueError, match=message):
        training.sharpness(arguments.pop("model"), arguments.pop("loss"), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate: got -1.0"),
        ({"learning_rate": np.longdouble("1e400")}, "learning_rate: got"),
        ({"learning_rate": lambda step: 1.0 - 2 * step}, "learning_rate: got -1.0, needs one finite real number >= 0"),
        ({"learning_rate": lambda step: np.nan}, "learning_rate: got a value that is not finite"),
        ({"learning_rate": lambda step: [0.1, 0.1]}, r"learning_rate: got \[0.1, 0.1\]"),
        ({"learning_rate": [0.1, 0.2]}, r"learning_rate: got shape \(2,\)"),
        ({"steps": -1}, "steps: got -1"),
        ({"every": 0}, "every: got 0"),
        ({"k": 1, "layers": ["9.weight"]}, "layers: got"),
        ({"k": 1, "layers": "0.weight"}, "layers: got '0.weight'"),
        ({"sharpness_every": 1, "eigenvalues": 10**6}, "eigenvalues: got 1000000"),
        ({"checkpoint_every": 0}, "checkpoint_every: got 0"),
    ],
)
def test_bad_arguments_of_descend_are_named(change, message):
    net, loss = problem()
    arguments = {"learning_rate": 0.1, "steps": 2} | change
    with pytest.raises(ValueError, match=message):
        training.descend(net, loss, **arguments)


def test_a_rate_that_the_network_has_no_number_for_is_named():
    """In float32 it would be zero, and nothing would move, or infinite."""
    model, loss = weight(dtype=F32)
    for rate, word in ((1e-60, "zero"), (1e60, "infinite")):
        with pytest.raises(ValueError, match=f"^learning_rate: got {re.escape(str(rate))}, which is {word} in float32"):
            training.descend(model, loss, rate, 2)
    model, loss = weight()
    assert training.descend(model, loss, 1e-60, 2).loss.tolist() == [0.5] * 3
    rates = [0.5, 0.0, np.float32(0.25)]  # a rate may rest, and need not be Python's
    assert training.descend(model, loss, lambda step: rates[step], 3).loss.tolist() == [0.5, 0.125, 0.125, 9 / 128]


# -- what is refused, by name -----------------------------------------------------------------------------------------
def weight(value=1.0, dtype=F64):
    """One weight w, loss w^2 / 2."""
    model = torch.nn.Linear(1, 1, bias=False, dtype=dtype)
    torch.nn.init.constant_(model.weight, value)
    return model, lambda m: (m.weight**2).sum() / 2


class Half(torch.nn.Module):
    def __init__(self, dtype, other=None):
        super().__init__()
        self.a = torch.nn.Parameter(torch.ones(2, dtype=dtype))
        self.b = torch.nn.Parameter(torch.ones(2, dtype=other or dtype))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: training.sharpness(3, lambda m: 1), "^model: got int, needs a torch.nn.Module"),
        (
            lambda: training.sharpness(torch.nn.Linear(2, 2).requires_grad_(False), lambda m: 1),
            "^model: got no parameter that",
        ),
        (lambda: training.sharpness(Half(torch.float16), lambda m: m.a.sum()), "^model: got torch.float16 on cpu"),
        (
            lambda: training.sharpness(Half(F32, F64), lambda m: m.a.sum()),
            "^model: got torch.float32 on cpu, torch.float64 on cpu",
        ),
        (
            lambda: training.sharpness(weight(np.nan)[0], lambda m: m.weight.sum()),
            "^model: got parameters that are not finite",
        ),
        (lambda: training.sharpness(weight()[0], lambda m: m.weight), r"^loss: got \(1, 1\) from it, needs a function"),
        (lambda: training.sharpness(weight()[0], lambda m: 1.0), "^loss: got float from it, needs a function"),
        (
            lambda: training.sharpness(weight()[0], lambda m: torch.tensor(1)),
            r"^loss: got \(\) from it, needs a function",
        ),
        (
            lambda: training.sharpness(weight()[0], lambda m: m.weight.sum() / 0),
            "^loss: got inf, needs a finite number",
        ),
        (lambda: training.sharpness(weight()[0], lambda m: torch.tensor(1.0)), "^loss: does not depend on the model"),
        (lambda: training.sharpness(*weight(), k=2), "^k: got 2, needs at most 1, the number of parameters"),
        (lambda: training.sharpness(*weight(), k=0), "^k: got 0, needs an integer >= 1"),
        (lambda: training.sharpness(*weight(), block=0), "^block: got 0, needs an integer >= 1"),
        (lambda: training.sharpness(*weight(), basis=2), "^basis: got 2, needs an integer >= 3"),
        (lambda: training.sharpness(*weight(), block=2, basis=4), "^basis: got 4, needs an integer >= 5"),
        (lambda: training.sharpness(*weight(), products=1), "^products: got 1 with k = 1 and block = 1, needs at least k . block"),
        (lambda: training.sharpness(*weight(), products=0), "^products: got 0, needs an integer >= 1"),
        (lambda: training.sharpness(*weight(), tolerance=1.001), "^tolerance: got 1.001, needs a number from 0 to 1"),
        (lambda: training.descend(*weight(), 0.1, 1, tolerance=1.7e308), "^tolerance: got 1.7e.308"),
        (lambda: training.descend(*weight(), 0.1, 1, checkpoint="/nowhere/to/be/found.npz"), "^checkpoint: got .*in a folder"),
        (lambda: training.descend(*weight(), 0.1, 1, checkpoint=os.curdir), "^checkpoint: got .*the path of a file"),
        (lambda: training.sharpness(*weight(), tolerance=0.0), "^tolerance: got 0.0"),
        (lambda: training.sharpness(*weight(), seed=-1), "^seed: got -1, needs an integer >= 0"),
        (lambda: training.sharpness(*weight(), threads=0), "^threads: got 0, needs an integer from 1 to 1024"),
        (lambda: training.singular_values(np.eye(2), 1), r"^matrix: got \(2, 2\), needs a tensor of two axes or more"),
        (lambda: training.singular_values(torch.ones(3), 1), r"^matrix: got torch.Size\(\[3\]\), needs a tensor"),
        (lambda: training.singular_values(torch.ones(3, 2), 3), "^k: got 3, needs at most 2"),
        (lambda: training.singular_values(torch.ones(2, 3), 3), "^k: got 3, needs at most 2"),
        (lambda: training.singular_values(torch.ones(3, 2), 0), "^k: got 0, needs an integer >= 1"),
        (
            lambda: training.singular_values(torch.full((2, 2), torch.inf), 1),
            "^matrix: got entries that are not finite",
        ),
        (
            lambda: training.descend(*weight(), [0.1], 1),
            r"^learning_rate: got shape \(1,\), needs one number or a function",
        ),
        (lambda: training.descend(*weight(), -0.1, 1), "^learning_rate: got -0.1"),
        (lambda: training.descend(*weight(), 0.1, -1), "^steps: got -1, needs an integer >= 0"),
        (lambda: training.descend(*weight(), 0.1, 1, every=0), "^every: got 0, needs an integer >= 1"),
        (lambda: training.descend(*weight(), 0.1, 1, k=-1), "^k: got -1, needs an integer >= 0"),
        (
            lambda: training.descend(*weight(), 0.1, 1, sharpness_every=-1),
            "^sharpness_every: got -1, needs an integer >= 0",
        ),
        (
            lambda: training.descend(*weight(), 0.1, 1, sharpness_at=[-1]),
            "^sharpness_at: got -1, needs an integer >= 0",
        ),
        (lambda: training.descend(*weight(), 0.1, 1, eigenvalues=0), "^eigenvalues: got 0, needs an integer >= 1"),
        (
            lambda: training.descend(*weight(), 0.1, 1, eigenvalues=2, sharpness_every=1),
            "^eigenvalues: got 2, needs at most 1",
        ),
        (lambda: training.descend(*weight(), 0.1, 1, tolerance=0.0), "^tolerance: got 0.0"),
        (
            lambda: training.descend(*weight(), 0.1, 1, checkpoint_every=0),
            "^checkpoint_every: got 0, needs an integer >= 1",
        ),
        (
            lambda: training.descend(*weight(), 0.1, 1, observe={7: len}),
            "^observe: got .* needs a dict of functions by their names",
        ),
        (lambda: training.descend(*weight(), 0.1, 1, observe=len), "^observe: got"),
        (lambda: training.descend(*weight(), 0.1, 1, progress=1), "^progress: got 1"),
        (lambda: training.sharpness(*weight(), smallest="no"), "^smallest: got 'no'"),
        (
            lambda: training.descend(*weight(), 0.1, 1, k=1, layers="weight"),
            "^layers: got 'weight', needs a list of names",
        ),
        (
            lambda: training.descend(*weight(), 0.1, 1, k=1, layers=["no"]),
            r"^layers: got \['no'\], needs a list of names from \['weight'\]",
        ),
    ],
)
def test_refusals_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_one_weight_by_hand():
    """Rate 1/2 halves w; rate 3 doubles it with the other sign."""
    model, loss = weight(4.0)
    run = training.descend(
        model, loss, 0.5, 5, every=2, sharpness_at=[1, 5, 9], sharpness_every=3, k=3, observe={"w": lambda m: m.weight}
    )
    assert (
        run.steps.tolist() == [0, 2, 4]
        and run.loss.tolist() == [8.0, 0.5, 0.03125]
        and run.diverged_at is None
        and not run.diverged
    )
    assert (
        run.sharpness_steps.tolist() == [0, 1, 3, 5]
        and np.allclose(run.sharpness, 1.0)
        and run.residuals.shape == (4, 1)
    )
    assert run.singular_values["weight"].tolist() == [[4.0], [1.0], [0.25]]
    assert run.observed["w"].shape == (3, 1, 1) and np.abs(run.observed["w"]).ravel().tolist() == [4.0, 1.0, 0.25]  # copies
    assert float(run.model.weight.detach()) == 0.125 and float(model.weight.detach()) == 4.0
    falling = training.descend(model, loss, lambda step: [0.5, 0.25, 0.0][step], 3)
    assert (
        float(falling.model.weight.detach()) == 4 * 0.5 * 0.75
        and falling.singular_values == {}
        and falling.sharpness.shape == (0, 1)
    )
    grown = training.descend(weight(1e150)[0], loss, 3.0, 40, sharpness_every=20)
    assert grown.diverged and grown.diverged_at == 14  # w^2 / 2 is 2^(2 t) 1e300 / 2, beyond 1.8e308 from t = 14
    assert np.isfinite(grown.loss[:14]).all() and np.isinf(grown.loss[14:]).all() and len(grown.loss) == 41
    assert (
        grown.sharpness_steps.tolist() == [0, 20, 40]
        and np.isinf(grown.sharpness[1:]).all()
        and grown.sharpness[0, 0] == pytest.approx(1)
    )
    last = abs(float(grown.model.weight.detach()))  # of the last state with a finite loss
    assert last == pytest.approx(1e150 * 2.0**13, rel=1e-14, abs=0)


def test_singular_values_by_hand():
    tall = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
    for matrix in (tall, tall.T, tall.double(), 1e-30 * tall.double(), 1e200 * tall.double()):
        size = float(matrix.abs().max()) / 4
        assert np.allclose(training.singular_values(matrix, 2), [4 * size, 3 * size], rtol=1e-7)
        assert training.singular_values(matrix, 1).shape == (1,)
    kernel = torch.zeros(2, 1, 1, 2)
    kernel[0, 0, 0, 1], kernel[1, 0, 0, 0] = 2.0, 1.0  # a convolution's axes after the first are one
    assert training.singular_values(kernel, 2).tolist() == [2.0, 1.0]
    assert training.singular_values(torch.zeros(3, 2), 2).tolist() == [0.0, 0.0]


def test_extremes_of_a_diagonal_of_known_numbers():
    model = Quadratic([5.0, 5.0, -7.0, 0.5, 0.0, 1.0])
    loss = lambda m: m.energy()
    for k, smallest, expected in (
        (1, False, [5]),
        (3, False, [5, 5, 1]),
        (2, True, [-7, 0]),
        (6, False, [5, 5, 1, 0.5, 0, -7]),
    ):
        found = training.sharpness(model, loss, k=k, smallest=smallest)
        assert (
            np.allclose(found.values, expected, atol=1e-9)
            and found.vectors.shape == (k, 6)
            and found.residuals.shape == (k,)
        )
        assert (
            torch.allclose(found.vectors @ found.vectors.mT, torch.eye(k, dtype=F64), atol=1e-12)
            and found.products >= k
        )
        product = found.vectors @ model.A
        assert np.allclose(
            torch.linalg.vector_norm(product - torch.tensor(found.values.copy())[:, None] * found.vectors, dim=1),
            found.residuals,
            atol=1e-12,
        )
    flat = training.sharpness(Half(F64), lambda m: m.a.sum() + m.b.sum(), k=2)  # linear: no curvature
    assert flat.values.tolist() == [0.0, 0.0] and flat.residuals.tolist() == [0.0, 0.0]


# -- the parts of the method, each by itself --------------------------------------------------------------------------
def test_the_asked_residual_by_hand():
    eps = 2.0**-52
    found = training._bound(np.array([10.0, -4.0, 1e-6, 0.0]), 10.0, 1e-3, F64)
    # relative to the modulus, or to a thousandth of the largest, here 1e-2
    assert found.tolist() == pytest.approx([1e-2, 4e-3, 1e-5, 1e-5], rel=1e-14, abs=0)
    floor = training._bound(np.array([10.0, 0.0]), 10.0, 1e-30, F64)
    assert floor.tolist() == pytest.approx([300 * eps] * 2, rel=1e-14, abs=0)
    assert training._bound(np.array([2.0]), 2.0, 1e-30, F32).tolist() == pytest.approx([60 * 2.0**-23], rel=1e-14, abs=0)


def test_directions_span_the_rows_and_are_random_where_these_have_nothing_left():
    g = torch.Generator().manual_seed(3)
    Q = torch.linalg.qr(torch.randn(12, 4, generator=g, dtype=F64)).Q.mT
    R = torch.randn(3, 12, generator=g, dtype=F64)
    R -= (R @ Q.mT) @ Q
    V = training._directions(R, Q, 1.0, torch.Generator().manual_seed(0), 3)
    assert torch.allclose(V @ V.mT, torch.eye(3, dtype=F64), atol=1e-14) and float((V @ Q.mT).abs().max()) < 1e-14
    assert torch.allclose((R @ V.mT) @ V, R, atol=1e-13)  # the same span
    assert V.is_contiguous() and len(training._directions(R, Q, 1.0, torch.Generator().manual_seed(0), 2)) == 2
    # rank one: the first row is that direction, the other two are from the random numbers, and orthogonal to all else
    flat = torch.outer(torch.tensor([1.0, -2.0, 0.5], dtype=F64), R[0])
    one, other = (training._directions(flat, Q, 1.0, torch.Generator().manual_seed(s), 3) for s in (0, 1))
    assert abs(float(one[0] @ R[0])) == pytest.approx(float(torch.linalg.vector_norm(R[0])), rel=1e-13, abs=0)
    assert abs(float(one[0] @ other[0])) == pytest.approx(1, rel=1e-13, abs=0)
    for V in (one, other):
        assert torch.allclose(V @ V.mT, torch.eye(3, dtype=F64), atol=1e-14) and float((V @ Q.mT).abs().max()) < 1e-14
    assert not torch.allclose(one[1:].mT @ one[1:], other[1:].mT @ other[1:], atol=0.1)
    again = training._directions(flat, Q, 1.0, torch.Generator().manual_seed(0), 3)
    assert torch.equal(again, one)  # nothing but the given generator is asked
    two = training._directions(flat, Q, 1.0, torch.Generator().manual_seed(0), 2)
    assert torch.allclose(two @ two.mT, torch.eye(2, dtype=F64), atol=1e-14)
    # a row that is nearly in the span of Q: one projection would leave 1e-16 / 1e-9 of it
    V = training._directions(Q[:1] + 1e-9 * R[:1], Q, 1.0, torch.Generator().manual_seed(0), 1)
    assert float((V @ Q.mT).abs().max()) < 1e-14
    # what is small beside the scale is rounding: a hundred units of the last place are its limit
    eps = 2.0**-52
    unit = R[:1] / torch.linalg.vector_norm(R[0])
    for size, kept in ((99.5 * eps, False), (100.5 * eps, True)):
        V = training._directions(size * unit * 8, Q, 8.0, torch.Generator().manual_seed(0), 1)
        assert (abs(float(V[0] @ unit[0])) > 0.99) == kept


def test_what_is_returned_was_checked_by_products_of_its_own():
    A = np.diag([3.0, 2.0, -1.0, 1.0])
    H = torch.from_numpy(A)
    Q = torch.eye(4, dtype=F64)[:3]
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((2, 2)))[0] @ np.eye(2, 3)
    calls = []

    def operator(x):
        calls.append(x)
        return 5.0 * (H @ x)

    found = training._verified(operator, turn, Q, 7, False, np.full(2, 1e-9), 5.0)
    assert found.values.tolist() == pytest.approx([15.0, 10.0], rel=1e-13, abs=0)
    assert found.products == 9 and len(calls) == 2 and found.residuals.max() < 1e-13
    assert torch.allclose(found.vectors.abs(), torch.eye(4, dtype=F64)[:2], atol=1e-13)
    low = training._verified(operator, turn, Q, 0, True, np.full(2, 1e-9), 5.0)
    assert low.values.tolist() == pytest.approx([10.0, 15.0], rel=1e-13, abs=0)
    # the vector (1, 1, 0, 0) / sqrt 2 has the Rayleigh quotient 5 (3 + 2) / 2 and the residual 5 / 2
    mixed = np.array([[1.0, 1.0, 0.0]])
    rough = training._verified(operator, mixed, Q, 0, False, np.array([0.51]), 5.0)
    assert rough.values.tolist() == pytest.approx([12.5], rel=1e-14, abs=0)
    assert rough.residuals.tolist() == pytest.approx([2.5], rel=1e-14, abs=0)
    with pytest.raises(RuntimeError, match="^tolerance: residual 2.5 where 2.4 was asked for: "):
        training._verified(operator, mixed, Q, 0, False, np.array([0.48]), 5.0)
    # of several, the one that misses its own bound by most is named
    both = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    with pytest.raises(RuntimeError, match="^tolerance: residual 5 where 0.05 was asked for: "):
        training._verified(operator, both, torch.eye(4, dtype=F64), 0, False, np.array([0.4, 0.01]), 5.0)


@pytest.mark.parametrize("options", [{}, {"block": 3, "k": 2}, {"k": 2, "basis": 6}, {"smallest": True}])
def test_the_products_are_counted_one_by_one(monkeypatch, options):
    values = [3.0, 2.5, *np.linspace(-1, 1, 60), -2.0]
    model, made, calls = Quadratic(values), training._hessian, []

    def counting(gradients, parameters):
        operator = made(gradients, parameters)
        return lambda vector: calls.append(1) or operator(vector)

    monkeypatch.setattr(training, "_hessian", counting)
    found = training.sharpness(model, Quadratic.energy, **options)
    wanted = np.sort(values)[: len(found.values)] if options.get("smallest") else values[: len(found.values)]
    assert found.products == len(calls) < 60 + 4 and np.allclose(found.values, wanted, rtol=1e-9, atol=0)


def test_a_basis_of_the_least_size_restarts_until_the_answer_is_there():
    values = [1.3, 1.2, *np.linspace(-1, 1, 80)]
    model = Quadratic(values)
    for k, block, basis in ((1, 1, 3), (2, 1, 4), (1, 2, 5), (2, 2, 6)):
        found = training.sharpness(model, Quadratic.energy, k=k, block=block, basis=basis, tolerance=1e-4)
        assert np.allclose(found.values, values[:k], rtol=1e-6, atol=0)
        whole = training.sharpness(model, Quadratic.energy, k=k, block=block, basis=82, tolerance=1e-4)
        assert whole.products < found.products  # what a restart forgets is paid for
        small = {"k": k, "block": block, "basis": basis - 1}
        with pytest.raises(ValueError, match=f"^basis: got {basis - 1}, needs an integer >= {basis}"):
            training.sharpness(model, Quadratic.energy, **small)
        with pytest.raises(ValueError, match=f"^products: got {k + block - 1} with k = {k} and block = {block}, needs"):
            training.sharpness(model, Quadratic.energy, k=k, block=block, products=k + block - 1)


def test_the_message_of_an_unfinished_search_has_the_units_of_the_loss():
    model = Quadratic(np.linspace(0, 1, 300))
    said = []
    for scale in (1.0, 1000.0):
        with pytest.raises(RuntimeError, match="^products: residual .* after 20 of them, needs ") as refused:
            training.sharpness(model, lambda m: m.energy(scale), products=20, tolerance=1e-6)
        words = str(refused.value).replace(";", "").split()
        said.append((float(words[2]), float(words[8])))
    (residual, needed), (larger, more) = said
    # after 20 products the largest value is known to a few hundredths: the wanted residual is 1e-6 of nearly 1
    assert needed == pytest.approx(1e-6, rel=0.1, abs=0) and needed < residual < 1
    # two digits are written
    assert larger == pytest.approx(1000 * residual, rel=0.06, abs=0) and more == pytest.approx(1000 * needed, rel=0.06, abs=0)


def test_defaults_of_sharpness_are_those_of_its_text():
    model = Quadratic([3.0, 2.9, 2.8, *np.linspace(-1, 1, 200)])
    plain = training.sharpness(model, Quadratic.energy)
    spelled = training.sharpness(
        model, Quadratic.energy, k=1, smallest=False, tolerance=1e-5, block=1, products=2000, seed=0, threads=1
    )
    assert np.array_equal(plain.vectors, spelled.vectors) and plain.products == spelled.products
    other = training.sharpness(model, Quadratic.energy, seed=1)
    assert not np.array_equal(plain.vectors, other.vectors) and np.allclose(plain.values, other.values, rtol=1e-9, atol=0)


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_threads_meanwhile_and_afterwards(threads):
    seen, before = [], torch.get_num_threads()
    model, loss = weight(4.0)

    def watched(m):
        seen.append(torch.get_num_threads())
        return loss(m)

    try:
        torch.set_num_threads(3)
        training.sharpness(model, watched, threads=threads)
        training.descend(model, watched, 0.5, 1, threads=threads)
        wanted = 3 if threads is None else threads
        assert set(seen) == {wanted} and torch.get_num_threads() == 3
        seen.clear()
        training.sharpness(model, watched)
        training.descend(model, watched, 0.5, 1)
        assert set(seen) == {1} and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_random_state_during_a_run_is_that_of_its_seed():
    model, _ = weight(4.0)
    seen = []

    def loss(m):
        seen.append(float(torch.rand(())))
        return (m.weight**2).sum() / 2

    def draws(**options):
        seen.clear()
        training.descend(model, loss, 0.5, 2, **options)
        return list(seen)

    with torch.random.fork_rng():
        torch.manual_seed(5)
        wanted = [float(torch.rand(())) for _ in range(3)]
    assert draws(seed=5) == wanted and draws() == draws(seed=0) != wanted


# -- descent, what is kept and said -----------------------------------------------------------------------------------
def test_one_bar_counts_the_states(capfd, tmp_path):
    model, loss = weight(4.0)
    training.descend(model, loss, 0.5, 7)
    assert capfd.readouterr().err == ""
    training.descend(model, loss, 0.5, 7, progress=True)
    shown = capfd.readouterr().err
    assert "descent: 100%" in shown and "8/8" in shown and "step/s" in shown and "0/8" in shown
    path = tmp_path / "run.npz"

    def broken(step):
        if len(calls) > 10 + 7:  # ten calls note the rates
            raise KeyboardInterrupt
        calls.append(step)
        return 0.5

    calls = []
    with pytest.raises(KeyboardInterrupt):
        training.descend(model, loss, broken, 10, checkpoint=path, checkpoint_every=3)
    training.descend(model, loss, 0.5, 10, checkpoint=path, progress=True)
    shown = capfd.readouterr().err
    assert "6/11" in shown and "11/11" in shown and "0/11" not in shown.replace("10/11", "")


def test_fewer_steps_than_between_checkpoints_leave_no_file_and_no_error(tmp_path):
    model, loss = weight(4.0)
    run = training.descend(model, loss, 0.5, 3, checkpoint=tmp_path / "run.npz")
    assert run.loss.tolist() == [8.0, 2.0, 0.5, 0.125] and not list(tmp_path.iterdir())


class Restless(torch.nn.Module):
    """Random numbers and a buffer, so that a run depends on all of its state."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.w = torch.nn.Parameter(torch.randn(3, 2, generator=g, dtype=F64))
        self.v = torch.nn.Parameter(torch.randn(2, 2, generator=g, dtype=F64))
        self.register_buffer("seen", torch.zeros((), dtype=F64))

    def loss(self):
        self.seen += 1
        noise = torch.rand(3, 2, dtype=F64)
        return ((self.w @ self.v + 0.1 * noise) ** 2).sum() * (1 + 0.01 * self.seen)


def interrupted(path, after, steps=12, checkpoint_every=5, **options):
    """A run of `steps` that is broken off in the step `after`."""
    calls = []

    def rate(step):
        calls.append(step)
        if len(calls) > steps + after:  # the first calls note the rates
            raise KeyboardInterrupt
        return 0.05

    with pytest.raises(KeyboardInterrupt):
        training.descend(
            Restless(), Restless.loss, rate, steps, checkpoint=path, checkpoint_every=checkpoint_every, **options
        )


def test_a_run_goes_on_with_its_random_numbers_buffers_and_lists(tmp_path):
    options = {"k": 2, "every": 2, "sharpness_every": 4, "eigenvalues": 2, "sharpness_at": [1], "tolerance": 1e-6}
    options |= {"observe": {"trace": lambda m: m.w[:2].trace(), "seen": lambda m: float(m.seen)}, "seed": 3}
    whole = training.descend(Restless(), Restless.loss, 0.05, 12, checkpoint=tmp_path / "whole.npz", **options)
    assert whole.observed["seen"].tolist() == [1, 3, 5, 7, 9, 11, 13]
    path = tmp_path / "run.npz"
    interrupted(path, 8, **options)
    with np.load(path, allow_pickle=False) as file:
        assert int(file["step"]) == 5 and file["list/observed/seen"].tolist() == [1, 3, 5]
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]
    looked = []
    watched = options | {"observe": options["observe"] | {"seen": lambda m: looked.append(1) or float(m.seen)}}
    run = training.descend(Restless(), Restless.loss, 0.05, 12, checkpoint=path, **watched)
    assert len(looked) == 4  # steps 6, 8, 10 and 12; the others come from the file
    for name in ("steps", "loss", "sharpness_steps", "sharpness", "residuals"):
        assert np.array_equal(getattr(run, name), getattr(whole, name)), name
    assert list(run.observed) == ["trace", "seen"] and list(run.singular_values) == ["w", "v"]
    for name in ("observed", "singular_values"):
        assert all(np.array_equal(getattr(run, name)[key], getattr(whole, name)[key]) for key in getattr(whole, name))
    assert all(torch.equal(a, b) for a, b in zip(run.model.state_dict().values(), whole.model.state_dict().values()))
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_leaves_the_random_numbers_of_the_run_as_they_were(tmp_path):
    """Its file notes the loss at the start, whose evaluation is none of the run's."""
    with_file = training.descend(Restless(), Restless.loss, 0.05, 3, seed=3, checkpoint=tmp_path / "run.npz")
    without = training.descend(Restless(), Restless.loss, 0.05, 3, seed=3)
    assert np.array_equal(with_file.loss, without.loss) and len(set(without.loss)) == 4
    assert all(torch.equal(a, b) for a, b in zip(with_file.model.parameters(), without.model.parameters()))


@pytest.mark.parametrize("after", [12, 13, 14])
def test_a_run_that_was_broken_off_as_it_diverged_ends_as_it_would_have(tmp_path, after):
    """The checkpoint of step 14 holds a state whose loss is infinite: the run goes back to the state before it."""
    model, loss = weight(1e150)
    whole = training.descend(model, loss, 3.0, 20)
    assert whole.diverged_at == 14
    path, calls = tmp_path / "run.npz", []

    def rate(step):
        calls.append(step)
        return 3.0

    def watched(model):
        if len(calls) > 20 + after - 1:
            raise KeyboardInterrupt
        return loss(model)

    with pytest.raises(KeyboardInterrupt):
        training.descend(model, watched, rate, 20, checkpoint=path, checkpoint_every=2)
    with np.load(path) as file:
        assert int(file["step"]) == after // 2 * 2
    run = training.descend(model, loss, 3.0, 20, checkpoint=path)
    assert run.diverged_at == 14 and np.array_equal(run.loss, whole.loss)
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), whole.model.parameters()))


def test_each_setting_of_a_checkpoint_is_compared(tmp_path):
    path = tmp_path / "run.npz"
    options = {"k": 2, "every": 2, "layers": ["w"], "observe": {"a": lambda m: 1.0}}
    interrupted(path, 8, **options)
    for change, what in (
        ({"every": 3}, "every"),
        ({"layers": ["v"]}, "layers"),
        ({"observe": {"b": lambda m: 1.0}}, "observed"),
        ({"seed": 1}, "loss, options"),  # the loss has random numbers
        ({"tolerance": 1e-4}, "options"),
        ({"every": 3, "layers": ["v", "w"], "observe": None}, "every, layers, observed"),
    ):
        with pytest.raises(ValueError, match=f"^checkpoint: .*run.npz is of a run with other {what}; needs the same"):
            training.descend(Restless(), Restless.loss, 0.05, 12, checkpoint=path, **(options | change))
    with pytest.raises(ValueError, match="with other loss; needs the same"):
        training.descend(Restless(), lambda m: 2 * m.loss(), 0.05, 12, checkpoint=path, **options)
    moved = Restless()
    moved.seen += 0.0
    moved.register_buffer("more", torch.zeros(2))  # a buffer that no loss depends on is still another model
    with pytest.raises(ValueError, match="with other weights; needs the same"):
        training.descend(moved, Restless.loss, 0.05, 12, checkpoint=path, **options)
    # a shorter run with the same rates is the same run; one whose rates part later is not
    with pytest.raises(ValueError, match="with other rates; needs the same"):
        training.descend(Restless(), Restless.loss, lambda t: 0.05 if t < 11 else 0.04, 12, checkpoint=path, **options)
    short = training.descend(Restless(), Restless.loss, 0.05, 11, checkpoint=path, **options)
    whole = training.descend(Restless(), Restless.loss, 0.05, 11, checkpoint=path, **options)
    assert np.array_equal(short.loss, whole.loss)


def test_layers_of_two_axes_and_their_names():
    net, loss = problem()
    run = training.descend(net, loss, 0.1, 2, k=2)
    assert list(run.singular_values) == ["0.weight", "2.weight"]
    assert all(values.shape == (3, 2) for values in run.singular_values.values())
    chosen = training.descend(net, loss, 0.1, 2, k=20, layers=("2.weight", "0.weight"))
    assert {name: v.shape for name, v in chosen.singular_values.items()} == {"2.weight": (3, 3), "0.weight": (3, 15)}
    kernel = torch.nn.Conv1d(2, 5, 1, bias=False, dtype=F64)  # five by two by one: two singular values
    wide = training.descend(kernel, lambda m: (m.weight**2).sum(), 0.1, 1, k=9)
    assert wide.singular_values["weight"].shape == (2, 2)
    with pytest.raises(ValueError, match=r"^layers: got \['0.bias'\], needs a list of names from \['0.weight', '2.weight'\]"):
        training.descend(net, loss, 0.1, 1, k=1, layers=["0.bias"])
    assert training.descend(net, loss, 0.1, 0, layers=["9"]).singular_values == {}  # not looked at without k


def test_what_is_observed_sees_each_recorded_state_without_gradients():
    model, loss = weight(4.0)
    modes = []

    def look(m):
        modes.append(torch.is_grad_enabled())
        return [float(m.weight.detach()), 1]

    run = training.descend(model, loss, 0.5, 4, every=2, observe={"w": look})
    assert run.observed["w"].tolist() == [[4.0, 1.0], [1.0, 1.0], [0.25, 1.0]] and modes == [False] * 3
    assert run.observed["w"].dtype == np.float64
    with pytest.raises(TypeError):  # a complex number would lose its imaginary part
        training.descend(model, loss, 0.5, 1, observe={"w": lambda m: 1j})
    lost = training.descend(weight(1e150)[0], loss, 3.0, 20, observe={"w": look}, k=1, sharpness_every=7, eigenvalues=1)
    assert lost.diverged_at == 14 and np.isposinf(lost.observed["w"][14:]).all() and lost.observed["w"].shape == (21, 2)
    grown = [1e150 * (-2.0) ** t for t in range(14)]  # each product is rounded once
    assert lost.observed["w"][:14, 0].tolist() == pytest.approx(grown, rel=1e-14, abs=0)
    assert np.isposinf(lost.singular_values["weight"][14:]).all() and np.isfinite(lost.singular_values["weight"][:14]).all()
    assert np.isposinf(lost.residuals[2:]).all() and np.isfinite(lost.residuals[:2]).all() and len(lost.residuals) == 3


def test_a_loss_that_is_not_finite_at_the_start_is_refused():
    model, _ = weight(1e200)
    with pytest.raises(ValueError, match="^loss: got inf, needs a finite number"):
        training.descend(model, lambda m: (m.weight**2).sum(), 0.1, 3)
    # one that is lost at once is a run
    run = training.descend(weight(1.0)[0], lambda m: (m.weight**2).sum() / 2, 1e200, 3)
    assert run.diverged_at == 1 and run.loss[0] == 0.5 and float(run.model.weight.detach()) == 1.0


@pytest.mark.parametrize("curved", [0, 1])
def test_a_gradient_is_that_of_the_active_parameters(curved):
    net, loss = problem()
    net[2].bias.requires_grad_(False)
    unused = torch.nn.ModuleDict({"net": net, "idle": torch.nn.Linear(2, 2, dtype=F64)})
    run = training.descend(unused, lambda m: loss(m["net"]), 0.1, 1, sharpness_every=curved)
    twin = copy.deepcopy(net)
    active = [p for p in twin.parameters() if p.requires_grad]
    for p, g in zip(active, torch.autograd.grad(loss(twin), active), strict=True):
        p.data -= 0.1 * g
    assert all(torch.equal(a, b) for a, b in zip(run.model["net"].parameters(), twin.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(run.model["idle"].parameters(), unused["idle"].parameters(), strict=True))


def test_the_smallest_are_the_largest_of_the_negative_in_all_that_is_said():
    values = [2.0, 1.0, *np.linspace(-1, 1, 100), -2.5]
    model = Quadratic(values)
    low = training.sharpness(model, Quadratic.energy, smallest=True, k=2)
    high = training.sharpness(model, lambda m: m.energy(-1.0), k=2)
    assert np.array_equal(low.values, -high.values) and low.products == high.products
    said = []
    for scale, smallest in ((1.0, True), (-1.0, False)):
        with pytest.raises(RuntimeError, match="^products: residual .* after 6 of them, needs ") as refused:
            training.sharpness(model, lambda m: m.energy(scale), smallest=smallest, products=6, k=2)
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_a_checkpoint_is_written_beside_and_moved_and_holds_no_pickles(tmp_path, monkeypatch):
    moved, replace = [], os.replace
    path = tmp_path / "run.npz"
    with monkeypatch.context() as patch:
        patch.setattr(training.os, "replace", lambda a, b: moved.append((str(a), str(b))) or replace(a, b))
        interrupted(path, 11)
    assert moved == [(f"{path}.partial", str(path))] * 2  # at the steps 5 and 10
    with np.load(path, allow_pickle=False) as file:
        stored = {key: file[key] for key in file.files}

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.savez(path, **(stored | {"about": np.array(Trap(), dtype=object)}))
    with pytest.raises(ValueError, match="allow_pickle"):
        training.descend(Restless(), Restless.loss, 0.05, 12, checkpoint=path)
    assert not (tmp_path / "sprung").exists()


def test_a_space_that_blocks_do_not_fill_evenly_is_searched_once():
    values = [3.0, 2.9, 2.8, 1.0, 0.5, -1.0, -2.0]
    found = training.sharpness(Quadratic(values), Quadratic.energy, k=3, tolerance=1e-12)
    assert found.products == 3 + 3 + 1 + 3  # blocks of three, three and one; then the check
    assert found.values.tolist() == pytest.approx(values[:3], rel=1e-13, abs=0)


def test_one_number_among_the_weights_that_is_not_finite_is_enough():
    for bad in (np.nan, np.inf):
        model = Half(F64)
        model.b.data[1] = bad
        with pytest.raises(ValueError, match="^model: got parameters that are not finite, needs finite numbers"):
            training.sharpness(model, lambda m: m.a.sum() ** 2)


# -- defaults and limits that are said --------------------------------------------------------------------------------
def test_the_basis_is_six_blocks_and_at_least_thirty_and_thrice_the_wanted_and_a_run_has_the_same(monkeypatch):
    given = []

    def told(operator, like, size, k, block, basis, tolerance, products, smallest):
        given.append((k, block, basis, products, smallest))
        return training.Eigenvalues(np.zeros(k), np.zeros(k), torch.zeros(k, size, dtype=like.dtype), 0)

    monkeypatch.setattr(training, "_extreme", told)
    model = Quadratic(np.linspace(0, 1, 100))
    for k, block, basis in ((1, 1, 30), (5, 5, 30), (6, 6, 36), (1, 7, 42), (9, 1, 30), (11, 1, 33), (20, 1, 60)):
        training.sharpness(model, Quadratic.energy, k=k, block=block)
        assert given.pop() == (k, block, basis, 2000, False)
    for k in (1, 5, 6, 20):
        training.sharpness(model, Quadratic.energy, k=k)
        training.descend(model, Quadratic.energy, 0.1, 0, sharpness_at=[0], eigenvalues=k)
        assert given.pop() == given.pop() and not given


def test_checkpoints_are_a_hundred_steps_apart(tmp_path, monkeypatch):
    written, replace = [], os.replace

    def watched(source, target):
        with np.load(source) as file:
            written.append(int(file["step"]))
        replace(source, target)

    monkeypatch.setattr(training.os, "replace", watched)
    model, loss = weight(4.0)
    training.descend(model, loss, 0.5, 203, checkpoint=tmp_path / "run.npz")
    assert written == [100, 200]


def test_of_the_rates_the_first_thousand_tell_runs_apart(tmp_path):
    path = tmp_path / "run.npz"
    model, loss = weight(4.0)

    def rates(change, stop):
        calls = []

        def rate(step):
            calls.append(step)
            if len(calls) > 1000 + stop:
                raise KeyboardInterrupt
            return 0.5 if step < change else 0.25

        return rate

    with pytest.raises(KeyboardInterrupt):
        training.descend(model, loss, rates(1100, 4), 1100, checkpoint=path, checkpoint_every=2)
    with pytest.raises(ValueError, match="with other rates; needs the same"):
        training.descend(model, loss, rates(999, 1), 1100, checkpoint=path)
    with pytest.raises(KeyboardInterrupt):  # it goes on: a later change is not looked for
        training.descend(model, loss, rates(1000, 1), 1100, checkpoint=path)


# -- values that rounding makes negative, views, flat and idle parameters ---------------------------------------------
def test_singular_values_that_are_zero_are_no_roots_of_negative_rounding():
    rng = np.random.default_rng(0)
    for _ in range(20):
        u, v = rng.standard_normal((2, 12))
        found = training.singular_values(torch.from_numpy(np.outer(u, v)), 12)
        size = np.linalg.norm(u) * np.linalg.norm(v)
        assert found[0] == pytest.approx(size, rel=1e-13, abs=0)
        # zero to the root of the rounding of the Gram matrix, whose trace is the square of the largest
        assert np.all(found[1:] >= 0) and np.all(found[1:] < 1e-7 * size)


def test_what_is_observed_may_be_a_view_of_complex_numbers():
    model, loss = weight(4.0)
    watch = {"part": lambda m: torch.complex(m.weight, m.weight).conj().imag}  # torch notes the sign, not the number
    run = training.descend(model, loss, 0.5, 1, observe=watch)
    assert run.observed["part"].ravel().tolist() == [-4.0, -2.0]


def test_a_run_of_no_steps_has_one_state():
    model, loss = weight(4.0)
    run = training.descend(model, loss, 0.5, 0, k=1)
    assert run.singular_values["weight"].tolist() == [[4.0]] and run.loss.tolist() == [8.0]
    assert run.sharpness_steps.dtype.kind == run.steps.dtype.kind == "i" and run.sharpness_steps.size == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: training.descend(*weight(), 0.1, 1, seed=-1), "^seed: got -1, needs an integer >= 0"),
        (lambda: training.descend(*weight(), 0.1, 1, k=1, layers=["weight", "no"]), r"^layers: got \['weight', 'no'\]"),
        (
            lambda: training.sharpness(weight()[0], lambda m: Half(F64).a.sum() ** 2),
            "^loss: does not depend on the model",
        ),
        (
            lambda: training.descend(weight()[0], lambda m: Half(F64).a.sum() ** 2, 0.1, 1),
            "^loss: does not depend on the model",
        ),
    ],
)
def test_a_part_that_is_right_excuses_no_other(call, words):
    with pytest.raises(ValueError, match=words):
        call()


class Idle(Quadratic):
    """A quadratic beside parameters that its loss does not depend on: numbers of a product that are exactly zero."""

    def __init__(self, eigenvalues):
        super().__init__(eigenvalues)
        self.idle = torch.nn.Parameter(torch.ones(3, dtype=F64))


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_idle_parameters_do_not_set_the_scale(scale):
    values = [3.0, 2.0, *np.linspace(-1, 1, 40)]
    found = training.sharpness(Idle(values), lambda m: m.energy(scale), k=2)
    assert (found.values / scale).tolist() == pytest.approx([3.0, 2.0], rel=1e-9, abs=0)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0])
def test_a_multiple_of_the_identity_takes_one_block_and_its_check(value):
    """Any two vectors are eigenvectors: nothing is left outside their span."""
    found = training.sharpness(Quadratic([value] * 50), lambda m: (value * m.x**2).sum() / 2, k=2)
    assert found.products == 2 + 2 and found.values.tolist() == pytest.approx([value] * 2, rel=1e-14, abs=0)


def test_no_number_is_read_before_it_is_written_and_no_more_than_the_basis_is_kept(monkeypatch):
    model = Quadratic([3.0, 2.9, 2.8, *np.linspace(-1, 1, 100)])
    options = {"k": 3, "block": 2, "basis": 9}  # restarts
    plain, empty, made = training.sharpness(model, Quadratic.energy, **options), torch.empty, []

    def unwritten(*shape, **where):
        made.append((*shape, where))
        return empty(*shape, **where).fill_(torch.nan)

    monkeypatch.setattr(torch, "empty", unwritten)
    filled = training.sharpness(model, Quadratic.energy, **options)
    assert torch.equal(plain.vectors, filled.vectors) and plain.products == filled.products
    there = {"dtype": F64, "device": model.x.device}
    assert made == [((9, 103), there)]
    whole = training.sharpness(model, Quadratic.energy, **options | {"basis": 1000})
    assert made[1:] == [((103, 103), there)] and whole.products < plain.products  # what a restart forgets is paid for


@pytest.mark.parametrize("dtype", [F32, F64])
def test_the_default_dtype_of_torch_does_not_matter(dtype):
    model = Quadratic([3.0, 2.0, *np.linspace(-1, 1, 50)], dtype)
    found = []
    try:
        for default in (F32, F64):
            torch.set_default_dtype(default)
            found.append(training.sharpness(model, Quadratic.energy, k=2, tolerance=1e-3))
    finally:
        torch.set_default_dtype(F32)
    assert torch.equal(found[0].vectors, found[1].vectors) and found[0].vectors.dtype == dtype


def test_one_value_that_misses_its_bound_is_enough():
    H = torch.diag(torch.tensor([3.0, 2.0, -1.0, 1.0], dtype=F64))
    both = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])  # residuals 1/2 and 1
    for bound, words in (([0.51, 0.9], "residual 1 where 0.9 was"), ([0.4, 1.1], "residual 0.5 where 0.4 was")):
        with pytest.raises(RuntimeError, match=f"^tolerance: {words} asked for: "):
            training._verified(lambda x: H @ x, both, torch.eye(4, dtype=F64), 0, False, np.array(bound), 1.0)
    found = training._verified(lambda x: H @ x, both, torch.eye(4, dtype=F64), 0, False, np.array([0.51, 1.1]), 1.0)
    assert found.residuals.tolist() == pytest.approx([0.5, 1.0], rel=1e-14, abs=0)


def test_random_states_of_the_devices_of_the_weights_are_kept(tmp_path, monkeypatch):
    on = lambda *names: [SimpleNamespace(device=torch.device(name)) for name in names]
    assert training._devices(on("cuda:1", "cpu", "cuda:0", "cuda:1")) == [0, 1] and training._devices(on("cpu")) == []
    asked, fork = [], torch.random.fork_rng
    monkeypatch.setattr(training, "_devices", lambda parameters: [p.numel() for p in parameters])
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: asked.append(devices) or fork(devices=[]))
    training.descend(Half(F64), lambda m: m.a.sum() ** 2 + m.b.sum(), 0.1, 1, checkpoint=tmp_path / "run.npz")
    assert asked == [[2, 2], [2, 2]]  # for the run, and for the loss that its checkpoints note


def test_an_unfinished_search_names_the_value_that_is_farthest_from_its_own_bound():
    """After three products the value 10 is nearly there; the other, at most 0.1 by interlacing, has the lower bound."""
    model = Quadratic([10.0, 0.1, *np.linspace(-0.02, 0.02, 60)])
    for seed in range(3):
        with pytest.raises(RuntimeError, match="^products: residual .* after 3 of them, needs ") as refused:
            training.sharpness(model, Quadratic.energy, k=2, block=1, products=3, tolerance=1e-6, seed=seed)
        assert 1e-9 < float(re.search(r"needs ([^;]+);", str(refused.value))[1]) < 1.06e-7  # two digits are written


def test_a_restart_leaves_the_outer_half_of_the_basis_and_at_least_a_block_beside_the_wanted(monkeypatch):
    filled, made = [], training._directions

    def watched(R, Q, scale, draw, count):
        filled.append(len(Q))
        return made(R, Q, scale, draw, count)

    monkeypatch.setattr(training, "_directions", watched)
    model = Quadratic([1.01, 1.0, *np.linspace(-1, 0.99, 200)])
    for options, wanted in (
        ({"k": 3, "block": 2, "basis": 9}, [0, 2, 4, 6, 8, 5 + 2, 5 + 4, 5 + 2]),
        ({"k": 1, "block": 1, "basis": 20}, [*range(21), *range(10 + 1, 20 + 1), 10 + 1]),
    ):
        filled.clear()
        with pytest.raises(RuntimeError, match="^products: "):
            training.sharpness(model, Quadratic.energy, products=40, tolerance=1e-9, **options)
        assert filled[: len(wanted)] == wanted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 3}, "^layers: got 3"),
        ({"layers": [["weight"]]}, "^layers: got"),
        ({"sharpness_at": 3}, "^sharpness_at: got 3, needs a sequence"),
        ({"checkpoint": 3.0}, "^checkpoint: got 3.0, needs a path"),
        ({"threads": 10**6}, "^threads: got 1000000"),
    ],
)
def test_what_is_no_list_or_path_is_named(options, words):
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with pytest.raises(ValueError, match=words):
        training.descend(model, lambda m: (m.weight**2).sum(), 0.1, 2, **({"k": 1} | options))
    with pytest.raises(ValueError, match="^loss: got None, needs a function"):
        training.sharpness(model, None)
    for odd in (torch.eye(2).to_sparse(), torch.eye(2) * 1j):
        with pytest.raises(ValueError, match="^matrix: got"):
            training.singular_values(odd, 1)


@pytest.mark.parametrize("name", ["state/weight", "previous/0", "list/loss", "random", "step"])
def test_an_altered_checkpoint_is_refused(name, tmp_path):
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    path = tmp_path / "run.npz"

    def run(observe):
        return training.descend(
            model, lambda m: (m.weight**2).sum(), 0.1, 6, observe={"o": observe}, checkpoint=path, checkpoint_every=2
        )

    seen = []

    def stopping(m):
        seen.append(1)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        run(stopping)
    with np.load(path) as file:
        stored = dict(file)
    np.savez(path, **(stored | {name: stored[name] + stored[name].dtype.type(1)}))
    with pytest.raises(ValueError, match=r"^checkpoint: .*run.npz was altered after it was written; remove it"):
        run(lambda m: 0.0)
    np.savez(path, **stored)
    assert len(run(lambda m: 0.0).loss) == 7
