"""The dense Hessian against torch and finite differences; the sharpness against LAPACK, with multiplicities."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eoslib import descent, hessian, network

COMMON = settings(derandomize=True, deadline=None, max_examples=25)


@COMMON
@given(depth=st.integers(1, 6), width=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_dense_is_that_of_torch(depth, width, seed):
    rng = np.random.default_rng(seed)
    W, M = rng.standard_normal((depth, width, width)) / np.sqrt(width), rng.standard_normal((width, width))

    def loss(flat):
        product = torch.eye(width, dtype=torch.float64)
        for part in flat.reshape(depth, width, width):
            product = part @ product
        return ((product - torch.tensor(M)) ** 2).sum() / 2

    theirs = torch.autograd.functional.hessian(loss, torch.tensor(W.ravel())).numpy()
    np.testing.assert_allclose(hessian.dense(W, M), theirs, rtol=0, atol=1e-13 * (1 + np.abs(theirs).max()))


@COMMON
@given(depth=st.integers(1, 6), width=st.integers(1, 8), seed=st.integers(0, 2**16))
def test_dense_is_symmetric_and_differentiates_the_gradient(depth, width, seed):
    rng = np.random.default_rng(seed)
    W, M = rng.standard_normal((depth, width, width)) / np.sqrt(width), rng.standard_normal((width, width))
    V = rng.standard_normal(W.shape)
    V /= np.linalg.norm(V)
    H, step = hessian.dense(W, M), 1e-5
    assert np.array_equal(H, H.T)
    finite = (network.gradient(W + step * V, M) - network.gradient(W - step * V, M)).ravel() / (2 * step)
    np.testing.assert_allclose(H @ V.ravel(), finite, rtol=0, atol=1e-7 * (1 + np.abs(H).max()))


def test_dense_of_a_batch_is_bit_for_bit_that_of_its_members():
    rng = np.random.default_rng(0)
    W, M = rng.standard_normal((2, 3, 4, 5, 5)), rng.standard_normal((5, 5))
    H = hessian.dense(W, M)
    assert all(np.array_equal(H[i], hessian.dense(W[i], M)) for i in np.ndindex(2, 3))


@pytest.mark.parametrize("depth, width", [(1, 9), (2, 8), (3, 6), (6, 4), (3, 12)])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_extreme_eigenvalues_are_those_of_lapack(depth, width, k):
    rng = np.random.default_rng(depth)
    W, M = rng.standard_normal((3, depth, width, width)) / np.sqrt(width), rng.standard_normal((width, width))
    exact = np.linalg.eigvalsh(hessian.dense(W, M))
    tolerance = (
        1e-12 * np.abs(exact).max()
    )  # the residual bound is 1e-10; the error of a Ritz value is its square over the gap
    np.testing.assert_allclose(
        hessian.sharpness(W, M, k=k).reshape(3, k), exact[:, : -k - 1 : -1], rtol=0, atol=tolerance
    )
    np.testing.assert_allclose(
        hessian.sharpness(W, M, k=k, smallest=True).reshape(3, k), exact[:, :k], rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("start", ["balanced", "unbalanced"])
@pytest.mark.parametrize("rate", [0.02, 0.032])
def test_sharpness_all_along_a_run_that_begins_at_a_saddle_and_ends_at_the_edge(start, rate):
    """Structured states: multiple eigenvalues, and a leading eigenvector that changes its symmetry class."""
    target = network.target((10, 9, 6), 6, rng=np.random.default_rng(0), symmetric=True)
    W = network.initialise(start, depth=3, width=6, scale=0.01)
    states = descent.descend(W, target.matrix, rate, 900, every=9, observe={"w": lambda w: w}).observed["w"]
    exact = np.linalg.eigvalsh(hessian.dense(states, target.matrix))
    tolerance = 1e-10 * np.abs(exact).max(axis=-1)
    assert np.all(np.abs(hessian.sharpness(states, target.matrix) - exact[:, -1]) < tolerance)
    ten = hessian.sharpness(states, target.matrix, k=10)
    assert np.all(np.abs(ten - exact[:, :-11:-1]) < tolerance[:, None])


def test_a_zero_hessian_and_an_identity():
    assert hessian.sharpness(np.zeros((3, 6, 6)), np.eye(6)) == 0
    np.testing.assert_allclose(hessian.sharpness(np.zeros((1, 9, 9)), np.eye(9), k=5), np.ones(5), rtol=1e-12)


EXHAUSTED = [
    (8, 2, 0.0, "balanced", 3),
    (8, 2, 0.0, "balanced", 1),
    (6, 3, 1e-6, "unbalanced", 1),
    (6, 3, 1e-6, "unbalanced", 4),
    (6, 3, 1e-6, "unbalanced", 2),
    (12, 3, 1e-8, "balanced", 3),
]


@pytest.mark.parametrize("width, depth, scale, start, k", EXHAUSTED)
def test_a_krylov_space_that_is_exhausted_early(width, depth, scale, start, k):
    """Two or three distinct eigenvalues of high multiplicity: after as many blocks nothing but rounding is left."""
    W = network.initialise(start, depth=depth, width=width, scale=scale) if scale else np.zeros((depth, width, width))
    M = 5 * np.eye(width)
    exact = np.linalg.eigvalsh(hessian.dense(W, M))
    W = np.array([W] * 3)  # so that even the smallest is not left to LAPACK
    largest, smallest = (hessian.sharpness(W, M, k=k, smallest=low).reshape(3, k) for low in (False, True))
    np.testing.assert_allclose(largest, np.tile(exact[: -k - 1 : -1], (3, 1)), rtol=1e-11)
    np.testing.assert_allclose(smallest, np.tile(exact[:k], (3, 1)), rtol=1e-11)


def mixed_networks():
    """A batch whose members take from a few steps to more than the iteration has: saddles, minima, random weights."""
    rng = np.random.default_rng(2)
    M = np.diag([3.0, 3.0, 2.0, 0.0, 0.0, 0.0])
    starts = [
        network.initialise(s, depth=3, width=6, scale=a) for s in ("balanced", "unbalanced") for a in (1e-6, 0.5, 2)
    ]
    runs = descent.descend(np.array(starts), M, 0.02, 2000, keep=1).weights
    return np.concatenate([starts, runs, rng.standard_normal((6, 3, 6, 6)) / 2, np.zeros((1, 3, 6, 6))]), M


@pytest.mark.parametrize("limit", [1, 5, 12, 96])
def test_single_eigenvalues_of_a_mixed_batch(limit, monkeypatch):
    """Whatever the recurrence of single vectors does not reach, the iteration of blocks does."""
    monkeypatch.setattr(hessian, "LANCZOS_LIMIT", limit)
    W, M = mixed_networks()
    exact = np.linalg.eigvalsh(hessian.dense(W, M))
    size = np.abs(exact).max(axis=-1)
    assert np.all(np.abs(hessian.sharpness(W, M) - exact[:, -1]) <= 1e-9 * size)
    assert np.all(np.abs(hessian.sharpness(W, M, smallest=True) - exact[:, 0]) <= 1e-9 * size)


@pytest.mark.parametrize("claim", ["too early", "another eigenvalue", "no vector"])
def test_a_wrong_ritz_pair_is_not_believed(claim, monkeypatch):
    """The residual is taken from the vector itself, so that a fault in the small problem cannot come through."""
    W, M = mixed_networks()
    right, called = hessian._top_pairs, []

    def wrong(alpha, beta, sign):
        theta, y, residual = right(alpha, beta, sign)
        called.append(len(alpha))
        if claim == "no vector":
            return 0 * theta, 0 * y, 0 * residual
        return (1.0 if claim == "too early" else 1.01) * theta, y, 0 * residual

    exact = np.linalg.eigvalsh(hessian.dense(W, M))[:, -1]
    monkeypatch.setattr(hessian, "_top_pairs", wrong)
    assert np.all(np.abs(hessian.sharpness(W, M) - exact) <= 1e-9 * exact)
    assert called


@pytest.mark.parametrize("case", range(6))
def test_the_basis_stays_orthonormal_whatever_is_added(case):
    rng = np.random.default_rng(case)
    basis = np.linalg.qr(rng.standard_normal((2, 40, 30)))[0].mT[:, :25]
    inside = rng.standard_normal((2, 3, 25)) @ basis
    block = [inside, inside + 1e-14, np.zeros_like(inside), np.repeat(inside[:, :1], 3, axis=1)][case % 4]
    block = (
        block
        if case < 4
        else block + [rng.standard_normal(inside.shape), 1e-9 * rng.standard_normal(inside.shape)][case % 2]
    )
    added = hessian._orthonormal_to(basis, block)
    assert np.abs(added @ basis.mT).max() < 1e-13 and np.abs(added @ added.mT - np.eye(3)).max() < 1e-13


def test_dense_and_iteration_agree_on_either_side_of_the_limit(monkeypatch):
    rng = np.random.default_rng(3)
    W, M = rng.standard_normal((2, 3, 4, 4)) / 2, rng.standard_normal((4, 4))
    by_lapack = hessian.sharpness(W, M, k=2)
    monkeypatch.setattr(hessian, "DENSE_LIMIT", 0)
    np.testing.assert_allclose(hessian.sharpness(W, M, k=2), by_lapack, rtol=1e-12)


def test_dtypes_and_batches_of_nothing():
    W, M = np.ones((2, 3, 2, 2), np.float32), np.eye(2)
    assert hessian.dense(W, M).dtype == np.float64 and hessian.dense(W, M.astype(np.float32)).dtype == np.float32
    assert hessian.sharpness(np.zeros((0, 3, 6, 6)), np.eye(6)).shape == (0,)


def test_a_bound_that_cannot_be_reached_is_an_error_or_exact(monkeypatch):
    rng = np.random.default_rng(0)
    W, M = rng.standard_normal((3, 6, 6)), rng.standard_normal((6, 6))
    exact = np.linalg.eigvalsh(hessian.dense(W, M))[-1]
    np.testing.assert_allclose(hessian.sharpness(W, M, tolerance=0.0), exact, rtol=1e-13)
    big, target = rng.standard_normal((4, 28, 28)) / 5, rng.standard_normal((28, 28))
    monkeypatch.setattr(hessian, "LANCZOS_LIMIT", 15)
    monkeypatch.setattr(hessian, "KRYLOV_LIMIT", 15)
    with pytest.raises(RuntimeError, match="relative residual"):
        hessian.sharpness(big, target)


BAD = [
    (lambda: hessian.sharpness(np.zeros((3, 2, 2)), np.eye(2), k=0), "k: got 0"),
    (lambda: hessian.sharpness(np.zeros((3, 2, 2)), np.eye(2), k=True), "k: got True"),
    (lambda: hessian.sharpness(np.zeros((3, 2, 2)), np.eye(2), k=1.5), "k: got 1.5"),
    (lambda: hessian.sharpness(np.zeros((3, 2, 2)), np.eye(2), k=13), "k: got 13"),
    (lambda: hessian.sharpness(np.zeros((3, 2, 2)), np.eye(2), tolerance=np.nan), "tolerance: got"),
    (lambda: hessian.sharpness(np.zeros((3, 2, 2)), np.eye(2), tolerance=-1), "tolerance: got -1"),
    (lambda: hessian.sharpness(np.full((3, 6, 6), 1e120), np.eye(6)), "W: got entries so large"),
    (lambda: hessian.dense(torch.zeros((3, 2, 2)), torch.eye(2)), "W: got a torch tensor"),
    (lambda: hessian.dense(np.zeros((3, 2, 2)), None), "M: got None"),
]


@pytest.mark.parametrize("call, message", BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


SIZES = [1e-200, 1e-170, 1e-100, 1e-30, 1.0, 1e30, 1e100, 1e150, 1e200]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("width", "depth"), [(2, 3), (6, 3)])
def test_sharpness_scales_with_the_hessian(size, width, depth):
    """Layers times kappa and the target times kappa^L multiply the Hessian by kappa^(2L - 2), small or large."""
    rng = np.random.default_rng(width)
    W, M = rng.standard_normal((depth, width, width)) / np.sqrt(width), rng.standard_normal((width, width))
    kappa = size ** (1 / (2 * depth - 2))
    scaled = hessian.sharpness(kappa * W, kappa**depth * M, k=2)
    # the residual bound of 1e-10 bounds eigenvalues to its square over the gap; kappa has a few roundings of its own
    np.testing.assert_allclose(scaled / kappa ** (2 * depth - 2), hessian.sharpness(W, M, k=2), rtol=1e-7)
    lowest = hessian.sharpness(kappa * W, kappa**depth * M, smallest=True)
    np.testing.assert_allclose(lowest / kappa ** (2 * depth - 2), hessian.sharpness(W, M, smallest=True), rtol=1e-7)


def test_sharpness_of_many_small_layers():
    """Twelve layers of 1e-14: entries of about 1e-308, whose squares no float holds."""
    W = np.full((12, 1, 1), 1e-14) * np.eye(3)
    M = network.product(W)
    np.testing.assert_allclose(hessian.sharpness(W, M), 12 * 1e-308, rtol=1e-9)
    assert hessian.sharpness(0 * W, 0 * M) == 0
    with pytest.raises(ValueError, match="W: got"):
        hessian.dense(np.full((3, 1, 1), 1e80), np.eye(1))
    with pytest.raises(ValueError, match="layer_singular_values: got"):
        hessian.spectrum_aligned(np.full((3, 2), 1e80), (1.0,))
