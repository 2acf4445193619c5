"""Loss, gradient and Hessian-vector product against finite differences, torch autograd, and the symmetries of the loss."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eoslib import network

COMMON = settings(derandomize=True, deadline=None, max_examples=40)
shapes = given(depth=st.integers(1, 6), width=st.integers(1, 8), seed=st.integers(0, 2**16))


def sample(depth, width, seed, batch=()):
    """A network whose end-to-end matrix is of order one, and a target."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((*batch, depth, width, width)) / np.sqrt(width)
    return W, rng.standard_normal((width, width)), rng


@COMMON
@shapes
def test_gradient_is_that_of_torch_autograd(depth, width, seed):
    W, M, _ = sample(depth, width, seed)
    leaf = torch.tensor(W, requires_grad=True)
    end_to_end = torch.linalg.multi_dot([leaf[i] for i in reversed(range(depth))]) if depth > 1 else leaf[0]
    (((end_to_end - torch.tensor(M)) ** 2).sum() / 2).backward()
    # at most 3 L products of matrices of norm about 2: rounding near 1e-14 times the size of the gradient
    scale = 1 + np.abs(leaf.grad.numpy()).max()
    np.testing.assert_allclose(network.gradient(W, M), leaf.grad.numpy(), rtol=0, atol=1e-13 * scale)


@COMMON
@shapes
def test_gradient_is_the_central_difference_of_the_loss(depth, width, seed):
    W, M, rng = sample(depth, width, seed)
    V = rng.standard_normal(W.shape)
    V /= np.linalg.norm(V)
    step = 1e-5
    slope = (network.loss(W + step * V, M) - network.loss(W - step * V, M)) / (2 * step)
    # rounding 1e-16 f / step = 1e-11 f, truncation step^2 times a third derivative of order 100 f
    np.testing.assert_allclose((network.gradient(W, M) * V).sum(), slope, rtol=0, atol=1e-7 * (1 + network.loss(W, M)))


@COMMON
@shapes
def test_hessian_vector_product_is_the_derivative_of_the_gradient(depth, width, seed):
    W, M, rng = sample(depth, width, seed)
    V = rng.standard_normal(W.shape)
    V /= np.linalg.norm(V)
    step = 1e-5
    finite = (network.gradient(W + step * V, M) - network.gradient(W - step * V, M)) / (2 * step)
    scale = 1 + np.abs(network.gradient(W, M)).max()
    np.testing.assert_allclose(network.hessian_vector_product(W, M, V), finite, rtol=0, atol=1e-7 * scale)


@COMMON
@shapes
def test_rotations_of_the_target_rotate_the_gradient(depth, width, seed):
    W, M, rng = sample(depth, width, seed)
    Q = [np.linalg.qr(rng.standard_normal((width, width)))[0] for _ in range(depth + 1)]
    turned = np.stack([Q[i + 1] @ W[i] @ Q[i].T for i in range(depth)])
    target = Q[-1] @ M @ Q[0].T
    G = network.gradient(W, M)
    expected = np.stack([Q[i + 1] @ G[i] @ Q[i].T for i in range(depth)])
    np.testing.assert_allclose(network.loss(turned, target), network.loss(W, M), rtol=1e-12)
    np.testing.assert_allclose(network.gradient(turned, target), expected, atol=1e-12 * (1 + np.abs(G).max()))


@COMMON
@shapes
def test_moving_a_factor_between_layers_leaves_the_loss(depth, width, seed):
    W, M, rng = sample(depth, width, seed)
    factors = np.exp(rng.uniform(-1, 1, depth))
    factors /= np.prod(factors) ** (1 / depth)
    moved = factors[:, None, None] * W
    np.testing.assert_allclose(network.loss(moved, M), network.loss(W, M), rtol=1e-12)
    # the gradient of each layer scales inversely, so <W_l, grad_l> is the same for every layer and every factor
    inner = (moved * network.gradient(moved, M)).sum((-2, -1))
    np.testing.assert_allclose(
        inner, (W * network.gradient(W, M)).sum((-2, -1)), atol=1e-11 * (1 + np.abs(inner).max())
    )


@COMMON
@shapes
def test_a_batch_is_its_members_bit_for_bit(depth, width, seed):
    W, M, rng = sample(depth, width, seed, batch=(2, 3))
    V = rng.standard_normal(W.shape)
    for index in np.ndindex(2, 3):
        assert np.array_equal(network.product(W)[index], network.product(W[index]))
        assert np.array_equal(network.gradient(W, M)[index], network.gradient(W[index], M))
        # the sum of squares may be taken in another order: d^2 roundings
        np.testing.assert_allclose(network.loss(W, M)[index], network.loss(W[index], M), rtol=1e-14)
        assert np.array_equal(
            network.hessian_vector_product(W, M, V)[index], network.hessian_vector_product(W[index], M, V[index])
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_floating_dtypes_are_kept(dtype):
    W, M, rng = sample(3, 4, 0)
    W, M = W.astype(dtype), M.astype(dtype)
    assert network.product(W).dtype == network.gradient(W, M).dtype == network.loss(W, M).dtype == dtype
    assert network.hessian_vector_product(W, M, W).dtype == dtype


@pytest.mark.skipif(np.finfo(np.longdouble).eps == np.finfo(float).eps, reason="long double is double here")
def test_longdouble_really_computes_with_more_digits():
    """Three thirds and two products round five times, by eps / 2 each: so much is all that extended or quad may miss."""
    third = np.full((3, 1, 1), np.longdouble(1) / 3)
    with mpmath.workdps(50):
        exact = mpmath.mpf(1) / 27
        error = abs(mpmath.mpf(np.format_float_positional(network.product(third)[0, 0])) - exact)
        bound = mpmath.mpf(np.format_float_positional(np.finfo(np.longdouble).eps)) * 5 / 2 * exact
        nearest = abs(mpmath.mpf(float(exact)) - exact)  # no float64 comes closer
        assert error < bound * (1 + mpmath.mpf(10) ** -15) and error < nearest


def test_mpmath_numbers_keep_their_digits():
    with mpmath.workdps(50):
        W = np.empty((2, 1, 1), object)
        W[:] = mpmath.mpf(1) / 3
        M = np.array([[mpmath.mpf(1)]], dtype=object)
        assert abs(network.gradient(W, M)[0, 0, 0] + mpmath.mpf(8) / 27) < mpmath.mpf(10) ** -49


def test_torch_tensors_pass_through():
    W, M, rng = sample(3, 4, 1)
    ours = network.gradient(torch.tensor(W), torch.tensor(M))
    assert isinstance(ours, torch.Tensor)
    np.testing.assert_allclose(ours.numpy(), network.gradient(W, M), atol=1e-14)
    several = np.stack([W, 2 * W])
    np.testing.assert_allclose(
        network.gradient(torch.tensor(several), torch.tensor(M)).numpy(), network.gradient(several, M), rtol=1e-12
    )


def test_target_has_the_asked_singular_values_and_vectors():
    t = network.target((5, 3, 3), 6, rng=np.random.default_rng(3))
    np.testing.assert_allclose(np.linalg.svd(t.matrix, compute_uv=False), [5, 3, 3, 0, 0, 0], atol=1e-14)
    np.testing.assert_allclose((t.left[:, :3] * [5, 3, 3]) @ t.right[:, :3].T, t.matrix, atol=1e-14)
    assert not np.allclose(t.matrix, t.matrix.T)
    symmetric = network.target((5, 3), 6, rng=np.random.default_rng(3), symmetric=True)
    np.testing.assert_allclose(symmetric.matrix, symmetric.matrix.T, atol=1e-15)
    assert np.array_equal(network.target((2, 1), 3, diagonal=True).matrix, np.diag([2.0, 1, 0]))


def test_starts():
    rng = np.random.default_rng(0)
    for name in network.STARTS:
        W = network.initialise(name, depth=4, width=3, scale=0.1, rng=rng)
        assert W.shape == (4, 3, 3) and (np.all(W[-1] == 0) == (name != "balanced"))
    W = network.initialise("orthogonal", depth=3, width=5, scale=0.1, rng=rng)
    np.testing.assert_allclose(W[0] @ W[0].T, 0.01 * np.eye(5), atol=1e-16)
    assert network.initialise("balanced", depth=2, width=2, scale=0.1, dtype=np.float32).dtype == np.float32
    gaussian = network.initialise("gaussian", depth=2, width=200, scale=0.1, rng=rng)[0]
    assert abs(gaussian.std() / 0.1 - 1) < 0.02  # 40,000 entries: the standard error of their deviation is 0.4 %


EYE = np.eye(2)
BAD = [
    (lambda: network.loss(np.zeros((2, 3)), EYE), "W: got shape"),
    (lambda: network.loss(np.zeros((2, 3, 2)), EYE), "W: got shape"),
    (lambda: network.loss(np.zeros((2, 2, 2)), np.eye(3)), "M: got shape"),
    (lambda: network.loss(np.full((2, 2, 2), np.nan), EYE), "W: got entries that are not finite"),
    (lambda: network.gradient(np.zeros((2, 2, 2)), np.full((2, 2), np.inf)), "M: got entries that are not finite"),
    (lambda: network.gradient(torch.full((2, 2, 2), torch.nan), torch.eye(2)), "W: got entries"),
    (lambda: network.hessian_vector_product(np.zeros((2, 2, 2)), EYE, np.zeros((1, 2, 2))), "V: got shape"),
    (lambda: network.product(np.array([["a"]])), "W: got"),
    (lambda: network.loss(np.zeros((2, 2, 2)), None), "M: got None"),
    (lambda: network.hessian_vector_product(np.zeros((2, 2, 2)), EYE, None), "V: got None"),
    (lambda: network.loss([[1, 2], [3]], EYE), "W: got"),
    (lambda: network.loss(np.zeros((2, 2, 2)), torch.eye(2)), "M: got Tensor"),
    (lambda: network.loss(torch.zeros((2, 2, 2), dtype=torch.int64), torch.eye(2)), "W: got a tensor of torch.int64"),
    (lambda: network.loss(np.full((2, 1, 1), mpmath.nan, dtype=object), np.eye(1)), "W: got objects"),
    (lambda: network.loss(np.zeros((2, 2, 2), complex), EYE), "W: got"),
    (lambda: network.initialise(np.eye(2), depth=2, width=2, scale=1), "start: got"),
    (lambda: network.initialise("balanced", depth=True, width=2, scale=1), "depth: got True"),
    (lambda: network.initialise("balanced", depth=2, width=2, scale=[0.1, 0.2]), "scale: got"),
    (lambda: network.initialise("balanced", depth=2, width=2, scale=1, dtype=int), "dtype: got"),
    (lambda: network.target((1, 2), 3, diagonal=True), "singular_values: got"),
    (lambda: network.target((2, 1), 1, diagonal=True), "at most width = 1"),
    (lambda: network.target((2, -1), 3, diagonal=True), "singular_values: got"),
    (lambda: network.target((2, 1), 3), "rng: got None"),
    (lambda: network.target((2, 1), 3, rng=0), "rng: got 0"),
    (lambda: network.initialise("zero", depth=2, width=2, scale=1), "start: got 'zero'"),
    (lambda: network.initialise("balanced", depth=0, width=2, scale=1), "depth: got 0"),
    (lambda: network.initialise("balanced", depth=-3, width=2, scale=1), "depth: got -3"),
    (lambda: network.initialise("balanced", depth=2.5, width=2, scale=1), "depth: got 2.5"),
    (lambda: network.initialise("balanced", depth=2, width=0, scale=1), "width: got 0"),
    (lambda: network.initialise("balanced", depth=2, width=2, scale=0), "scale: got 0"),
    (lambda: network.initialise("gaussian", depth=2, width=2, scale=1), "rng: got None"),
    (lambda: network.initialise("orthogonal", depth=2, width=2, scale=1), "rng: got None"),
]


@pytest.mark.parametrize("call, message", BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(") if message[0] != "a" else message):
        call()


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1e-50, np.float32), (1e60, np.float32), (1e-320, np.float16), (7e4, np.float16)]
)
def test_a_scale_that_the_dtype_does_not_hold_is_refused(scale, dtype):
    for start in ("balanced", "unbalanced", "orthogonal", "gaussian"):
        with pytest.raises(ValueError, match="scale: got .* which is not a positive finite number in float"):
            network.initialise(start, depth=2, width=2, scale=scale, dtype=dtype, rng=np.random.default_rng(0))
    assert network.initialise("balanced", depth=2, width=1, scale=1e-44, dtype=np.float32).max() > 0
    with np.errstate(under="raise"):  # whatever the caller asks for: small entries may vanish
        W = network.initialise("gaussian", depth=2, width=9, scale=1e-44, dtype=np.float32, rng=np.random.default_rng(0))
    assert W.any()


def test_overflow_is_named_and_not_warned_of():
    W, M = np.full((3, 1, 1), 1e80), np.eye(1)
    for call in (network.loss, network.gradient):
        with pytest.raises(ValueError, match="W, M: got .* needs numbers whose result is within the floating range"):
            call(np.full((3, 1, 1), 1e120), M)
    assert np.isfinite(network.product(W)).all()
    with pytest.raises(ValueError, match="W: got"):
        network.product(np.full((5, 1, 1), 1e80))
    with pytest.raises(ValueError, match="W: got"):
        network.product(torch.full((5, 1, 1), 1e80, dtype=torch.float64))


def test_masks_are_refused():
    hidden = np.ma.masked_array(np.ones((2, 1, 1)), mask=[[[True]], [[False]]])
    with pytest.raises(ValueError, match="W: got a masked array"):
        network.product(hidden)


def test_two_layers_by_hand():
    """W_1 = [[1, 2], [0, 1]], W_2 = [[1, 0], [3, 1]], product [[1, 2], [3, 7]], residual [[0, 2], [3, 6]] from [[1, 0], [0, 1]]."""
    W = np.array([[[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [3.0, 1.0]]])
    R = np.array([[0.0, 2.0], [3.0, 6.0]])
    assert network.product(W).tolist() == [[1.0, 2.0], [3.0, 7.0]] and network.loss(W, EYE) == 24.5
    # W_2^T R and R W_1^T
    assert network.gradient(W, EYE).tolist() == [[[9.0, 20.0], [3.0, 6.0]], [[4.0, 2.0], [15.0, 6.0]]]
    V = np.zeros_like(W)
    V[1, 0, 1] = 1.0  # moves W_2; then dP = V_2 W_1 = [[0, 1], [0, 0]]
    found = network.hessian_vector_product(W, EYE, V)
    assert np.array_equal(found[0], V[1].T @ R + W[1].T @ [[0, 1], [0, 0]]) and np.array_equal(
        found[1], [[2, 1], [0, 0]]
    )
    assert network.product(W[:1]).tolist() == W[0].tolist() and network.gradient(W[:1], EYE).tolist() == [
        [[0.0, 2.0], [0.0, 0.0]]
    ]


def test_starts_by_hand():
    for name, last in (("balanced", [[0.5, 0.0], [0.0, 0.5]]), ("unbalanced", [[0.0, 0.0], [0.0, 0.0]])):
        W = network.initialise(name, depth=3, width=2, scale=0.5)
        assert W[:2].tolist() == [[[0.5, 0.0], [0.0, 0.5]]] * 2 and W[2].tolist() == last and W.dtype == np.float64
    one = network.initialise("unbalanced", depth=1, width=1, scale=0.5)
    assert one.tolist() == [[[0.0]]] and network.initialise("balanced", depth=1, width=1, scale=0.5).tolist() == [
        [[0.5]]
    ]
    draws = np.random.default_rng(5).standard_normal((2, 3, 3))
    gaussian = network.initialise("gaussian", depth=2, width=3, scale=0.1, rng=np.random.default_rng(5))
    assert np.array_equal(gaussian[0], 0.1 * draws[0])  # a layer after the other, in the generator's order
    turned = network.initialise("orthogonal", depth=2, width=3, scale=2.0, rng=np.random.default_rng(5))[0] / 2
    np.testing.assert_allclose(
        np.triu(turned.T @ draws[0]), turned.T @ draws[0], atol=1e-14
    )  # the Q of a QR decomposition
    assert np.all(np.diag(turned.T @ draws[0]) > 0)  # with the signs that make it Haar distributed
    W = network.initialise("balanced", depth=2, width=2, scale=0.1)
    W[0, 0, 0] = 7.0  # the caller's own, one layer at a time
    assert W[1, 0, 0] == 0.1


def test_targets_by_hand():
    t = network.target(np.array([3.0, 1.0]), 3, diagonal=True)
    assert (
        t.matrix.tolist() == [[3, 0, 0], [0, 1, 0], [0, 0, 0]]
        and np.array_equal(t.left, np.eye(3))
        and np.array_equal(t.right, np.eye(3))
    )
    assert t.singular_values.tolist() == [3.0, 1.0] and network.target((2,), 1, diagonal=True).matrix.tolist() == [
        [2.0]
    ]
    general = network.target((3, 2, 1), 3, rng=np.random.default_rng(0))
    for Q in (general.left, general.right):
        np.testing.assert_allclose(Q.T @ Q, np.eye(3), atol=1e-15)
    assert not np.allclose(general.left, general.right)
    default = network.target((3, 2, 1), 3, rng=np.random.default_rng(0), symmetric=False, diagonal=False)
    assert np.array_equal(general.matrix, default.matrix)
    assert np.array_equal(
        *(
            getattr(network.target((1, 1), 2, rng=np.random.default_rng(0), symmetric=True), side)
            for side in ("left", "right")
        )
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: network.target([], 3, diagonal=True), r"^singular_values: got \[\], needs a non-empty"),
        (lambda: network.target([[1.0]], 3, diagonal=True), "^singular_values: got"),
        (lambda: network.target((1, 1), 0, diagonal=True), "^width: got 0, needs an integer >= 1$"),
        (lambda: network.target((1,), 2**17, diagonal=True), "^width: got an array of shape"),
        (
            lambda: network.target((3, 2, 1), 2, diagonal=True),
            "^singular_values: got 3 of them, needs at most width = 2",
        ),
        (lambda: network.target((1,), 1, diagonal=1), "^diagonal: got 1"),
        (lambda: network.target((1,), 1, symmetric=1), "^symmetric: got 1"),
        (lambda: network.target((1,), 1), "rng: got None, .* for the singular vectors of the target"),
        (
            lambda: network.initialise("balanced", depth=2**20, width=2**10, scale=1),
            "^depth, width: got an array of shape",
        ),
        (lambda: network.initialise("balanced", depth=2, width=2, scale=-1.0), "^scale: got -1.0"),
        (lambda: network.initialise("balanced", depth=2, width=2, scale=1, dtype="no such"), "^dtype: got object"),
        (lambda: network.initialise("balanced", depth=2, width=2, scale=1, dtype=complex), "^dtype: got complex128"),
        (lambda: network.initialise("gaussian", depth=2, width=2, scale=1), 'for the start "gaussian"'),
        (
            lambda: network.hessian_vector_product(np.full((3, 1, 1), 1e120), np.eye(1), np.ones((3, 1, 1))),
            "^W, M, V: got",
        ),
        (
            lambda: network.hessian_vector_product(1e120 * np.stack([EYE] * 3), EYE, np.ones((3, 2, 2))),
            "^W, M, V: got",
        ),  # infinity times zero, not only infinity
        (lambda: network.gradient(np.array([1e200, 1e200, 0.0, 1.0])[:, None, None], np.eye(1)), "^W, M: got"),
        (lambda: network.product(np.array([1e200, 1e200, 0.0])[:, None, None]), "^W: got"),
        (lambda: network.loss(np.array([1e200, 1e200, 0.0])[:, None, None], np.eye(1)), "^W, M: got"),
    ],
)
def test_refusals_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()
