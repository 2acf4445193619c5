r"""Averages over time: exact on the two-cycle, and what the central flow says they are.

The central flow of Cohen, Damian, Talwalkar, Kolter and Lee ("Understanding optimization in deep learning with central
flows", 2025) is a differential equation for the smoothed path of gradient descent,

.. math:: \frac{dw}{dt} = -\eta\Bigl[\nabla f(w) + \tfrac12 \nabla_w \langle H(w), \Sigma(t) \rangle\Bigr],

in which the covariance :math:`\Sigma \succeq 0` of the oscillation is the one that keeps :math:`H \preceq 2/\eta` and
lives in the eigenspace of :math:`2/\eta`. One unit of time is one step of descent. With one eigenvector at the edge this
is a variance :math:`\sigma^2 = 2\langle -\nabla f, \nabla S\rangle / \lVert\nabla S\rVert^2`.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from scipy.optimize import brentq

from . import descent, hessian, network, scalar, validate

# Eigenvalues above this share of 2/eta are treated as candidates for the edge.
CRITICAL = 0.98


@dataclass(frozen=True)
class Averages:
    """Averages of one balanced mode over time (of the layer value, and of its own part of loss and sharpness)."""

    mean: float  # of the layer value
    variance: float  # of the layer value
    loss: float  # mean loss; for the central flow the loss it predicts, f + tr(Sigma) / eta
    sharpness_at_mean: float  # curvature along the mode with every layer at the mean
    mean_sharpness: float  # mean curvature along the mode; nan for the central flow, which does not predict it


def _mode(target, depth, learning_rate):
    """One number each."""
    target = validate.number("target", target, sign="> 0")
    return target, validate.integer("depth", depth, least=2), validate.number("learning_rate", learning_rate, sign="> 0")


def _curvature(s, target, depth):
    """Curvature of the loss along the direction in which all layers move, every layer at ``s``."""
    return s ** (depth - 2) * ((2 * depth - 1) * s**depth - (depth - 1) * target)


def on_cycle(target: float, depth: int, learning_rate: float) -> Averages:
    r"""Exact averages over the two-cycle of one balanced mode.

    The mean of the layer value is :math:`(\rho_1+\rho_2)/2`, its variance :math:`(\rho_2-\rho_1)^2/4`.

    Parameters
    ----------
    target : float
        Singular value ``m > 0`` of the target.
    depth : int
        Number of layers, at least 2.
    learning_rate : float
        With ``2 < eta S`` and below divergence, as `scalar.two_cycle`.

    Raises
    ------
    ValueError
        As `scalar.two_cycle`, or if an average, as that of the loss, overflows.

    Examples
    --------
    For two layers the sum of the squares of the two values is ``m + 1/eta`` and their product ``1/eta``:

    >>> a = on_cycle(9.0, 2, 0.125)
    >>> round(a.mean**2, 12), round(a.variance, 12)
    (8.25, 0.25)
    """
    target, depth, learning_rate = _mode(target, depth, learning_rate)
    cycle = scalar.two_cycle(target, depth, learning_rate)
    points = np.array([cycle.low, cycle.high])
    mean = points.mean()
    with np.errstate(over="ignore"):
        found = Averages(
            mean=float(mean),
            variance=float((points[1] - points[0]) ** 2 / 4),
            loss=float(((points**depth - target) ** 2).mean() / 2),
            sharpness_at_mean=float(_curvature(mean, target, depth)),
            mean_sharpness=float(_curvature(points, target, depth).mean()),
        )
    validate.representable("target", target, np.array(astuple(found)))
    return found


def central_rest(target: float, depth: int, learning_rate: float) -> Averages:
    r"""Where the central flow of one balanced mode comes to rest beyond the edge.

    With :math:`\varphi(s) = \tfrac12(s^L-m)^2` the sharpness on the balanced line is :math:`\varphi''/L`; the flow stops
    where it reaches :math:`2/\eta`, and the variance of the layer value is :math:`-2\varphi'/\varphi'''` there.

    Raises
    ------
    ValueError
        If ``eta S <= 2``, where the flow ends at the minimum with variance zero, or so large (from
        :math:`4L\,2^{1-2/L}`) that the edge is met where the mode is not the steepest direction; or if an average
        overflows.

    Examples
    --------
    For two layers ``S = 3 s^2 - m``, so the rest point is at ``s^2 = (m + 2/eta) / 3``:

    >>> a = central_rest(9.0, 2, 0.125)
    >>> round(a.mean**2, 12), round(a.variance, 12)
    (8.333333333333, 0.222222222222)
    """
    target, depth, learning_rate = _mode(target, depth, learning_rate)
    q, target = scalar.relative_rate(target, depth, learning_rate), np.float64(target)  # which overflows to infinity
    got = f"learning_rate, target, depth: got {learning_rate}, {target}, {depth}, so eta S = {q}"
    if q <= 2:
        raise ValueError(f"{got}, needs eta S > 2")
    n, size = depth, target ** (1 / depth)
    lowest = 0.5 ** (1 / n)  # below, other directions are steeper; from here to the minimum the sharpness rises

    def excess(u):
        return q / n * _curvature(u, 1.0, n) - 2

    if excess(lowest) >= 0:
        raise ValueError(f"{got}: the edge is met below half the target")
    u = brentq(excess, lowest, 1.0, xtol=1e-15, rtol=1e-15)
    slope = n * (u**n - 1) * u ** (n - 1)
    third = n * ((2 * n - 1) * (2 * n - 2) * u ** (2 * n - 3) - (n - 1) * (n - 2) * u ** (n - 3))
    variance = -2 * slope / third
    loss = (u**n - 1) ** 2 / 2 + n * n * variance / q
    with np.errstate(over="ignore"):
        found = Averages(
            mean=float(size * u),
            variance=float(size**2 * variance),
            loss=float(target**2 * loss),
            sharpness_at_mean=float(_curvature(size * u, target, n)),
            mean_sharpness=float("nan"),
        )
    validate.representable("target", target, np.array(astuple(found)[:4]))
    return found


def third_derivative(W: np.ndarray, M: np.ndarray, U: np.ndarray, V: np.ndarray) -> np.ndarray:
    r"""Third derivative of the loss with two slots filled, :math:`\nabla_W \langle U, H(W) V\rangle`.

    By differentiating both sweeps of the Hessian-vector product once more, so that no step has to be chosen.

    Parameters
    ----------
    W, U, V : (..., L, d, d) array
    M : (d, d) array

    Returns
    -------
    (..., L, d, d) ndarray

    Raises
    ------
    ValueError
        On wrong shapes, entries that are not finite, or a result beyond the floating range.

    Examples
    --------
    One layer value per layer, f = (ab - 1)^2/2 at (1, 1): the third derivative f_aab is 2b.

    >>> e = np.array([[[1.0]], [[0.0]]])
    >>> third_derivative(np.ones((2, 1, 1)), np.eye(1), e, e).ravel().tolist()
    [0.0, 2.0]
    """
    W, M, V = validate.weights(W, M, V=V, numpy_only=True)
    U = validate.real("U", U)
    if U.shape != W.shape:
        raise ValueError(f"U: got shape {U.shape}, needs {W.shape} to match W")
    W, M, U, V = (validate.double(name, x) for name, x in (("W", W), ("M", M), ("U", U), ("V", V)))
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.stack(_third(*map(network.layers, (W, U, V)), M), axis=-3)
    return validate.representable("W, M, U, V", W, found)


def _third(W, U, V, M):
    """`network.curvature` in the direction U, differentiated in the direction V; lists of layers."""
    P, PU, PV, PUV = [W[0]], [U[0]], [V[0]], [np.zeros_like(W[0])]  # the products, and their derivatives
    for w, u, v in zip(W[1:], U[1:], V[1:]):
        PUV.append(u @ PV[-1] + v @ PU[-1] + w @ PUV[-1])
        PU.append(u @ P[-1] + w @ PU[-1])
        PV.append(v @ P[-1] + w @ PV[-1])
        P.append(w @ P[-1])
    B, BU, BV, BUV = P[-1] - M, PU[-1], PV[-1], PUV[-1]
    found = [None] * len(W)
    for i in range(len(W) - 1, 0, -1):
        p, pu, pv, puv = (x[i - 1].mT for x in (P, PU, PV, PUV))
        found[i] = BUV @ p + BU @ pv + BV @ pu + B @ puv
        w, u, v = W[i].mT, U[i].mT, V[i].mT
        BUV = u @ BV + v @ BU + w @ BUV
        B, BU, BV = w @ B, u @ B + w @ BU, v @ B + w @ BV
    found[0] = BUV
    return found


def complementarity(A: np.ndarray, B: np.ndarray, *, tolerance: float = 1e-13) -> np.ndarray:
    r"""Solve the semidefinite complementarity problem :math:`X \succeq 0,\ A + B[X] \succeq 0,\ \langle X, A + B[X]\rangle = 0`.

    It is the optimality condition of :math:`\min_{X\succeq0} \tfrac12\langle X, B[X]\rangle + \langle A, X\rangle`, which
    accelerated projected gradients with restarts solve.

    Parameters
    ----------
    A : (k, k) array
        Symmetric.
    B : (k, k, k, k) array
        A positive semidefinite operator on symmetric matrices.
    tolerance : float
        Bound on the change of `X` per iteration, relative to its size; below 1.

    Returns
    -------
    (k, k) ndarray

    Raises
    ------
    ValueError
        On wrong shapes, numbers that are not finite, or an operator that is not positive semidefinite.
    RuntimeError
        If the iteration does not settle, for example because no solution exists.

    Examples
    --------
    >>> complementarity(np.array([[-3.0]]), np.array([[[[2.0]]]])).tolist()
    [[1.5]]
    """
    A, B = (validate.double(name, validate.real(name, x)) for name, x in (("A", A), ("B", B)))
    tolerance = validate.number("tolerance", tolerance, sign="> 0")
    if tolerance >= 1:
        raise ValueError(f"tolerance: got {tolerance}, needs a number below 1")
    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.size == 0 or np.abs(A - A.T).max() > 1e-9 * np.abs(A).max():
        raise ValueError(f"A: got {validate.short(A)}, needs a symmetric matrix (k, k)")
    k = A.shape[0]
    if B.shape != (k,) * 4:
        raise ValueError(f"B: got shape {B.shape}, needs {(k,) * 4} to match A")
    (scaled_A, power_A), (scaled_B, power_B) = _scaled(A), _scaled(B)
    operator = (scaled_B + scaled_B.swapaxes(2, 3)) / 2
    operator = ((operator + operator.swapaxes(0, 1)) / 2).reshape(k * k, k * k)
    bent = np.abs(operator - operator.T).max() + max(0.0, -np.linalg.eigvalsh(operator)[0])
    if bent > 1e-9:  # of entries of size one; a Gram matrix is so to some roundings
        raise ValueError(f"B: got an operator that is {bent:.1e} from it, needs a positive semidefinite one")
    if not B.any():
        if np.linalg.eigvalsh(scaled_A)[0] < 0:
            raise RuntimeError("complementarity: no solution where B is zero and A has a negative eigenvalue")
        return np.zeros((k, k))
    if k == 1:
        X = np.maximum(-scaled_A / scaled_B[0, 0], 0.0)
    else:
        X = _projected(scaled_A, scaled_B, tolerance)
    with np.errstate(over="ignore"):
        return validate.representable("A, B", (A, B), np.ldexp(X, power_A - power_B))


def _scaled(array):
    """An array over a power of two, so that its squares stay in range, and the exponent."""
    power = np.frexp(np.abs(array).max())[1]
    return np.ldexp(array, -power), power


def _projected(A, B, tolerance):
    """`complementarity` by projected gradients."""
    k = len(A)
    size = np.linalg.norm(B.reshape(k * k, k * k), 2)
    X = Y = np.zeros((k, k))
    momentum = 1.0
    for _ in range(20000):
        gradient = A + np.einsum("ijkl,kl->ij", B, Y)
        values, vectors = np.linalg.eigh(Y - (gradient + gradient.T) / (2 * size))
        new = (vectors * np.maximum(values, 0)) @ vectors.T
        if np.linalg.norm(new - Y) <= tolerance * max(np.linalg.norm(new), np.linalg.norm(A) / size):
            return new
        if np.sum((Y - new) * (new - X)) > 0:  # the momentum points uphill: restart
            momentum = 1.0
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        Y = new + (momentum - 1) / following * (new - X)
        X, momentum = new, following
    raise RuntimeError("complementarity: no solution within 20000 iterations")


def central_flow(
    W: np.ndarray, M: np.ndarray, learning_rate: float, steps: int, *, substeps: int = 4, every: int = 1
) -> descent.Run:
    r"""Central flow of gradient descent on a deep linear network, by Euler steps of length 1/substeps.

    Below the edge it is gradient flow. Where eigenvalues reach :math:`2/\eta` the covariance :math:`\Sigma` is found from
    the semidefinite complementarity problem that keeps them there after the step.

    Parameters
    ----------
    W : (L, d, d) array
        Start.
    M : (d, d) array
        Target.
    learning_rate : float
        :math:`\eta`.
    steps : int
        Units of time, each of which stands for one step of descent.
    substeps : int
        Euler steps in one unit of time; the error falls like 1/substeps. A flow that comes to rest with a variance, but off the
        sharpness :math:`2/\eta`, had steps too long; finer ones bring it there.
    every : int
        Record only times that are multiples of `every`.

    Returns
    -------
    descent.Run
        ``.observed`` holds ``"path"`` (T, L, d, d), ``"sharpness"`` (T,), ``"variance"`` (T,), the trace of
        :math:`\Sigma`, ``"covariance"`` (T, L d^2, L d^2) and ``"predicted_loss"`` (T,), which is
        :math:`f + \mathrm{tr}(\Sigma)/\eta`.

    Raises
    ------
    ValueError
        On wrong shapes or numbers, or if the flow leaves the floating range.
    RuntimeError
        As `complementarity`.

    Examples
    --------
    One mode beyond the edge comes to rest where `central_rest` says:

    >>> run = central_flow(np.full((2, 1, 1), 2.5), np.array([[9.0]]), 0.125, 40)
    >>> bool(abs(run.weights[0, 0, 0] - central_rest(9.0, 2, 0.125).mean) < 1e-9)
    True
    """
    W, M = validate.weights(W, M, numpy_only=True)
    if W.ndim != 3:
        raise ValueError(f"W: got shape {W.shape}, needs one network (L, d, d)")
    rate = validate.number("learning_rate", learning_rate, sign="> 0")
    steps = validate.integer("steps", steps, least=0)
    substeps = validate.integer("substeps", substeps, least=1)
    every = validate.integer("every", every, least=1)
    W, M = validate.double("W", W), validate.double("M", M)
    W, rows = _follow_flow(W, M, rate, steps, substeps, every)
    names = ("path", "sharpness", "variance", "covariance", "loss")
    columns = {name: np.array(values) for name, values in zip(names, zip(*rows))}
    loss = columns.pop("loss")
    return descent.Run(
        weights=W,
        steps=np.arange(0, steps + 1, every),
        loss=loss,
        singular_values=np.linalg.svd(network.product(columns["path"]), compute_uv=False),
        diverged=np.array(False),
        diverged_at=np.array(-1),
        learning_rate=np.array(rate),
        observed=columns | {"predicted_loss": loss + columns["variance"] / rate},
    )


def _follow_flow(W, M, rate, steps, substeps, every):
    """The last weights, and a row of `central_flow`'s records for each time that is a multiple of `every`."""
    rows = []
    for time in range(steps + 1):
        for part in range(substeps):
            try:
                with np.errstate(over="ignore", invalid="ignore"):
                    following, sharpness, covariance = _flow_step(W, M, rate, 1 / substeps)
                    following = validate.representable("W", W, following)
                if part == 0 and time % every == 0:
                    rows.append((W, sharpness, np.trace(covariance), covariance, network.loss(W, M)))
            except ValueError:  # all arguments are checked: the weights have grown
                raise ValueError(
                    f"learning_rate, W, M: got {rate}, with which the flow leaves the floating range"
                ) from None
            if time == steps:
                break
            W = following
    return W, rows


def _flow_step(W, M, rate, dt):
    """One Euler step of the central flow: new weights, sharpness and covariance at the old ones."""
    values, vectors = np.linalg.eigh(hessian.dense(W, M))
    critical = np.flatnonzero(values > CRITICAL * 2 / rate)
    gradient = network.gradient(W, M).ravel()
    size = W.size
    if critical.size == 0:
        return W - dt * rate * gradient.reshape(W.shape), values[-1], np.zeros((size, size))
    basis = vectors[:, critical].T.reshape((-1,) + W.shape)
    k = len(basis)
    slopes = np.array([[third_derivative(W, M, u, v).ravel() for v in basis] for u in basis])  # (k, k, n)
    residual = np.diag(2 / rate - values[critical]) + dt * rate * slopes @ gradient
    response = dt * rate / 2 * np.einsum("ijn,kln->ijkl", slopes, slopes)
    X = complementarity(residual, response)
    force = np.einsum("ijn,ij->n", slopes, X) / 2
    covariance = np.einsum("in,ij,jm->nm", basis.reshape(k, -1), X, basis.reshape(k, -1))
    return W - dt * rate * (gradient + force).reshape(W.shape), values[-1], covariance
