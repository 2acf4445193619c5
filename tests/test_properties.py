"""Properties over shapes, dtypes, batches, layouts, scales, depths, ranks and repeated values.

The references share no code with the library: autodiff by torch, differences in mpmath, loops, SciPy. Each property has
a few examples in an ordinary run and many in ``make properties`` (see ``conftest.py``); what a long run finds stays here
as an ``@example``.
"""

import mpmath as mp
import numpy as np
import pytest
import scipy.integrate
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from eoslib import alignment, balance, descent, diagonal, escape, hessian, network, scalar, transverse

SEEDS = st.integers(0, 2**32 - 1)
DTYPES = st.sampled_from([np.float32, np.float64, np.longdouble])
LAYOUTS = st.sampled_from(["plain", "fortran", "strided", "read-only", "reversed"])
BATCHES = st.sampled_from([(), (1,), (3,), (2, 2), (0,)])
RANKS = st.sampled_from(["full", "zero", "one", "repeated", "singular"])


def matrices(rng, shape, kind):
    """Random square matrices, of the rank or with the repeated singular values that `kind` says."""
    X = rng.standard_normal(shape)
    if kind == "full":
        return X
    if kind == "zero":
        return 0 * X
    U, s, Vt = np.linalg.svd(X)
    s = {"one": s * (np.arange(shape[-1]) == 0), "repeated": 0 * s + 1, "singular": s * (np.arange(shape[-1]) > 0)}[
        kind
    ]
    return (U * s[..., None, :]) @ Vt


def laid_out(X, layout):
    """The same numbers, stored otherwise."""
    if layout == "fortran":
        return np.asfortranarray(X)
    if layout == "strided":
        wide = np.zeros((*X.shape[:-1], 2 * X.shape[-1]), X.dtype)
        wide[..., ::2] = X
        return wide[..., ::2]
    if layout == "reversed":
        return X[..., ::-1].copy()[..., ::-1]
    X = X.copy()
    X.flags.writeable = layout != "read-only"
    return X


@st.composite
def networks(draw, most=5, width=4, batches=BATCHES, dtypes=DTYPES):
    """Weights of size one and a target."""
    rng, depth, d = np.random.default_rng(draw(SEEDS)), draw(st.integers(1, most)), draw(st.integers(1, width))
    dtype, layout = draw(dtypes), draw(LAYOUTS)
    W = matrices(rng, (*draw(batches), depth, d, d), draw(RANKS)) / np.sqrt(d)
    M = matrices(rng, (d, d), draw(RANKS)) / np.sqrt(d)
    return laid_out(W.astype(dtype), layout), laid_out(M.astype(dtype), layout), rng


def exactly(x):
    """A float of any length as mpmath's number, digit by digit."""
    if isinstance(x, mp.mpf):
        return x
    head = float(x)
    return mp.mpf(head) + mp.mpf(float(x - type(x)(head)))


def by_loops(W, M):
    """Product, loss and gradient of one network of exact numbers, entry by entry."""

    def times(A, B):
        d = len(A)
        return [[sum(A[i][k] * B[k][j] for k in range(d)) for j in range(d)] for i in range(d)]

    def chain(parts, d):
        P = [[mp.mpf(i == j) for j in range(d)] for i in range(d)]
        for part in parts:
            P = times(part, P)
        return P

    W = [[[exactly(x) for x in row] for row in layer] for layer in W]
    M, d = [[exactly(x) for x in row] for row in M], len(M)
    P = chain(W, d)
    R = [[P[i][j] - M[i][j] for j in range(d)] for i in range(d)]
    transposed = lambda A: [list(row) for row in zip(*A)]
    G = []
    for k in range(len(W)):
        above, below = chain(W[k + 1 :], d), chain(W[:k], d)
        G.append(times(times(transposed(above), R), transposed(below)))
    return P, sum(x * x for row in R for x in row) / 2, G


def size_of(W, M, power):
    """What a rounding is relative to: norms of all layers (1 at least) to the power, times that of the residual."""
    norm = max(1.0, float(np.sqrt((np.asarray(W, float) ** 2).sum((-2, -1)).max(initial=0))))
    return norm ** (power * W.shape[-3]) * max(1.0, float(np.abs(M).max(initial=0))) * W.shape[-1] ** 2 * W.shape[-3]


# -- network ----------------------------------------------------------------------------------------------------------
@given(networks(most=4, width=3, batches=st.sampled_from([(), (2,)])))
def test_loss_and_gradient_are_those_of_loops_over_exact_entries(case):
    W, M, _ = case
    P, f, G = network.product(W), network.loss(W, M), network.gradient(W, M)
    assert P.dtype == G.dtype == W.dtype and G.shape == W.shape and f.shape == W.shape[:-3]
    roundings = 20 * float(np.finfo(W.dtype).eps)
    with mp.workdps(40):
        for index in np.ndindex(W.shape[:-3]):
            exact_P, exact_f, exact_G = by_loops(W[index], M)
            for found, exact in ((P[index], exact_P), (f[index], exact_f), (G[index], exact_G)):
                wrong = np.abs(np.vectorize(exactly, otypes=[object])(found) - np.array(exact, dtype=object))
                assert np.max(wrong) <= roundings * size_of(W, M, 2)


@given(networks(dtypes=st.sampled_from([np.float32, np.float64])))
def test_gradient_and_curvature_are_those_of_autodiff(case):
    W, M, rng = case
    V = rng.standard_normal(W.shape).astype(W.dtype)

    def loss(w):
        P = w[..., 0, :, :]
        for k in range(1, w.shape[-3]):
            P = w[..., k, :, :] @ P
        return ((P - torch.tensor(M.copy())) ** 2).sum() / 2  # a sum over the batch: networks do not mix

    w, v = torch.tensor(W.copy(), requires_grad=True), torch.tensor(V)
    (g,) = torch.autograd.grad(loss(w), w, create_graph=True)
    hv = (
        torch.autograd.grad((g * v).sum(), w, allow_unused=True)[0]
        if g.requires_grad and w.numel()
        else torch.zeros_like(w)
    )
    roundings = 50 * float(np.finfo(W.dtype).eps)
    assert_allclose(network.gradient(W, M), g.detach().numpy(), rtol=0, atol=roundings * size_of(W, M, 2))
    found = network.hessian_vector_product(W, M, V)
    assert found.dtype == W.dtype
    assert_allclose(found, hv.numpy(), rtol=0, atol=roundings * size_of(W, M, 2) * max(1, np.abs(V).max(initial=0)))


@given(networks(most=3, width=2, batches=st.just(()), dtypes=st.just(np.float64)))
def test_curvature_is_a_difference_of_gradients_of_forty_digits(case):
    W, M, rng = case
    V = rng.standard_normal(W.shape)
    with mp.workdps(50):
        exact = lambda X: np.vectorize(mp.mpf, otypes=[object])(X)
        h = mp.mpf(10) ** -20
        difference = (
            network.gradient(exact(W) + h * exact(V), exact(M)) - network.gradient(exact(W) - h * exact(V), exact(M))
        ) / (2 * h)
        loops = (
            np.array(by_loops(exact(W) + h * exact(V), M)[2]) - np.array(by_loops(exact(W) - h * exact(V), M)[2])
        ) / (2 * h)
        assert np.max(np.abs(difference - loops)) < mp.mpf(10) ** -18  # both wrong by h^2 = 1e-40 and 1e-50 / h
    assert_allclose(network.hessian_vector_product(W, M, V), loops.astype(float), rtol=0, atol=1e-13 * size_of(W, M, 2))


@given(networks(), st.integers(-660, 660))
def test_a_power_of_two_changes_no_digit(case, exponent):
    """W -> c W, M -> c^L M: product, loss and gradient are multiplied by powers of c, exactly, from 1e-200 to 1e200."""
    W, M, rng = case
    depth, top = W.shape[-3], 900 if W.dtype != np.float32 else 100
    exponent = int(np.clip(exponent, -(top // (2 * depth)), top // (2 * depth)))
    tiny = np.abs(np.concatenate([W.ravel(), M.ravel()]))
    assume(not np.any((tiny > 0) & (tiny < 1e-5)))  # whose products would lose digits below the range
    c = W.dtype.type(2.0) ** exponent
    scaled = W * c, M * c**depth
    whole = network.gradient(W, M)
    assume(np.all((whole == 0) | (np.abs(whole) > 1e-12)))
    assert np.array_equal(network.product(scaled[0]), network.product(W) * c**depth)
    assert np.array_equal(network.loss(*scaled), network.loss(W, M) * c ** (2 * depth))
    assert np.array_equal(network.gradient(*scaled), whole * c ** (2 * depth - 1))


@given(networks(batches=st.sampled_from([(3,), (2, 2)])))
def test_a_batch_is_its_members_and_a_layout_is_no_number(case):
    W, M, rng = case
    V = rng.standard_normal(W.shape).astype(W.dtype)
    before = W.copy(), M.copy()
    roundings = 20 * float(np.finfo(W.dtype).eps) * size_of(W, M, 2) * max(1, np.abs(V).max())
    for function in (network.product, lambda w: network.loss(w, M), lambda w: network.gradient(w, M)):
        whole = function(W)
        for index in np.ndindex(W.shape[:-3]):
            assert_allclose(whole[index], function(np.ascontiguousarray(W[index])), rtol=0, atol=roundings)
    whole = network.hessian_vector_product(W, M, V)
    for index in np.ndindex(W.shape[:-3]):
        assert_allclose(whole[index], network.hessian_vector_product(W[index], M, V[index]), rtol=0, atol=roundings)
    assert np.array_equal(W, before[0]) and np.array_equal(M, before[1])


@given(SEEDS, st.integers(1, 200), st.floats(0.9, 1.1))
def test_deep_networks_of_width_one_are_products_of_numbers(seed, depth, size):
    rng = np.random.default_rng(seed)
    w = size * rng.choice([-1, 1], depth) * rng.uniform(0.98, 1.02, depth)
    P = np.prod(w.astype(np.longdouble))
    rest = np.array([np.prod(np.delete(w, k).astype(np.longdouble)) for k in range(depth)])
    W, M = w[:, None, None], np.array([[0.7]])
    assert_allclose(
        network.gradient(W, M)[:, 0, 0],
        ((P - 0.7) * rest).astype(float),
        rtol=0,
        atol=1e-15 * depth * float(np.abs((abs(P) + 0.7) * rest).max()),
    )


# -- descent ----------------------------------------------------------------------------------------------------------
@given(networks(most=4), st.integers(0, 6), st.integers(1, 4), st.integers(1, 8), st.booleans())
def test_descent_is_the_loop(case, steps, every, keep, several):
    W, M, rng = case
    assume(W.size)  # an empty batch is refused
    rates = np.array([0.01, 0.1]) if several else 0.05
    recorded = [t for t in range(max(0, steps + 1 - keep), steps + 1) if t % every == 0]
    if not recorded:
        with pytest.raises(ValueError, match="^every: got"):
            descent.descend(W, M, rates, steps, every=every, keep=keep)
        return
    run = descent.descend(W, M, rates, steps, every=every, keep=keep)
    assert run.weights.dtype == W.dtype
    states = []
    for rate in np.atleast_1d(rates):
        X = [W.astype(np.longdouble)]
        for _ in range(steps):
            P = X[-1][..., 0, :, :]
            parts = [X[-1][..., k, :, :] for k in range(W.shape[-3])]
            G = []
            for k in range(len(parts)):
                above, below = np.eye(W.shape[-1], dtype=np.longdouble), np.eye(W.shape[-1], dtype=np.longdouble)
                for part in parts[:k]:
                    below = part @ below
                for part in parts[k + 1 :]:
                    above = part @ above
                P = above @ parts[k] @ below
                G.append(np.swapaxes(above, -1, -2) @ (P - M) @ np.swapaxes(below, -1, -2))
            X.append(X[-1] - W.dtype.type(rate) * np.stack(G, axis=-3))
        states.append(X)
    assert run.steps.tolist() == recorded
    final = np.stack([X[-1] for X in states]) if several else states[0][-1]
    # the reference ends in float64, and so do singular values by LAPACK
    slack = 200 * max(float(np.finfo(W.dtype).eps), 2.3e-16) * size_of(W, M, 2) * (steps + 1)
    assert_allclose(run.weights.astype(float), final.astype(float), rtol=0, atol=slack)
    for t, number in enumerate(recorded):
        P = [X[number][..., 0, :, :] for X in states]
        for k in range(1, W.shape[-3]):
            P = [X[number][..., k, :, :] @ p for X, p in zip(states, P)]
        P = np.stack(P).astype(float) if several else P[0].astype(float)
        assert_allclose(run.loss[..., t], ((P - M.astype(float)) ** 2).sum((-2, -1)) / 2, rtol=0, atol=slack)
        if W.size:
            assert_allclose(run.singular_values[..., t, :], np.linalg.svd(P, compute_uv=False), rtol=0, atol=slack)
    assert not run.diverged.any() and run.loss.shape == (*np.shape(rates), *W.shape[:-3], len(recorded))


@given(SEEDS, st.integers(1, 200), st.integers(1, 40), st.floats(0.01, 0.5))
def test_descent_of_one_mode_is_the_scalar_map(seed, depth, steps, q):
    m, rate = 1.3, q / (max(depth, 1) * 1.3 ** (2 - 2 / depth))
    s = 1.3 ** (1 / depth) * (1 + np.random.default_rng(seed).uniform(-0.3, 0.1) / depth)
    run = descent.descend(np.full((depth, 1, 1), s), np.array([[m]]), rate, steps)
    for _ in range(steps):
        s = s + rate * (m - s**depth) * s ** (depth - 1)
    assert_allclose(run.weights[:, 0, 0], s, rtol=1e-12)  # a contraction: roundings of a power of the depth each step
    if depth > 1:
        assert_allclose(scalar.step(s, m, depth, rate), s + rate * (m - s**depth) * s ** (depth - 1), rtol=1e-12)


@given(SEEDS, st.integers(1, 3), st.lists(st.floats(0.01, 3), min_size=1, max_size=4, unique=True))
def test_flow_of_one_layer_is_an_exponential(seed, d, times):
    rng, times = np.random.default_rng(seed), np.sort(times)
    W, M = rng.standard_normal((2, 1, d, d))
    found = descent.flow(W, M[0], times)
    assert_allclose(
        found, M + (W - M) * np.exp(-times)[:, None, None, None], rtol=0, atol=1e-7
    )  # the integrator's 1e-10 a step


# -- hessian ----------------------------------------------------------------------------------------------------------
@given(networks(most=3, width=3, batches=st.just(()), dtypes=st.just(np.float64)))
def test_dense_hessian_is_that_of_autodiff(case):
    W, M, _ = case

    def loss(w):
        w, P = w.reshape(W.shape), torch.eye(W.shape[-1], dtype=torch.float64)
        for layer in w:
            P = layer @ P
        return ((P - torch.tensor(M.copy())) ** 2).sum() / 2

    expected = torch.autograd.functional.hessian(loss, torch.tensor(W.copy()).reshape(-1)).numpy()
    H = hessian.dense(W, M)
    assert np.array_equal(H, H.T)
    assert_allclose(H, expected, rtol=0, atol=1e-14 * size_of(W, M, 2))
    values = np.linalg.eigvalsh(expected)
    size = max(np.abs(values).max(), 1e-12)
    k = min(3, len(values))
    assert_allclose(hessian.sharpness(W, M), values[-1], rtol=0, atol=1e-6 * size)
    assert_allclose(hessian.sharpness(W, M, k=k), values[::-1][:k], rtol=0, atol=1e-6 * size)
    assert_allclose(hessian.sharpness(W, M, k=k, smallest=True), values[:k], rtol=0, atol=1e-6 * size)


@given(
    SEEDS,
    st.integers(2, 5),
    st.integers(1, 3),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from(["balanced", "unbalanced"]),
    st.floats(-3, 0),
)
def test_spectra_in_closed_form_are_those_of_the_dense_hessian(seed, depth, rank, more, equal, start, exponent):
    rng, width, scale = np.random.default_rng(seed), rank + more, 10.0**exponent
    m = np.sort(rng.uniform(0.1, 5, rank))[::-1]
    m = np.full(rank, m[0]) if equal else m
    layers = np.zeros((depth, width))
    layers[:, :rank] = m ** (1 / depth)
    if start == "unbalanced":
        layers[:-1, rank:] = scale
    W = np.stack([np.diag(row) for row in layers])
    M = np.diag(np.concatenate([m, np.zeros(more)]))
    dense = np.linalg.eigvalsh(hessian.dense(W, M))
    values, counts = hessian.spectrum_at_minimum(m, depth=depth, width=width, scale=scale, init=start)
    assert counts.sum() == depth * width**2 and np.all(counts > 0)
    assert_allclose(np.sort(np.repeat(values, counts)), dense, rtol=0, atol=1e-12 * dense[-1])
    assert_allclose(np.sort(hessian.spectrum_aligned(layers, m).ravel()), dense, rtol=0, atol=1e-12 * dense[-1])
    layers = layers * rng.uniform(0.5, 1.5, layers.shape)  # no minimum any more
    dense = np.linalg.eigvalsh(hessian.dense(np.stack([np.diag(row) for row in layers]), M))
    assert_allclose(
        np.sort(hessian.spectrum_aligned(layers, m).ravel()), dense, rtol=0, atol=1e-12 * np.abs(dense).max()
    )


# -- alignment --------------------------------------------------------------------------------------------------------
@given(networks(most=4), st.integers(-60, 60))
def test_imbalance_and_commutator_are_those_of_loops(case, exponent):
    W, _, _ = case
    assume(W.shape[-3] > 1)
    exponent = exponent if W.dtype != np.float32 else exponent // 8
    c = W.dtype.type(10.0) ** exponent
    C = alignment.imbalance(W)
    # norms as an independent loop; the commutator is of fourth degree
    roundings = (
        50 * max(float(np.finfo(W.dtype).eps), 2.3e-16 if W.dtype != np.float32 else 0) * size_of(W, np.ones(1), 4)
    )
    for index in np.ndindex((*W.shape[:-3], W.shape[-3] - 1)):
        one, two = W[index].astype(float), W[(*index[:-1], index[-1] + 1)].astype(float)
        A = np.array(
            [[sum(one[i, k] * one[j, k] for k in range(len(one))) for j in range(len(one))] for i in range(len(one))]
        )
        B = np.array(
            [[sum(two[k, i] * two[k, j] for k in range(len(one))) for j in range(len(one))] for i in range(len(one))]
        )
        assert_allclose(C[index].astype(float), B - A, rtol=0, atol=roundings)
        expected = np.sqrt(((A @ B - B @ A) ** 2).sum())
        assert_allclose(alignment.commutator(W)[index], expected, rtol=0, atol=roundings)
        assert_allclose(
            alignment.commutator(W * c)[index] / (c.astype(float) ** 4), expected, rtol=0, atol=100 * roundings
        )


@given(SEEDS, st.integers(2, 4), st.integers(1, 4), st.integers(-200, 200), LAYOUTS, st.booleans())
def test_aligned_layers_are_seen_as_aligned_at_every_scale(seed, depth, d, exponent, layout, batch):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((depth + 1, d, d)))[0]
    s = np.sort(rng.uniform(0.5, 1, (depth, d)) + np.arange(d)[::-1])[:, ::-1]  # gaps of at least a half
    W = 10.0**exponent * ((Q[1:] * s[:, None, :]) @ Q[:-1].mT)
    W = laid_out(np.stack([W, W]) if batch else W, layout)
    for rank in range(1, d + 1):
        assert alignment.subspace_distance(W, rank).max() < 1e-12
    inner = alignment.coordinates(W, Q[-1], Q[0], Q[1:-1])
    assert alignment.off_diagonal(inner).max() < 1e-13 * d * 10.0**exponent
    assert_allclose(
        np.abs(np.diagonal(inner, axis1=-2, axis2=-1)),
        np.broadcast_to(10.0**exponent * s, inner.shape[:-1]),
        rtol=1e-12,
    )
    turned = alignment.rotate(W, Q[1:-1])
    if abs(exponent * depth) < 280:
        assert_allclose(
            network.product(turned), network.product(W), rtol=0, atol=1e-13 * np.prod(10.0**exponent * s.max(1)) * d**2
        )


# -- balance ----------------------------------------------------------------------------------------------------------
@given(st.floats(-200, 200), st.floats(-200, 200), st.integers(2, 200))
def test_sharpness_of_the_flows_end_from_the_smallest_to_the_largest_scale(scale, target, depth):
    alpha, m = 10.0**scale, 10.0**target
    with mp.workdps(60):
        a, mm = mp.mpf(alpha), mp.mpf(m)
        # in v = log(y^2 / alpha^2): (L - 1) v + log(1 - e^-v) + ... = 2 log(m / alpha^L); increasing
        goal = 2 * (mp.log(mm) - depth * mp.log(a))
        f = lambda v: (depth - 1) * v + mp.log(mp.expm1(v)) - goal
        low, high = mp.mpf(10) ** -2000, abs(goal) + 10
        for _ in range(400):
            middle = mp.sqrt(low * high) if low < 1 else (low + high) / 2
            low, high = (middle, high) if f(middle) < 0 else (low, middle)
        assume(low > mp.mpf(10) ** -1500)
        y2, x2 = a**2 * mp.exp(high), a**2 * mp.expm1(high)
        psi = mm**2 * (1 / x2 + (depth - 1) / y2)
        ends = mp.sqrt(x2), mp.sqrt(y2), psi
        inside = all(mp.mpf("1e-307") < end < mp.mpf("1e307") for end in ends)
    if not inside:
        return
    end = balance.flow_limit(alpha, m, depth)
    # logarithms of up to 500 are known to 1e-13 / 2, and enter Psi up to 2 L times; those of the layers once
    assert_allclose([end.last, end.others], [float(ends[0]), float(ends[1])], rtol=2e-12)
    assert_allclose(end.sharpness, float(psi), rtol=2e-13 * max(10, 2 * depth, abs(float(mp.log(psi)))))


@given(networks(most=5, dtypes=st.just(np.float64)), st.floats(0.001, 0.5))
def test_gap_factors_are_what_a_step_of_descent_does(case, rate):
    W, M, rng = case
    depth, d = W.shape[-3:-1]
    assume(depth > 1)
    values = rng.uniform(-1.2, 1.2, (*W.shape[:-3], depth, d))
    target = rng.uniform(0, 2, d)
    after = values.copy()
    for index in np.ndindex((*W.shape[:-3], d)):
        v = values[(*index[:-1], slice(None), index[-1])]
        for layer in range(depth):
            after[(*index[:-1], layer, index[-1])] -= (
                rate * (np.prod(v) - target[index[-1]]) * np.prod(np.delete(v, layer))
            )
    assert_allclose(
        balance.gaps(after),
        balance.gap_factors(values, target, rate) * balance.gaps(values),
        rtol=0,
        atol=1e-13 * 1.2 ** (4 * depth),
    )


# -- scalar -----------------------------------------------------------------------------------------------------------
@given(st.floats(2.0000001, 3.9), st.integers(2, 200), st.floats(-200, 200))
def test_the_two_cycle_is_one_at_every_scale(q, depth, exponent):
    assume(abs(exponent) * (2 - 2 / depth) < 290)  # the sharpness is within the floating range
    m = 10.0**exponent
    rate = q / (depth * m ** (2 - 2 / depth))
    cycle = scalar.two_cycle(m, depth, rate)
    unit = m ** (1 / depth)
    assert 0 < cycle.low < unit < cycle.high
    with mp.workdps(50):
        u, exact_q = mp.mpf(float(cycle.low / unit)), mp.mpf(cycle.q)
        f = lambda x: x + exact_q / depth * (1 - x**depth) * x ** (depth - 1)
        slope = lambda x: (
            1 + exact_q / depth * ((depth - 1) * x ** (depth - 2) - (2 * depth - 1) * x ** (2 * depth - 2))
        )
        high = f(u)
        # q is known to a few roundings, which moves the low end by about
        # 1e-15 / (q - 2)^(1/2); slopes are of order depth
        slack = 1e-13 * depth / np.sqrt(q - 2)
        assert abs(f(high) - u) < slack and abs(high - mp.mpf(float(cycle.high / unit))) < slack
        assert abs(slope(u) * slope(high) - mp.mpf(float(cycle.multiplier))) < 1e3 * slack
    assert_allclose(
        [scalar.step(cycle.low, m, depth, rate), scalar.step(cycle.high, m, depth, rate)],
        [cycle.high, cycle.low],
        rtol=100 * slack,
    )


@given(SEEDS, st.integers(2, 200), st.floats(-100, 100), BATCHES)
def test_step_and_slope_are_those_of_fifty_digits(seed, depth, exponent, shape):
    rng, m = np.random.default_rng(seed), 10.0**exponent
    s = np.asarray(m ** (1 / depth) * rng.uniform(0.2, 1.1, shape))
    rate = rng.uniform(0.1, 3) / (depth * m ** (2 - 2 / depth))
    found, slope = scalar.step(s, m, depth, rate), scalar.slope(s, m, depth, rate)
    assert np.shape(found) == np.shape(slope) == shape
    with mp.workdps(50):
        for index in np.ndindex(shape):
            x, mm, eta = mp.mpf(float(s[index])), mp.mpf(m), mp.mpf(float(rate))
            pull = eta * (mm - x**depth) * x ** (depth - 1)
            terms = 1, eta * (depth - 1) * mm * x ** (depth - 2), eta * (2 * depth - 1) * x ** (2 * depth - 2)
            scale = abs(x) + eta * (mm + x**depth) * x ** (depth - 1)
            assert abs(mp.mpf(float(np.asarray(found)[index])) - (x + pull)) < 4e-16 * depth * scale
            assert abs(
                mp.mpf(float(np.asarray(slope)[index])) - (terms[0] + terms[1] - terms[2])
            ) < 4e-16 * depth * sum(terms)


# -- transverse -------------------------------------------------------------------------------------------------------
@given(SEEDS, st.integers(2, 6), st.sampled_from(["any", "zeros", "equal", "negative"]), st.sampled_from([1.0, 0.0]))
def test_pair_block_is_that_of_the_dense_hessian(seed, depth, kind, last):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0.3, 1.5, (2, depth))
    if kind == "zeros":
        a[rng.integers(depth)], b[rng.integers(depth)] = 0, 0
    if kind == "equal":
        b = a.copy()
    if kind == "negative":
        a, b = a * rng.choice([-1, 1], depth), b * rng.choice([-1, 1], depth)
    m = np.array([rng.uniform(1, 3), last * rng.uniform(0, 1)])
    H = hessian.dense(np.stack([np.diag(pair) for pair in zip(a, b)]), np.diag(m))
    rows = np.concatenate([4 * np.arange(depth) + 1, 4 * np.arange(depth) + 2])
    assert_allclose(
        transverse.pair_hessian(a, b, m), H[np.ix_(rows, rows)], rtol=0, atol=1e-13 * max(1, np.abs(H).max())
    )


@given(st.floats(0.3, 0.999), st.integers(2, 8), st.floats(2.01, 2.4), st.sampled_from([1.0, 1e-100, 1e100]))
def test_multipliers_are_roots_of_the_two_step_map_and_do_not_depend_on_the_scale(ratio, depth, q, size):
    rate = q / depth
    found = transverse.multipliers((1.0, ratio), depth, rate)
    assert len(found) == 2 * depth and np.all(np.diff(np.abs(found)) < 1e-9)
    for sign in (1, -1):
        whole = transverse.floquet_matrix((1.0, ratio), depth, rate, sign)
        one = np.linalg.eigvals(whole)
        assert_allclose(
            np.prod(transverse.multipliers((1.0, ratio), depth, rate, sector=sign)),
            np.linalg.det(whole),
            atol=1e-9 * max(1, abs(np.linalg.det(whole))),
        )
        assert np.sum(np.abs(one - 1) < 1e-6) >= (depth - (sign == -1)) // 2  # rotations of the hidden bases
    scaled = transverse.multipliers((size, ratio * size), depth, rate * size ** (2 / depth - 2))
    # defective ones move like roots of rounding; traces do not
    for power in (1, 2, 3):
        assert_allclose((scaled**power).sum(), (found**power).sum(), rtol=1e-8, atol=1e-8)


# -- diagonal ---------------------------------------------------------------------------------------------------------
@given(SEEDS, st.integers(1, 6), st.integers(1, 4), BATCHES, DTYPES, LAYOUTS, st.integers(0, 5), st.booleans())
def test_diagonal_networks_are_diagonal_matrices(seed, depth, d, batch, dtype, layout, steps, zeros):
    rng = np.random.default_rng(seed)
    s, target = rng.uniform(-1.3, 1.3, (*batch, depth, d)).astype(dtype), rng.uniform(-1, 1, d).astype(dtype)
    if zeros:
        s[..., rng.integers(depth), :], target[rng.integers(d)] = 0, 0
    s, target = laid_out(s, layout), laid_out(target, layout)
    W, M = s[..., None] * np.eye(d, dtype=dtype), np.diag(target)
    slack = 50 * float(np.finfo(dtype).eps) * 1.3 ** (2 * depth) * depth * (steps + 1)
    inner = lambda X: np.diagonal(X, axis1=-2, axis2=-1)
    assert_allclose(
        diagonal.gradient(s, target).astype(float), inner(network.gradient(W, M)).astype(float), rtol=0, atol=slack
    )
    if s.size:
        full, mine = descent.descend(W, M, 0.05, steps), diagonal.descend(s, target, 0.05, steps)
        assert_allclose(mine.weights.astype(float), inner(full.weights).astype(float), rtol=0, atol=slack)
        assert_allclose(mine.loss.astype(float), full.loss.astype(float), rtol=0, atol=slack)
    if dtype == np.float64 and not batch:

        def loss(x):
            return ((x.reshape(depth, d).prod(0) - torch.tensor(target.copy())) ** 2).sum() / 2

        H = (
            torch.autograd.functional.hessian(loss, torch.tensor(s.copy()).reshape(-1))
            .numpy()
            .reshape(depth, d, depth, d)
        )
        blocks = diagonal.hessian_blocks(s, target)
        for i in range(d):
            assert_allclose(blocks[i], H[:, i, :, i], rtol=0, atol=slack)


# -- escape -----------------------------------------------------------------------------------------------------------
@given(st.floats(0.01, 0.99), st.floats(-3, 3), st.integers(2, 12), st.floats(-4, -0.01))
def test_time_to_reach_is_that_of_the_integrated_flow(fraction, target, depth, relative):
    m = 10.0**target
    alpha = m ** (1 / depth) * 10.0 ** max(
        relative, -8 / depth
    )  # else a step of the integrator is lost in the time before
    found = escape.time_to_reach(fraction, m, depth, alpha)

    def speed(t, state):  # logarithm of a, and b
        a, b = np.exp(state[0]), state[1]
        pull = (m - a ** (depth - 1) * b) * a ** (depth - 2)
        return [pull * b / a, pull * a]

    reached = lambda t, state: np.exp((depth - 1) * state[0]) * state[1] - fraction * m
    reached.terminal = True
    run = scipy.integrate.solve_ivp(
        speed,
        (0, 10 * found),
        [np.log(alpha), 0.0],
        method="DOP853",
        rtol=1e-11,
        atol=1e-13 * m ** (1 / depth),
        events=reached,
    )
    assert run.t_events[0].size and run.t_events[0][0] == pytest.approx(found, rel=1e-6, abs=0)


@given(st.floats(-150, 150), st.integers(2, 200), st.floats(-6, -0.01), st.integers(1, 10**6), st.floats(-3, 0))
def test_states_left_before_the_escape_are_on_the_flow_line_at_every_scale(target, depth, relative, remaining, rate):
    m = 10.0**target
    unit = m ** (1 / depth)
    alpha, eta = unit * 10.0**relative, 10.0**rate / (depth * m ** (2 - 2 / depth))
    assume(1e-300 < eta < 1e300)
    W = escape.leave_saddle(m, depth, alpha, eta, remaining=remaining)
    a, b = W[0, 0, 0] / unit, W[-1, 0, 0] / unit
    assert W.shape == (depth, 1, 1) and np.all(W[:-1] == W[0]) and 0 <= b < a <= max(0.5000001, alpha / unit)
    # b is rounded in a difference, a sum, two roots and a product: by four half units, its square by eight
    assert_allclose((a - b) * (a + b), (alpha / unit) ** 2, rtol=1e-9, atol=9e-16 * a * a)
    with mp.workdps(30):
        gap = ((a * mp.mpf(1)) ** 2 - mp.mpf(b) ** 2) / mp.mpf(alpha / unit) ** 2
    assert abs(gap - 1) < 1e-9 or a > 1e3 * alpha / unit  # where the difference is below the rounding of its terms


@given(st.integers(3, 60), st.floats(-5, -1), st.floats(-40, 40), st.sampled_from(["balanced", "unbalanced"]))
def test_escape_times_scale_as_the_equation_does(depth, relative, factor, start):
    """m -> c^L m, alpha -> c alpha: times are multiplied by c^(2 - 2 L), layer by layer, exactly."""
    c, alpha = 10.0 ** (factor / depth), 10.0**relative
    assume(abs(relative * (2 - depth) + factor * (2 / depth - 2)) < 290 and relative * (2 - depth) < 290)
    one = escape.escape_time(1.0, depth, alpha, start=start)
    assert_allclose(escape.escape_time(c**depth, depth, c * alpha, start=start), one * c ** (2 - 2 * depth), rtol=1e-11)
    if start == "unbalanced" and alpha ** (2 - depth) < 1e250:
        exact = escape.time_to_reach(0.5, 1.0, depth, alpha)
        assert_allclose(escape.time_to_reach(0.5, c**depth, depth, c * alpha), exact * c ** (2 - 2 * depth), rtol=1e-8)
