r"""Other optimisers on the same network: their update rules, one loop over time, and their two-cycles in closed form.

A rule is a frozen dataclass with two methods, ``start(W)``, which makes its memory, and
``advance(W, memory, gradient, rate)``, which returns new weights and memory; ``gradient`` is a function of the weights and,
if the rule wants another one, of the target. `descend` runs any of them.

The closed forms are for one balanced mode and in its units: layer value ``u = s / m^(1/L)``, rate ``q = eta S`` with
``S = L m^(2-2/L)``. They rest on `scalar.branch` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.optimize import brentq

from . import descent, network, scalar, validate


def _share(name, value):
    number = validate.number(name, value, sign=">= 0")
    if number >= 1:
        raise ValueError(f"{name}: got {validate.short(value)}, needs a number in [0, 1)")
    return number


def _store(rule, **numbers):
    """Set fields of a frozen rule to what they were checked to be."""
    for name, number in numbers.items():
        object.__setattr__(rule, name, number)


class Rule:
    """What `descend` needs of an update rule; those of this module inherit from it, others need not."""

    def start(self, W: np.ndarray) -> Any:
        """Memory before the first step, from the weights (..., L, d, d); none by default."""
        return None

    def advance(self, W: np.ndarray, memory: Any, gradient: Callable, rate: np.ndarray) -> tuple[np.ndarray, Any]:
        """Weights and memory after one step.

        ``gradient(W)`` is the gradient, ``gradient(W, E)`` that for the target plus E; ``rate`` broadcasts with `W`.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class _Momentum(Rule):
    """A rule whose memory is the weights one step before."""

    momentum: float

    def __post_init__(self):
        _store(self, momentum=_share("momentum", self.momentum))

    def start(self, W):
        return W


@dataclass(frozen=True)
class HeavyBall(_Momentum):
    r"""Polyak's momentum: :math:`w_{t+1} = w_t - \eta\nabla f(w_t) + \beta(w_t - w_{t-1})`."""

    def advance(self, W, memory, gradient, rate):
        return W - rate * gradient(W) + self.momentum * (W - memory), W


@dataclass(frozen=True)
class Nesterov(_Momentum):
    r"""Nesterov's momentum: :math:`y_t = w_t + \beta(w_t - w_{t-1})`, :math:`w_{t+1} = y_t - \eta\nabla f(y_t)`."""

    def advance(self, W, memory, gradient, rate):
        ahead = W + self.momentum * (W - memory)
        return ahead - rate * gradient(ahead), W


@dataclass(frozen=True)
class WeightDecay(Rule):
    r"""Decay of all weights: :math:`w_{t+1} = (1-\gamma)w_t - \eta\nabla f(w_t)`, with :math:`\gamma = \eta\lambda`."""

    decay: float  # gamma, per step

    def __post_init__(self):
        _store(self, decay=validate.number("decay", self.decay, sign=">= 0"))

    def advance(self, W, memory, gradient, rate):
        return (1 - self.decay) * W - rate * gradient(W), None


@dataclass(frozen=True)
class LabelNoise(Rule):
    r"""Descent on a target that is measured anew, with an error, at each step: :math:`M_t = M + \tau\xi_t\,N`.

    :math:`\xi_t` is standard normal; ``direction`` is the matrix N, for noise in one mode the outer product of its
    singular vectors.
    """

    direction: np.ndarray  # (d, d)
    size: float  # tau
    rng: np.random.Generator

    def __post_init__(self):
        validate.real("direction", self.direction)
        _store(self, size=validate.number("size", self.size, sign=">= 0"))
        validate.generator(self.rng, "the noise")

    def advance(self, W, memory, gradient, rate):
        error = self.rng.standard_normal(rate.shape[:-1])
        return W - rate * gradient(W, self.size * error * self.direction), None


@dataclass(frozen=True)
class BatchNoise(Rule):
    r"""Descent whose gradient is multiplied by a random :math:`1 + \xi_t`, with :math:`\xi_t=\pm\sqrt v`, equally likely.

    It is what drawing minibatches does to a single mode: the gradient noise is proportional to the residual and so
    vanishes at a minimum.
    """

    variance: float  # v, below 1
    rng: np.random.Generator

    def __post_init__(self):
        _store(self, variance=_share("variance", self.variance))
        validate.generator(self.rng, "the noise")

    def advance(self, W, memory, gradient, rate):
        sign = self.rng.choice([-1.0, 1.0], size=rate.shape)
        return W - rate * (1 + np.sqrt(self.variance) * sign) * gradient(W), None


@dataclass(frozen=True)
class ScalarRMSProp(Rule):
    r"""One adaptive step size for all weights, with optional momentum.

    .. math::
        \nu_{t+1} &= \beta_2\nu_t + (1-\beta_2)\lVert g_t\rVert^2, \\
        m_{t+1} &= \beta_1 m_t + (1-\beta_1) g_t, \\
        w_{t+1} &= w_t - \eta\,\frac{m_{t+1}}{\sqrt{\nu_{t+1}} + \epsilon}

    With :math:`\beta_1 = 0` it is the scalar RMSProp of Cohen et al. (2025); with :math:`\beta_1 > 0` it is Adam with one
    step size for all weights and without bias correction, as :math:`\nu` starts at the first squared gradient.
    """

    memory: float  # beta_2
    momentum: float = 0.0  # beta_1
    floor: float = 0.0  # epsilon

    def __post_init__(self):
        _store(self, memory=_share("memory", self.memory), momentum=_share("momentum", self.momentum))
        _store(self, floor=validate.number("floor", self.floor, sign=">= 0"))

    def advance(self, W, memory, gradient, rate):
        g = gradient(W)
        square = (g * g).sum((-3, -2, -1), keepdims=True)
        nu, mean = memory if memory else (square, 0 * g)
        nu = self.memory * nu + (1 - self.memory) * square
        mean = self.momentum * mean + (1 - self.momentum) * g
        return W - rate * mean / (np.sqrt(nu) + self.floor), (nu, mean)


def descend(
    W: np.ndarray,
    M: np.ndarray,
    learning_rate: ArrayLike,
    steps: int,
    *,
    rule: Rule,
    memory: Any = None,
    keep: int | None = None,
    every: int = 1,
    observe: dict[str, Callable] | None = None,
    singular_values: bool = True,
) -> descent.Run:
    r"""Run an update rule and record what `descent.descend` records.

    Parameters
    ----------
    W : (..., L, d, d) array
        Starting weights.
    M : (d, d) array
        Target.
    learning_rate : float or array
        :math:`\eta > 0`. An array gives one run per rate, with its axes in front of the batch axes of `W`.
    steps : int
        Number of updates.
    rule : Rule
        Or anything with its two methods.
        A rule with noise draws for each run of a batch by itself.
    memory : optional
        The rule's memory at the start, for momentum the weights one step before; ``rule.start(W)`` by default.
    keep, every, observe, singular_values
        As in `descent.descend`; the functions of `observe` get weights of shape (T, n, L, d, d).

    Returns
    -------
    descent.Run
        The recorded loss is that on the target without noise.

    Raises
    ------
    ValueError
        On wrong shapes, entries that are not finite, rates that are not positive, or counts below their least value.

    Examples
    --------
    Heavy ball with momentum 1/4 at rate 1.375 settles on the two-cycle of plain descent at rate 1.1:

    >>> W, rule = np.full((2, 1, 1), 0.9), HeavyBall(0.25)
    >>> run = descend(W, np.eye(1), 1.375, 2000, rule=rule, keep=4)
    >>> sorted(set(run.singular_values.ravel().round(6).tolist()))
    [0.663494, 1.245597]
    """
    W, M = validate.weights(W, M, numpy_only=True)
    if object in (W.dtype, M.dtype):
        raise ValueError("W, M: got an array of objects, needs a floating dtype")
    W = W.astype(np.result_type(W, M), copy=False)
    rates = validate.positive("learning_rate", learning_rate)
    steps = validate.integer("steps", steps, least=0)
    every = validate.integer("every", every, least=1)
    first = 0 if keep is None else max(0, steps + 1 - validate.integer("keep", keep, least=1))
    shape = rates.shape + W.shape[:-3]
    rate = validate.cast("learning_rate", learning_rate, rates, W.dtype)
    rate = np.broadcast_to(rate.reshape(rates.shape + (1,) * (W.ndim - 3)), shape)[..., None, None, None]
    W = np.broadcast_to(W, shape + W.shape[-3:])
    wanted = range(-(-first // every) * every, steps + 1, every)
    if not wanted:
        raise ValueError(f"every: got {every}, but none of the states {first} to {steps} is a multiple of it")
    observe = validate.functions("observe", observe)
    singular_values = validate.flag("singular_values", singular_values)
    if not (callable(getattr(rule, "start", None)) and callable(getattr(rule, "advance", None))):
        raise ValueError(f"rule: got {validate.short(rule)}, needs a Rule, or what has its two methods")
    if isinstance(rule, _Momentum) and memory is not None:
        memory = validate.cast("memory", memory, validate.real("memory", memory), W.dtype)
        if memory.ndim < 3 or memory.shape != W.shape[W.ndim - memory.ndim :]:
            raise ValueError(f"memory: got shape {memory.shape}, needs weights, {W.shape}")
    states, diverged_at = _follow(W, M, rate, steps, rule, memory, wanted)
    return _result(rates, M, np.array(wanted), states, diverged_at, observe, singular_values)


def _follow(W, M, rate, steps, rule, memory, wanted):
    """The states asked for, and the last, each run kept at its last one with a finite loss; and when that was left, or -1."""
    memory = rule.start(W) if memory is None else memory
    states, diverged_at, ended = [], np.full(W.shape[:-3], -1), W
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for t in range(steps + 1):
            diverged_at = np.where(~np.isfinite(_loss(W, M)) & (diverged_at < 0), t, diverged_at)
            ended = np.where((diverged_at < 0)[..., None, None, None], W, ended)
            if t in wanted:
                states.append(ended)
            if t < steps:
                W, memory = rule.advance(W, memory, lambda w, noise=0.0: _gradient(w, M + noise), rate)
    return [*states, ended], diverged_at


def _loss(W, M):
    """Loss, unchecked."""
    R = network.prefixes(network.layers(W))[-1] - M
    return (R * R).sum((-2, -1)) / 2


def _gradient(W, M):
    """Gradient, unchecked."""
    parts = network.layers(W)
    products = network.prefixes(parts)
    return np.stack(network.sweep_back(parts, products, products[-1] - M), axis=-3)


def _result(rates, M, recorded, states, diverged_at, observe, singular_values):
    """The run as `descent.Run`, time after the batch axes; what lies past divergence is shown as inf."""
    *states, ended = states
    shape = diverged_at.shape
    history = np.array(states).reshape((len(states), -1) + ended.shape[-3:])
    dead = ((diverged_at >= 0) & (recorded.reshape((-1,) + (1,) * len(shape)) >= diverged_at)).reshape(len(states), -1)
    history[dead] = 0  # as in `descent.descend`; of a run without a finite loss the start may have no finite product

    def by_run(values):
        mask = dead.reshape(dead.shape + (1,) * (values.ndim - 2))
        values = np.where(mask, np.inf, values).swapaxes(0, 1)
        return values.reshape(shape + values.shape[1:])

    observed = {name: np.asarray(function(history)) for name, function in observe.items()}
    for name, value in observed.items():
        if value.shape[:2] != dead.shape:
            raise ValueError(
                f"observe: the function {name!r} returned shape {value.shape} for weights of shape {history.shape}, "
                f"needs {dead.shape} in front"
            )
    singular = None
    if singular_values:  # in float64 where LAPACK has no routine for the dtype, and inf where they are beyond it
        P = network.product(history)
        with np.errstate(over="ignore"):
            P = P if P.dtype in (np.float32, np.float64) else P.astype(float)
        beyond = ~np.isfinite(P).all((-2, -1))
        singular = np.linalg.svd(np.where(beyond[..., None, None], 0, P), compute_uv=False)
        singular = np.where(beyond[..., None], np.inf, singular)
    with np.errstate(over="ignore", invalid="ignore"):  # of what is past divergence
        loss = _loss(history, M)
    return descent.Run(
        weights=ended,
        steps=recorded,
        loss=by_run(loss),
        singular_values=None if singular is None else by_run(singular),
        diverged=diverged_at >= 0,
        diverged_at=diverged_at,
        learning_rate=np.broadcast_to(rates.reshape(rates.shape + (1,) * (len(shape) - rates.ndim)), shape).copy(),
        observed={name: by_run(value) for name, value in observed.items()},
    )


@dataclass(frozen=True)
class Cycle:
    """A two-cycle of one balanced mode under some optimiser."""

    rate: float  # q = eta S of the optimiser
    low: float  # layer values at which the gradient is taken, in units of m^(1/L)
    high: float
    trace: float  # of the two-step map of mode and memory, whose determinant is next
    determinant: float

    @property
    def attracts(self) -> bool:
        """Whether both multipliers lie inside the unit circle (Jury's conditions)."""
        return bool(abs(self.trace) < 1 + self.determinant and self.determinant < 1)

    @property
    def multipliers(self) -> np.ndarray:
        """The two eigenvalues of the two-step map, largest modulus first."""
        roots = np.roots([1.0, -self.trace, self.determinant])
        return roots[np.argsort(-np.abs(roots))]


def _plain(t, depth):
    """Rate, two points and two slopes of the cycle of plain descent with ratio e^(2t)."""
    depth = validate.integer("depth", depth, least=2)
    q, low, high = scalar.branch(validate.number("t", t, sign=">= 0"), depth)
    slopes = [scalar.slope(u, 1.0, depth, q / depth) for u in (low, high)]
    return q, low, high, slopes


def heavy_ball_multipliers(multipliers: ArrayLike, *, momentum: float) -> np.ndarray:
    r"""Multipliers of a two-cycle under the heavy ball from those of plain descent at :math:`\eta/(1+\beta)`.

    Each multiplier :math:`\nu` of plain descent, real or complex, gives the two roots of
    :math:`(\lambda+\beta)^2=(1+\beta)^2\nu\lambda`. This holds for every loss, in any number of dimensions.

    Parameters
    ----------
    multipliers : (...) array_like
        :math:`\nu`.
    momentum : float
        :math:`\beta` in [0, 1).

    Returns
    -------
    (..., 2) complex ndarray
        Larger modulus first; their product is :math:`\beta^2`.

    Examples
    --------
    The multiplier 1 of a direction along which nothing moves stays, and brings :math:`\beta^2` with it:

    >>> heavy_ball_multipliers(1.0, momentum=0.5).real.tolist()
    [1.0, 0.25]
    """
    b, need = _share("momentum", momentum), "needs finite real or complex numbers"
    values = validate.plain("multipliers", multipliers, need=need)
    if values.dtype.kind not in "iufc" or not np.isfinite(values).all():
        raise ValueError(f"multipliers: got {validate.short(multipliers)}, {need}")
    with np.errstate(over="ignore"):
        values = values.astype(complex)
    if not np.all(np.abs(values) <= 1e150):  # whose square may be out of range
        raise ValueError(f"multipliers: got {validate.short(multipliers)}, needs numbers of at most 1e150 in size")
    a = (1 + b) ** 2 * values / 2
    root = np.sqrt(a * (a - 2 * b))  # of (a - b)^2 - b^2
    pair = np.stack([a - b + root, a - b - root], axis=-1)
    order = np.argsort(-np.abs(pair), axis=-1, kind="stable")
    large, small = np.moveaxis(np.take_along_axis(pair, order, axis=-1), -1, 0)
    lost = np.abs(small) < np.abs(large) / 2  # a difference; the product of both is known
    return np.stack([large, np.where(lost, b * b / np.where(lost, large, 1), small)], axis=-1)


def heavy_ball_cycle(t: float, depth: int, *, momentum: float) -> Cycle:
    r"""Two-cycle of the heavy ball: that of plain descent at the rate :math:`\eta/(1+\beta)`.

    The two-step map has the determinant :math:`\beta^2` and the trace :math:`(1+\beta)^2\mu - 2\beta`, where
    :math:`\mu` is the multiplier of plain descent.

    Parameters
    ----------
    t : float
        Half the logarithm of the ratio of the two values, not negative; the edge is at 0.
    depth : int
    momentum : float
        :math:`\beta` in [0, 1).

    Examples
    --------
    >>> heavy_ball_cycle(0.0, 4, momentum=0.5).rate  # the edge, 2 (1 + beta)
    3.0
    """
    momentum = _share("momentum", momentum)
    q, low, high, slopes = _plain(t, depth)
    trace = (1 + momentum) ** 2 * slopes[0] * slopes[1] - 2 * momentum
    return Cycle((1 + momentum) * q, low, high, trace, momentum**2)


def nesterov_cycle(t: float, depth: int, *, momentum: float) -> Cycle:
    r"""Two-cycle of Nesterov's momentum: its gradient points form that of plain descent at :math:`\eta\frac{1+2\beta}{1+\beta}`.

    With :math:`s_i` the slopes of one plain step of length :math:`\eta` at the two gradient points, the two-step map has
    the determinant :math:`\beta^2s_1s_2` and the trace :math:`(1+\beta)^2s_1s_2-\beta(s_1+s_2)`.

    Examples
    --------
    The edge, :math:`2(1+\beta)/(1+2\beta)`:

    >>> round(nesterov_cycle(0.0, 4, momentum=0.5).rate, 12)
    1.5
    """
    momentum = _share("momentum", momentum)
    q, low, high, slopes = _plain(t, depth)
    ratio = (1 + momentum) / (1 + 2 * momentum)
    first, second = (1 - (1 - g) * ratio for g in slopes)
    trace = (1 + momentum) ** 2 * first * second - momentum * (first + second)
    return Cycle(ratio * q, low, high, trace, momentum**2 * first * second)


def weight_decay_cycle(t: float, depth: int, *, decay: float) -> Cycle:
    r"""Two-cycle with weight decay, on the explicit branch in :math:`z = e^{2t}` and :math:`\gamma`.

    .. math::
        A &= \eta m\rho_1^{L-2} = \frac{z^{2L+1}-z^{2L}+z^2-z+\gamma(z^{2L}-z^2)}{z^L(z^L-1)}, \\[1ex]
        B &= \eta\rho_1^{2L-2} = \frac{z^{L+1}-z^L+z^2-z+\gamma(z^L-z^2)}{z^L(z^L-1)},

    from which :math:`\rho_1^L = mB/A` and :math:`q = LB(A/B)^{2-2/L}`.

    Examples
    --------
    Without decay it is the branch of plain descent:

    >>> c = weight_decay_cycle(0.1, 3, decay=0.0)
    >>> bool(abs(c.rate - scalar.branch(0.1, 3)[0]) < 1e-12)
    True
    """
    depth = validate.integer("depth", depth, least=2)
    t = validate.number("t", t, sign="> 0")
    gamma = validate.number("decay", decay, sign=">= 0")
    if not ((4 * depth + 2) * t < 700 and gamma < 1e100):
        raise ValueError(
            f"t, depth, decay: got {t}, {depth}, {gamma}, needs powers e^((4 L + 2) t) within the floating range"
        )
    n, z, over = depth, np.exp(2 * t), np.expm1(2 * t)
    below = z**n * np.expm1(2 * n * t)
    A = (z ** (2 * n) * over + z * over + gamma * z**2 * np.expm1((4 * n - 4) * t)) / below
    B = (z**n * over + z * over + gamma * z**2 * np.expm1((2 * n - 4) * t)) / below
    low = (B / A) ** (1 / n)
    slopes = [
        1 - gamma + (n - 1) * A * x ** (n - 2) - (2 * n - 1) * B * x ** (2 * n - 2) for x in (1.0, z)
    ]  # at the low point and at z times it
    return Cycle(float(n * B * (A / B) ** (2 - 2 / n)), float(low), float(z * low), float(slopes[0] * slopes[1]), 0.0)


def weight_decay_edge(depth: int, *, decay: float) -> float:
    r"""Rate at which the minimum under weight decay loses stability.

    .. math:: q = 2\,\bigl(1+(L-1)\gamma\bigr)^{2-2/L}\,\Bigl(1+\frac{L-2}{2}\gamma\Bigr)^{2/L-1}

    It is where :math:`\eta L s^{2L-2} = 2 + (L-2)\gamma` at the minimum that decay leaves.

    Examples
    --------
    >>> weight_decay_edge(2, decay=0.25)  # 2 (1 + gamma) for two layers
    2.5
    """
    n = validate.integer("depth", depth, least=2)
    gamma = validate.number("decay", decay, sign=">= 0")
    if gamma > 1e100:
        raise ValueError(f"decay: got {gamma}, needs a number of at most 1e100")
    return float(2 * (1 + (n - 1) * gamma) ** (2 - 2 / n) * (1 + (n - 2) / 2 * gamma) ** (2 / n - 1))


def rmsprop_cycle(t: float, depth: int, *, memory: float, floor: float = 0.0) -> tuple[float, Cycle]:
    r"""Two-cycle of RMSProp on one balanced mode: plain descent's, with the length of a step as the parameter.

    On a two-cycle the gradient changes its sign and nothing else, so that :math:`\sqrt\nu` is its modulus :math:`|g|` at
    every step, whatever :math:`\beta_2`, and the effective rate is :math:`\eta/(|g|+\epsilon)`. With :math:`r =
    |g|/(|g|+\epsilon)` and :math:`h_i = 1-`\ slope of plain descent at that effective rate, the two-step map of mode and
    :math:`\sqrt\nu` has the determinant :math:`\beta_2^2\mu` and the trace
    :math:`(1-(1-(1-\beta_2)r)h_1)(1-(1-(1-\beta_2)r)h_2)+\beta_2^2-\beta_2(1-\beta_2)r(h_1+h_2)`.

    Parameters
    ----------
    t : float
        Half the logarithm of the ratio of the two values, positive.
    depth : int
    memory : float
        :math:`\beta_2` in [0, 1).
    floor : float
        :math:`\epsilon` in units of :math:`S m^{1/L}`.

    Returns
    -------
    rate : float
        :math:`\eta` itself, as a length in units of :math:`m^{1/L}`.
    cycle : Cycle
        Its ``rate`` is the effective one, :math:`q = \eta S/(|g|+\epsilon)`.

    Examples
    --------
    Without a floor the two values differ by the learning rate:

    >>> rate, c = rmsprop_cycle(0.05, 3, memory=0.9)
    >>> bool(abs(c.high - c.low - rate) < 1e-15) and c.attracts
    True
    """
    t, floor = validate.number("t", t, sign="> 0"), validate.number("floor", floor, sign=">= 0")
    memory = _share("memory", memory)
    q, low, high, slopes = _plain(t, depth)
    length = high - low
    if length == 0:
        raise ValueError(f"t: got {t}, needs a number at which the two values differ by more than rounding")
    gradient = length / q  # in units of S m^(1/L)
    r = gradient / (gradient + floor)
    h = [1 - g for g in slopes]
    b = memory
    factors = [1 - (1 - (1 - b) * r) * x for x in h]
    trace = factors[0] * factors[1] + b**2 - b * (1 - b) * r * (h[0] + h[1])
    return length + floor * q, Cycle(q, low, high, trace, b**2 * slopes[0] * slopes[1])


def label_noise_variance(q: float, depth: int, *, noise: float) -> float:
    r"""Stationary mean square of the layer value about its minimum, under label noise and close to the edge.

    With :math:`\delta=q-2`, :math:`\kappa=3/(4(L-1)(5L-4))`, :math:`D=(q\tau/(Lm))^2` and x the deviation, counted with
    a sign that changes at every step, the density is proportional to
    :math:`\exp\bigl((2/D)(\delta x^2/2-x^4/(4\kappa))\bigr)` as D and :math:`\delta` go to zero.

    Parameters
    ----------
    q : float
        Rate, near 2.
    depth : int
    noise : float
        :math:`\tau/m`, standard deviation of the error of the target relative to it.

    Returns
    -------
    float
        In units of :math:`m^{2/L}`.

    Examples
    --------
    At the edge it is :math:`\sqrt{2\kappa D}\,\Gamma(3/4)/\Gamma(1/4)`:

    >>> from math import gamma
    >>> expected = np.sqrt(2 / 8 * 1e-4) * gamma(0.75) / gamma(0.25)
    >>> bool(abs(label_noise_variance(2.0, 2, noise=0.01) / expected - 1) < 1e-9)
    True
    """
    n = validate.integer("depth", depth, least=2)
    q, noise = (validate.number(name, value, sign="> 0") for name, value in (("q", q), ("noise", noise)))
    if not (1e-100 < noise * q / n < 1e100 and q < 1e100):
        raise ValueError(f"q, noise, depth: got {q}, {noise}, {n}, needs numbers whose squares are in floating range")
    kappa = 3 / (4 * (n - 1) * (5 * n - 4))
    D, delta = (q * noise / n) ** 2, q - 2
    top = kappa * max(delta, 0.0)  # the density is largest at x^2 = top
    if top > 1e4 * np.sqrt(kappa * D):  # x^2 is normal about it to 1e-16, but for the factor 1/x of dx
        return float(top - D / (2 * delta))
    reach = np.sqrt(top + 8 * np.sqrt(kappa * D))

    def density(x):
        return np.exp(-((x * x - kappa * delta) ** 2 - (top - kappa * delta) ** 2) / (2 * kappa * D))

    rise = np.sqrt(max(top - 8 * np.sqrt(kappa * D), 0.0))  # below it a share of e^-32: a narrow peak must not be missed
    places = {"limit": 400, "epsabs": 0, "epsrel": 1e-10, "points": [x for x in (rise, np.sqrt(top)) if x] or None}
    found = [quad(f, 0, reach, full_output=1, **places)[:2] for f in (lambda x: x * x * density(x), density)]
    if any(error > 1e-8 * value for value, error in found):
        raise ArithmeticError("label noise: the integrals of the density do not converge")
    return found[0][0] / found[1][0]


def window_end(cycle: Callable[[float], Cycle], *, start: float = 1e-3, stop: float = 1.0, pieces: int = 400) -> Cycle:
    """First cycle along a branch that does not attract: where ``1 + trace + determinant`` changes its sign.

    Parameters
    ----------
    cycle : callable
        Gives the cycle for ``t``, for example ``lambda t: heavy_ball_cycle(t, 3, momentum=0.9)``.
    start, stop : float
        First and last t of the grid on which the first change of sign is looked for, 0 <= start < stop.
    pieces : int
        Of the grid, at most a million.

    Raises
    ------
    ValueError
        If there is none on the grid, or an argument is none of these.

    Examples
    --------
    Two layers, heavy ball: q = (1 + b) (sqrt(18 + 2 ((1-b)/(1+b))^2) - 2).

    >>> end = window_end(lambda t: heavy_ball_cycle(t, 2, momentum=0.5))
    >>> bool(abs(end.rate - 1.5 * (np.sqrt(18 + 2 / 9) - 2)) < 1e-12)
    True
    """

    validate.function("cycle", cycle)
    start, stop = validate.number("start", start, sign=">= 0"), validate.number("stop", stop, sign="> 0")
    if not start < stop:
        raise ValueError(f"start, stop: got {start}, {stop}, needs start < stop")
    pieces = validate.integer("pieces", pieces, least=1, most=10**6)

    def flip(t):
        try:
            c = cycle(t)
        except ValueError as error:
            raise ValueError(f"cycle, start, stop: there is none at t = {t}: {error}") from error
        if not isinstance(c, Cycle):
            raise ValueError(f"cycle: got {validate.short(c)} from it, needs a Cycle")
        return 1 + c.trace + c.determinant

    grid = np.linspace(start, stop, pieces + 1)
    values = np.array([flip(t) for t in grid])
    change = np.flatnonzero(values[:-1] * values[1:] <= 0)
    if change.size == 0:
        raise ValueError(f"cycle: it keeps attracting, or never does, for t from start = {start} to stop = {stop}")
    return cycle(brentq(flip, grid[change[0]], grid[change[0] + 1], xtol=1e-15))
