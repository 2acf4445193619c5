"""The two records of mild sharpening: hand-written derivatives, starts, the parts that need the images."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from eoslib import data, training

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "recorded"))
import mild_sharpening_images as many
import mild_sharpening_unet as one


def small(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return many.Network(rng.standard_normal((7, 5)), np.eye(10)[:7], seed, width=4, scale=scale, dtype=float)


def flat(arrays):
    return np.concatenate([a.ravel() for a in arrays])


def as_torch(net):
    width = len(net.parameters[1])
    first = torch.nn.Linear(net.inputs.shape[1], width)
    layers = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Linear(width, 10)).double()
    with torch.no_grad():
        for parameter, value in zip(layers.parameters(), net.parameters):
            parameter.copy_(torch.tensor(value.astype(float)))
    x, y = torch.tensor(net.inputs.astype(float)), torch.tensor(net.targets.astype(float))
    return layers, lambda m: ((m(x) - y) ** 2).sum() / (2 * len(x))


@pytest.mark.parametrize("seed", range(3))
def test_hand_written_derivatives_are_those_of_torch(seed):
    net = small(seed)
    layers, loss = as_torch(net)
    value = loss(layers)
    gradients = torch.autograd.grad(value, list(layers.parameters()), create_graph=True)
    assert abs(net.loss - value.item()) < 1e-13
    # both sum a few hundred products of numbers of order one
    assert_allclose(flat(net.gradient()), flat([g.detach().numpy() for g in gradients]), atol=1e-13)
    direction = [np.random.default_rng(9).standard_normal(p.shape) for p in net.parameters]
    inner = sum((g * torch.tensor(v)).sum() for g, v in zip(gradients, direction))
    wanted = torch.autograd.grad(inner, list(layers.parameters()))
    assert_allclose(flat(net.product(direction)), flat([w.numpy() for w in wanted]), atol=1e-12)


def test_sharpness_is_that_of_the_library_within_its_residual():
    net = small(4)
    for _ in range(30):
        net.step(0.1)
    value, residual = net.sharpness()
    layers, loss = as_torch(net)
    top = training.sharpness(layers, loss, tolerance=1e-9).values[0]
    # a symmetric matrix has an eigenvalue within the residual; Lanczos from a random start finds the largest
    assert abs(value - top) <= residual + 1e-9 and residual < 2e-3 * value


def test_a_step_is_a_gradient_step():
    net = small(5)
    before, g = flat(net.parameters).copy(), flat(net.gradient())
    net.step(0.3)
    assert_allclose(flat(net.parameters), before - 0.3 * g, atol=1e-15)


def test_root_of_a_gram_matrix():
    X = np.random.default_rng(0).standard_normal((6, 9))
    root = many.root(X @ X.T)
    assert_allclose(root, root.T, atol=1e-14)
    assert_allclose(root @ root, X @ X.T, atol=1e-13)


def test_power_iteration_says_when_it_does_not_converge():
    rng = np.random.default_rng(0)
    with pytest.raises(RuntimeError, match="still changing"):
        many.interpolating_sharpness(rng.standard_normal((6, 9)), np.eye(10)[:6], steps=2)


def test_the_start_of_the_unet_depends_on_the_seed_alone():
    state = torch.get_rng_state()
    images = one.images()
    first, loss = one.problem(images["sky"], 1)
    second, _ = one.problem(images["foliage"], 1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    assert torch.equal(torch.get_rng_state(), state)
    goal = torch.tensor(images["sky"], dtype=torch.float32)
    assert loss(first).item() == ((first(one.noise_of(1))[0, 0] - goal) ** 2).sum().item()


def test_images_differ_in_their_spectrum_alone():
    for image in one.images().values():
        assert image.shape == (one.SIZE, one.SIZE)
        assert abs(image.mean()) < 1e-12 and abs(image.std() - one.SPREAD) < 1e-12


def test_records_hold_every_part():
    for module in (many, one):
        record = module.load()
        for name in module.jobs():
            part = record[name]
            assert all(np.isfinite(column).all() for column in part.values()), name
            if "step" in part:
                assert len({len(column) for column in part.values()}) == 1 and part["step"][0] == 0


def test_runs_on_the_images_themselves():
    """Needs the images that the record was made from; the book does not hold them."""
    found = data.load("cifar10", download=False)
    record = many.load()
    if found.source != many.SOURCE or found.sha256 != record["about"]["data"]["cifar10"]["sha256"]:
        pytest.skip("the folder EOSLIB_DATA does not hold the images of the record")
    inputs, targets = many.images(100)
    assert_allclose(inputs @ inputs.T, record["gram"], rtol=1e-12)
    assert np.array_equal(targets.argmax(1), record["labels"])
    for n, steps in ((200, 200), (1000, 40)):
        part, old = many.descend(n, 0, 40, steps=steps), record[f"rate-{n}-40"]
        rows = len(part["step"])
        # the same code in float32: another machine may sum in another order, which the saddle amplifies
        assert_allclose(part["loss"], old["loss"][:rows], rtol=1e-3)
        assert_allclose(part["sharpness"], old["sharpness"][:rows], rtol=5e-3)
