"""The dense Hessian against torch and finite differences; the sharpness against LAPACK, with multiplicities."""

import tracemalloc

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
    (lambda: hessian.spectrum_at_minimum([1.0], depth=2, width=0, scale=1.0), "width: got 0"),
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


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_curvature_is_the_hessian_vector_product(depth):
    """The product inside the iterations, of which a wrong one would go unseen: LAPACK takes over where they fail."""
    rng = np.random.default_rng(depth)
    W, M, V = (
        rng.standard_normal((4, depth, 3, 3)),
        rng.standard_normal((3, 3)),
        rng.standard_normal((4, 2, depth, 3, 3)),
    )
    found = hessian._curvature(W, M)(V)
    for n, k in np.ndindex(4, 2):
        expected = network.hessian_vector_product(W[n], M, V[n, k])
        np.testing.assert_allclose(found[n, k], expected, atol=1e-13 * np.abs(expected).max())


def counted(monkeypatch):
    """The number of calls of the map that `_curvature` gives, as it grows."""
    calls, right = [], hessian._curvature

    def curvature(W, M):
        apply = right(W, M)
        return lambda V: calls.append(V.shape) or apply(V)

    monkeypatch.setattr(hessian, "_curvature", curvature)
    return calls


def steps_of_blocks(H, k, sign, tolerance):
    """Least number of blocks of k vectors whose space has Ritz pairs with that residual, by plain linear algebra."""
    block = np.random.default_rng(0).standard_normal((len(H), k))
    basis = np.linalg.qr(block)[0]
    while True:
        values, vectors = np.linalg.eigh(basis.T @ (sign * H) @ basis)
        X = basis @ vectors[:, -k:]
        if np.linalg.norm(sign * H @ X - X * values[-k:], axis=0).max() <= tolerance * np.abs(values[-k:]).max():
            return basis.shape[1] // k
        block = H @ basis[:, -k:]
        for _ in range(2):
            block = block - basis @ (basis.T @ block)
        basis = np.concatenate([basis, np.linalg.qr(block)[0]], axis=1)


def fails(*_):
    raise AssertionError("another method was asked")


@pytest.mark.parametrize("size, smallest, k", [(1e-200, False, 1), (1.0, True, 1), (1.0, False, 3), (1e200, True, 3)])
def test_each_iteration_arrives_by_itself_and_in_time(size, smallest, k, monkeypatch):
    rng = np.random.default_rng(5)
    W, M = rng.standard_normal((8, 3, 7, 7)) / np.sqrt(7), rng.standard_normal((7, 7))
    H, sign = hessian.dense(W, M), -1.0 if smallest else 1.0
    exact = np.linalg.eigvalsh(sign * H)[:, : -k - 1 : -1]
    calls = counted(monkeypatch)
    for name in ("_block_krylov", "_eigenvalues") if k == 1 else ("_lanczos", "_eigenvalues"):
        monkeypatch.setattr(hessian, name, lambda W, *_: np.empty((0, 1)) if len(W) == 0 else fails())
    kappa = size ** (1 / 4)
    found = sign * hessian.sharpness(kappa * W, kappa**3 * M, k=k, smallest=smallest).reshape(8, k) / kappa**4
    # the residual bound is 1e-10, the error of a Ritz value its square over the gap; kappa has a few roundings
    np.testing.assert_allclose(found, exact, rtol=1e-11)
    # as many steps as the slowest network needs, a tenth for another start and another stop, looks and a last check
    least = max(steps_of_blocks(h, k, sign, 1e-10) for h in H)
    assert least <= len(calls) + 2 and len(calls) <= 1.1 * least + 2


def operator_of(monkeypatch, H, disturb=None):
    """Let the operator be the symmetric matrices H (n, s, s); of images of vectors met before, what `disturb` makes."""
    seen = []

    def curvature(W, M):
        def apply(V):
            rows = V.reshape(len(H), -1, H.shape[-1])
            image, old = rows @ H, np.concatenate([np.empty((len(H), 0, H.shape[-1])), *seen], axis=1)
            if disturb and np.linalg.norm(rows[0, 0] @ old[0].T) > 0.9:
                image = disturb(rows, image)
            else:
                seen.append(rows.copy())
            return image.reshape(V.shape)

        return apply

    monkeypatch.setattr(hessian, "_curvature", curvature)
    monkeypatch.setattr(hessian, "_eigenvalues", lambda *_: "LAPACK")
    return seen


def symmetric(values, seed):
    """A matrix with these eigenvalues."""
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    return Q @ np.diag(values) @ Q.T


@pytest.mark.parametrize("fault", ["of one network", "of one vector", "in all entries", None])
def test_pairs_of_blocks_whose_image_is_not_their_own_are_not_believed(fault, monkeypatch):
    """An error of 3e-10 of the largest eigenvalue where 1e-10 is asked for, seen only in the image of the result."""
    values = np.concatenate([[1.0, 0.8], np.linspace(-1, 0.3, 106)])
    H = np.stack([symmetric(values, seed) for seed in (0, 1)])

    def disturb(rows, image):
        image, size = image.copy(), 3e-10
        if fault == "of one network":
            image[1] += size * rows[1]  # each vector in its own direction
        elif fault == "of one vector":
            image[:, 1] += size * rows[:, 1]
        elif fault:
            image[:, 0] += size / np.sqrt(108)
        return image

    operator_of(monkeypatch, H, disturb)
    found = hessian._block_krylov(np.zeros((2, 3, 6, 6)), np.eye(6), 2, 1.0, 1e-10)
    if fault:
        assert isinstance(found, str)  # the matrix is small: LAPACK has the last word
    else:
        np.testing.assert_allclose(found, [values[:2]] * 2, rtol=1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_residual_is_judged_beside_the_largest_of_the_values_asked_for(sign, monkeypatch):
    """The third value is 1e-9 of the first; beside itself its residual would be asked below the rounding of a product."""
    values = sign * np.concatenate([[1.0, 0.9, 1e-9], np.linspace(-1, -0.1, 105)])
    operator_of(monkeypatch, np.stack([symmetric(values, seed) for seed in (0, 1)]))
    found = hessian._block_krylov(np.zeros((2, 3, 6, 6)), np.eye(6), 3, sign, 1e-10)
    np.testing.assert_allclose(found, [sign * values[:3]] * 2, rtol=0, atol=1e-14)


def numbered(monkeypatch, H, disturb=None):
    """As `operator_of`, for the recurrence of single vectors; network i is the one whose entries are i. Returns the rows asked."""
    asked = []

    def curvature(W, M):
        which = W[:, 0, 0, 0].astype(int)
        seen = []

        def apply(V):
            rows = V.reshape(len(which), -1)
            image = np.vecdot(H[which], rows[:, None])
            again = seen and np.linalg.norm(np.stack([old[0] for old in seen]) @ rows[0]) > 0.9
            if again and disturb:
                image = disturb(which, rows, image)
            asked.append(len(which))
            seen.append(rows.copy())
            return image.reshape(V.shape)

        return apply

    monkeypatch.setattr(hessian, "_curvature", curvature)
    return asked


FAST = np.concatenate([[1.0], np.linspace(-0.1, 0.1, 107)])
SLOW = np.linspace(-1.0, 1.0, 108)


def marked(n):
    """Networks of 108 parameters that are known by their number."""
    return np.arange(float(n))[:, None, None, None] * np.ones((1, 3, 6, 6))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("slow", [1, 2])
def test_networks_that_are_done_leave_the_batch(slow, sign, monkeypatch):
    """Where most arrive early, these are asked no further; each is found by the recurrence itself."""
    H = np.stack([sign * symmetric(SLOW if i < slow else FAST, i) for i in range(8)])
    asked = numbered(monkeypatch, H)
    found = hessian._lanczos(marked(8), np.eye(6), 1, sign, 1e-10)
    np.testing.assert_allclose(found, np.ones((8, 1)), rtol=1e-13)  # the square of the residual bound, and rounding
    early, late = (steps_of_blocks(H[i], 1, sign, 1e-10) for i in (7, 0))
    assert early < late / 2
    # a look is at most eight steps after the step at which it would have been due, and each result is looked at once
    assert (8 - slow) * (early + 1) + slow * (late - 1) <= sum(asked) <= (8 - slow) * (early + 10) + slow * (late + 10)


@pytest.mark.parametrize("size", [0.8e-10, 1.5e-10])
def test_single_vectors_are_judged_each_by_its_own_residual(size, monkeypatch):
    """Of nine networks one has an image of its result that is off by a little less, or more, than was asked for."""
    H = np.stack([symmetric(FAST, i) for i in range(9)])
    numbered(monkeypatch, H, lambda which, rows, image: image + size * (which == 4)[:, None] * rows)
    found = hessian._lanczos(marked(9), np.eye(6), 1, 1.0, 1e-10)[:, 0]
    assert np.isnan(found).tolist() == [size > 1e-10 and i == 4 for i in range(9)]


def test_blocks_of_networks_of_two_sizes(monkeypatch):
    """Each network's residual beside its own largest value, in as many blocks as the slower of the two needs."""
    easy = np.concatenate([[1.0, 0.9], np.linspace(-0.1, 0.1, 106)])
    H = np.stack([symmetric(easy, 0), 1e-6 * symmetric(SLOW, 1)])
    seen = operator_of(monkeypatch, H)
    found = hessian._block_krylov(np.zeros((2, 3, 6, 6)), np.eye(6), 2, 1.0, 1e-10)
    # the square of the residual bound beside a gap of a fiftieth: the rounding of a product is more
    np.testing.assert_allclose(found, [easy[:2], 1e-6 * SLOW[:-3:-1]], rtol=1e-13)
    least = max(steps_of_blocks(h / np.abs(h).max(), 2, 1.0, 1e-10) for h in H)
    assert least - 1 <= len(seen) <= 1.1 * least + 3


def test_room_for_the_small_network_of_a_reduction(monkeypatch):
    """The dense matrix of L layers of width k + 2."""
    numbers, right = [], hessian._in_chunks
    monkeypatch.setattr(hessian, "_in_chunks", lambda solve, n, *rest: numbers.append(n) or right(solve, n, *rest))
    for depth, rank in ((3, 1), (4, 2)):
        M = np.diag([2.0] * rank + [0.0] * (6 - rank))
        hessian.spectrum_reduced(np.stack([np.eye(6)] * depth), M)
    assert numbers == [(3 * 3**2) ** 2, (4 * 4**2) ** 2]


def test_memory_of_a_batch_of_dense_matrices():
    """Beside the matrices and the three factors of each entry a few slabs, whatever the length of the batch."""
    W = np.random.default_rng(0).standard_normal((200, 2, 4, 4))
    tracemalloc.start()
    H = hessian.dense(W, np.eye(4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    factors = 200 * (2 * 4) ** 2 * 8
    assert peak <= H.nbytes + 8 * factors + 4 * hessian.SCRATCH_BYTES and factors < H.nbytes / 10


def test_reduction_of_layers_whose_squares_underflow():
    """Random layers are not of the form at any size; nor are they where one entry is zero."""
    W = np.random.default_rng(0).standard_normal((2, 5, 5))
    W[:, 0, 0] = 0
    for size in (1.0, 1e-170):
        with pytest.raises(ValueError, match="^W: got layers that are .* of the largest away"):
            hessian.spectrum_reduced(size * W, np.diag([1.0, 0, 0, 0, 0]))


def test_reduction_that_leaves_one_direction():
    for other in (0.7, -0.4):
        W, M = np.stack([np.diag([1.3, other])] * 3), np.diag([2.0, 0.0])
        values, times = hessian.spectrum_reduced(W, M)
        np.testing.assert_allclose(np.repeat(values, times), np.linalg.eigvalsh(hessian.dense(W, M))[::-1], atol=1e-13)


def test_how_far_one_singular_value_beside_the_mode_is_from_the_form():
    """diag(1, e, 0, 0): nothing is nearer than zero, so the distance is e, of a largest layer of norm one."""
    for e in (1e-2, 1e-3):
        W, M = np.stack([np.diag([1.0, e, 0, 0])] * 2), np.diag([3.0, 0, 0, 0])
        assert hessian._reduce(W[None], M, 1.0)[2] == pytest.approx([e], rel=1e-12, abs=0)


def test_deviations_are_relative_to_the_norm_of_the_largest_layer():
    """Two modes that a layer mixes: its norm is that of [[3, 1], [0, 2]], not a sum of entries."""
    inner, e = np.array([[3.0, 1.0], [0.0, 2.0]]), 1e-3
    W = np.zeros((2, 5, 5))
    W[:, :2, :2], W[:, 2, 2], M = inner, e, np.diag([2.0, 1.0, 0, 0, 0])
    # e beside two zeros is farther from c (1, 1, 1) than from zero
    found = hessian._reduce(W[None], M, 1.0)[2]
    assert found == pytest.approx([e / np.linalg.norm(inner, 2)], rel=1e-12, abs=0)


def test_of_two_forms_that_both_fail_the_nearer_one_is_told():
    """Layers near 1 beside the mode with a target that rotates: 1e-4 off the common form, and farther off the other."""
    rng = np.random.default_rng(0)
    Q = [np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(3)]
    for scale in (1e-3, 1e3):
        M = scale * np.outer(Q[2][:, 0], Q[0][:, 0])
        W = np.stack([Q[i + 1] @ np.diag([2.0, 1, 1, 1, 1, 1]) @ Q[i].T for i in range(2)])
        W[0] += 1e-4 * np.linalg.qr(rng.standard_normal((6, 6)))[0]
        deviation = hessian._reduce(W[None], M, 1e-12)[2][0]
        assert 1e-5 < deviation < 1e-3
        with pytest.raises(ValueError, match=f"^W: got layers that are {deviation:.1e} of the largest away"):
            hessian.spectrum_reduced(W, M)


def test_of_two_forms_that_both_fail_the_one_that_is_nearer_to_all_networks_is_told():
    """Multiples of 1 fit the common form, rotated layers the other; the target's two vectors are 1e-3 apart."""
    rng = np.random.default_rng(3)
    Q = [np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(3)]
    Q[2][:, 0] = Q[0][:, 0] + 1e-3 * Q[0][:, 1]
    Q[2] = np.linalg.qr(Q[2])[0]
    rotated = [Q[i + 1] @ np.diag([2.0, 1, 1, 1, 1, 1]) @ Q[i].T for i in range(2)]
    W = np.stack([[np.eye(6)] * 2, np.array(rotated) + 1e-8 * rng.standard_normal((2, 6, 6))])
    with pytest.raises(ValueError, match="^W: got layers that are .*e-03 of the largest away"):
        hessian.spectrum_reduced(W, 3.0 * np.outer(Q[2][:, 0], Q[0][:, 0]))


def test_which_method_is_asked_and_for_how_many_networks_at_once(monkeypatch):
    """LAPACK up to 32 parameters, 128 for one or two networks, or 4 k; room for the matrix, 24 vectors, or 12 k."""
    asked = []

    def in_chunks(solve, numbers, W, M, k, *options):
        asked.append((solve.__name__, numbers))
        return np.zeros((len(W), k))

    right = hessian._in_chunks
    monkeypatch.setattr(hessian, "_in_chunks", in_chunks)
    for n, size, k, expected in (
        (3, 32, 1, ("_eigenvalues", 32**2)),
        (3, 33, 1, ("_lanczos", 24 * 33)),
        (2, 128, 1, ("_eigenvalues", 128**2)),
        (2, 129, 1, ("_lanczos", 24 * 129)),
        (1, 129, 2, ("_block_krylov", 24 * 129)),
        (1, 129, 3, ("_block_krylov", 36 * 129)),
        (3, 40, 10, ("_eigenvalues", 40**2)),
        (3, 41, 10, ("_block_krylov", 120 * 41)),
        (2, 140, 35, ("_eigenvalues", 140**2)),
    ):
        asked.clear()
        hessian.sharpness(np.zeros((n, size, 1, 1)), np.eye(1), k=k)
        assert asked[0] == expected
    assert asked[0][0] != "_lanczos" and len(asked) == 1
    lengths = []
    solve = lambda W, M, k, sign: lengths.append(len(W)) or W[:, :k] * sign
    monkeypatch.setattr(hessian, "KRYLOV_BYTES", 80 * 8 + 79)
    W = np.arange(20.0).reshape(10, 2)
    assert np.array_equal(right(solve, 20, W, None, 1, 3.0), 3 * W[:, :1]) and lengths == [4, 4, 2]
    lengths.clear()
    assert np.array_equal(right(solve, 81, W[:2], None, 2, 1.0), W[:2]) and lengths == [1, 1]


@pytest.mark.parametrize("slab", [0, 1, 700, 5000])
def test_the_size_of_slabs_changes_no_bit_of_the_dense_matrix(slab, monkeypatch):
    rng = np.random.default_rng(0)
    W, M = rng.standard_normal((3, 2, 4, 4)), rng.standard_normal((4, 4))
    whole = hessian.dense(W, M)
    monkeypatch.setattr(hessian, "SCRATCH_BYTES", slab)
    assert np.array_equal(hessian.dense(W, M), whole)


def test_the_small_problem_of_lanczos(monkeypatch):
    rng = np.random.default_rng(1)
    alpha, beta = rng.standard_normal((3, 6)), rng.uniform(0.5, 1, (3, 6))
    for sign in (1.0, -1.0):
        theta, y, residual = hessian._top_pairs(alpha, beta, sign)
        for n in range(3):
            T = np.diag(alpha[n]) + np.diag(beta[n, :-1], 1) + np.diag(beta[n, :-1], -1)
            values, vectors = np.linalg.eigh(sign * T)
            assert theta[n] == pytest.approx(values[-1], rel=1e-13, abs=0)
            np.testing.assert_allclose(np.abs(y[n]), np.abs(vectors[:, -1]), atol=1e-13)
            expected = beta[n, -1] * abs(vectors[-1, -1]) / abs(values[-1])
            assert residual[n] == pytest.approx(expected, rel=1e-10, abs=0)
    monkeypatch.setattr(hessian.lapack, "dstemr", lambda *_: (0, np.zeros(6), np.eye(6), 1))  # it reports a failure
    theta, y, residual = hessian._top_pairs(alpha, beta, 1.0)
    assert np.isnan(theta).all() and np.isnan(y).all() and np.all(residual == np.inf)


def test_units_by_hand():
    """Powers of ten beyond 1e100 and 1e-100, of which squares or products of squares leave the range."""
    sizes = [0.0, 1e-150, 1e-100, 0.3, 1.0, 7e99, 1e100, 1.5e100]
    image = np.array(sizes)[:, None] * np.array([0.0, -1.0, 0.5])
    assert hessian._unit(image).ravel().tolist() == [1.0, 1e-150, 1.0, 1.0, 1.0, 1.0, 1.0, 1.5e100]
    assert hessian._divide(image.copy(), hessian._unit(image))[-1].tolist() == [0.0, -1.0, 0.5]
    for bad in (np.inf, np.nan):
        with pytest.raises(ValueError, match="^W: got entries so large that the Hessian overflows"):
            hessian._unit(np.array([[1.0, 2.0], [1.0, bad]]))
    assert hessian._relative(np.array([0.0, 3.0]), np.array([0.0, -2.0])).tolist() == [0.0, 1.5]


def test_as_many_eigenvalues_as_parameters_and_no_tensor():
    W, M = np.random.default_rng(0).standard_normal((3, 2, 2)), np.eye(2)
    exact = np.linalg.eigvalsh(hessian.dense(W, M))
    np.testing.assert_allclose(hessian.sharpness(W, M, k=12), exact[::-1], atol=1e-13)
    np.testing.assert_allclose(hessian.sharpness(W, M, k=12, smallest=True), exact, atol=1e-13)
    with pytest.raises(ValueError, match="^W: got a torch tensor"):
        hessian.sharpness(torch.zeros((3, 2, 2)), torch.eye(2))
    with pytest.raises(ValueError, match="^W: got"):  # infinity times zero, not only infinity
        hessian.dense(1e120 * np.stack([np.eye(2)] * 3), np.eye(2))


@pytest.mark.parametrize("k", [1, 3])
def test_each_network_of_a_batch_is_judged_beside_itself(k, monkeypatch):
    """Hessians of sizes 1, 1e-8 and 1e-16 in one batch: a bound beside the largest would leave the others unsolved."""
    monkeypatch.setattr(hessian, "_eigenvalues", fails)
    rng = np.random.default_rng(1)
    W = np.array([1, 1e-2, 1e-4])[:, None, None, None] * rng.standard_normal((3, 3, 6, 6))
    H, M = hessian.dense(W, np.zeros((6, 6))), np.zeros((6, 6))
    for smallest in (False, True):
        exact = np.linalg.eigvalsh(H)[:, :k] if smallest else np.linalg.eigvalsh(H)[:, : -k - 1 : -1]
        found = hessian.sharpness(W, M, k=k, smallest=smallest).reshape(3, k)
        np.testing.assert_allclose(found, exact, rtol=1e-10)  # the square of the residual bound over the gap


def test_how_far_a_layer_is_from_the_form_of_the_reduction():
    """Singular values c (1 + e), c (1 - e) and c beside the mode: 2 sqrt 2 c e to first order, of a largest layer of norm 3."""
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    c, e = 1e-2, 1e-3
    first, second = np.diag([1.0, c, c, c]), np.diag([1.0, c * (1 + e), c * (1 - e), c])
    W, M = 3.0 * np.stack([Q @ first @ Q.T, Q @ second @ Q.T]), Q @ np.diag([9.0, 0, 0, 0]) @ Q.T
    small, target, deviation = hessian._reduce(W[None], M, 1.0)
    assert deviation == pytest.approx([2 * np.sqrt(2) * c * e], rel=2 * e, abs=0)
    np.testing.assert_allclose(np.abs(small[0, 0]), np.diag([3.0, 3 * c, 3 * c]), atol=1e-14)
    assert np.abs(target[0, 0]) == pytest.approx(9.0) and target.shape == (3, 3)
    with pytest.raises(ValueError, match=r"^W: got layers that are 2.8e-05 of the largest away .* at most 1.0e-06"):
        hessian.spectrum_reduced(W, M, tolerance=1e-6)


def test_an_aligned_network_of_width_one_may_overflow_too():
    with pytest.raises(ValueError, match="^layer_singular_values: got"):
        hessian.spectrum_aligned(np.full((3, 1), 1e80), (1.0,))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: hessian.dense(np.ones((100_000, 1, 1)), np.eye(1)), "^W: got an array of shape"),
        (lambda: hessian.spectrum_aligned(np.ones((1001, 1)), (1.0,)), "^layer_singular_values: got 1001 layers"),
        (lambda: hessian.sharpness(np.full((2, 1, 1), np.longdouble("1e400")), np.eye(1)), "^W: got"),
    ],
)
def test_what_has_no_room_is_refused_at_once(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_aligned_spectrum_of_dtypes_that_lapack_has_not():
    plain = hessian.spectrum_aligned(np.ones((3, 2)), (2.0, 1.0))
    for dtype in (np.float16, np.longdouble):
        np.testing.assert_array_equal(hessian.spectrum_aligned(np.ones((3, 2), dtype), (2.0, 1.0)), plain)


def test_the_largest_sizes_that_are_tried(monkeypatch):
    monkeypatch.setattr(hessian, "_dense", lambda W, M: np.zeros(1))
    for shape in ((2**16, 1, 1), (2**14, 2, 2), (4, 2**15, 1, 1)):  # 2^32 entries
        assert hessian.dense(np.ones(shape), np.eye(shape[-1])) == 0
    for shape in ((2**16 + 1, 1, 1), (2**14 + 1, 2, 2), (5, 2**15, 1, 1)):
        with pytest.raises(ValueError, match="^W: got an array of shape"):
            hessian.dense(np.ones(shape), np.eye(shape[-1]))
    monkeypatch.setattr(hessian, "_spectrum_aligned", lambda s, target: np.zeros(1))
    assert hessian.spectrum_aligned(np.ones((1000, 2)), (1.0,)) == 0
    with pytest.raises(ValueError, match="^layer_singular_values: got 1001 layers, needs at most 1000"):
        hessian.spectrum_aligned(np.ones((1001, 2)), (1.0,))


def test_what_is_beyond_float64_is_named():
    wide = np.longdouble("1e4000")  # infinite, and named too, where a long double has 64 bits
    W, M = np.array([np.eye(3)] * 2), np.eye(3)
    with pytest.raises(ValueError, match="^W: got"):
        hessian.spectrum_reduced(W * wide, M)
    with pytest.raises(ValueError, match="^M: got"):
        hessian.spectrum_reduced(W, M * wide)
    with pytest.raises(ValueError, match="^layer_singular_values: got"):
        hessian.spectrum_aligned(np.ones((2, 3)) * wide, np.ones(3))
