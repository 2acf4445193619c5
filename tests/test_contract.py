"""The names and signatures that code outside the book relies on, called once each as a reader would."""

import numpy as np

from eoslib import balance, descent, hessian, network, scalar, transverse


def test_network_and_descent():
    rng = np.random.default_rng(0)
    t = network.target((10, 9, 6), 8, rng=rng, symmetric=False)
    assert t.matrix.shape == t.left.shape == t.right.shape == (8, 8) and t.singular_values.shape == (3,)
    W = network.initialise("unbalanced", depth=3, width=8, scale=0.01)
    assert network.product(W).shape == (8, 8)
    assert np.isclose(network.loss(W, t.matrix), (100 + 81 + 36) / 2)
    assert network.gradient(W, t.matrix).shape == network.hessian_vector_product(W, t.matrix, W).shape == W.shape
    run = descent.descend(W, t.matrix, np.array([0.01, 0.02]), 50)
    assert run.weights.shape == (2, 3, 8, 8) and run.loss.shape == (2, 51)
    assert run.singular_values.shape == (2, 51, 8) and run.diverged.tolist() == [False, False]
    assert descent.descend(W, t.matrix, 0.01, 500, keep=200).loss.shape == (200,)


def test_hessian():
    t = network.target((10, 9, 6), 6, diagonal=True)
    W = network.initialise("balanced", depth=3, width=6, scale=0.5)
    assert hessian.dense(W, t.matrix).shape == (108, 108)
    assert np.isclose(hessian.sharpness(W, t.matrix), hessian.sharpness(W, t.matrix, k=3)[0])
    values, multiplicities = hessian.spectrum_at_minimum((10, 9, 6), depth=3, width=6, scale=0.01, init="unbalanced")
    assert multiplicities.sum() == 108 and np.isclose(values[0], 3 * 10 ** (4 / 3))


def test_one_mode():
    assert np.isclose(scalar.step(1.0, 1.0, 3, 0.1), 1.0)
    cycle = scalar.two_cycle(1.0, 2, 1.1)
    assert np.isclose(cycle.low * cycle.high, 1 / 1.1) and abs(cycle.multiplier) < 1
    window = scalar.window(2)
    assert window.period_two == 2 and np.isclose(window.period_four, 2 * (np.sqrt(5) - 1))
    assert window.period_four < window.period_eight < window.chaos < window.sign_change < window.divergence
    assert scalar.lyapunov(1.0, 2, 1.1) < 0


def test_balance_and_transverse():
    assert np.isclose(balance.flow_sharpness(1e-3, 10.0, 3), 3 * 10 ** (4 / 3), rtol=1e-5)
    eta = transverse.threshold((1.0, 0.9), 2)
    assert np.isclose(eta, 2 / 1.9)
    below, above = (np.abs(transverse.multipliers((1.0, 0.9), 2, eta * f)).max() for f in (0.99, 1.01))
    assert below < 1 + 1e-9 < above
