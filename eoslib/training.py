r"""Full-batch gradient descent of torch networks, watched: loss, singular values of layers, eigenvalues of the Hessian.

Everything here takes a module and a function ``loss(module) -> scalar tensor`` that holds the data. The module is copied;
its mode, weights, gradients and buffers stay as they were, and so do torch's thread count, default dtype and random state.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import validate

Loss = Callable[[torch.nn.Module], torch.Tensor]


@dataclass(frozen=True)
class Eigenvalues:
    """Extreme eigenvalues of a symmetric operator on n numbers, counted with multiplicity."""

    values: np.ndarray  # (k,) float64, outermost first
    residuals: np.ndarray  # (k,), |H v - value v|: an eigenvalue lies at most this far away
    vectors: torch.Tensor  # (k, n), orthonormal, on the network's device
    products: int  # products of the operator with a vector that it took


@dataclass(frozen=True)
class Run:
    """What `descend` returns; T states are recorded, S of them with eigenvalues.

    From step ``diverged_at`` on, what was recorded is ``inf``; ``model`` is then the last state with a finite loss.
    """

    model: torch.nn.Module  # the trained copy
    steps: np.ndarray  # (T,), which states were recorded; 0 is the start
    loss: np.ndarray  # (T,)
    singular_values: dict[str, np.ndarray]  # parameter's name to (T, k), largest first
    sharpness_steps: np.ndarray  # (S,)
    sharpness: np.ndarray  # (S, k), largest eigenvalues of the Hessian
    residuals: np.ndarray  # (S, k), bounds on their distance from an eigenvalue
    observed: dict[str, np.ndarray]  # (T, ...), values of the caller's functions
    diverged_at: int | None  # first step whose loss is not finite

    @property
    def diverged(self) -> bool:
        """Whether some loss was not finite."""
        return self.diverged_at is not None


def sharpness(
    model: torch.nn.Module,
    loss: Loss,
    *,
    k: int = 1,
    smallest: bool = False,
    tolerance: float = 1e-5,
    block: int | None = None,
    basis: int | None = None,
    products: int = 2000,
    seed: int = 0,
    threads: int | None = 1,
) -> Eigenvalues:
    r"""The `k` largest eigenvalues of the Hessian of ``loss(model)`` in the parameters that require gradients.

    A block Krylov method with full reorthogonalisation and thick restarts, each time from new random vectors: no start
    is reused, because at the edge of stability the top eigenvector changes and a warm start then returns another
    eigenvalue with a small residual. A block of `k` vectors finds every copy of a repeated eigenvalue.

    Parameters
    ----------
    model : torch.nn.Module
        Of float32 or float64 parameters on one device.
    loss : callable
        ``loss(model)`` is the full-batch loss, twice differentiable; for ReLU networks the Hessian is the one almost
        everywhere.
    k : int
        How many eigenvalues.
    smallest : bool
        The smallest (most negative) ones instead.
    tolerance : float
        Wanted residual of each eigenvalue, at most 1, relative to its modulus, or to a thousandth of the largest modulus met if that
        is more; the error of a well separated eigenvalue is its square. The rounding of a product is the floor: 30 units
        of the last place of the largest, 4e-6 of it in float32.
    block : int, optional
        Vectors per step of the method, `k` by default.
    basis : int, optional
        Vectors kept before a restart, which leaves the outer half of them and at least `k` + `block`. By default six
        blocks, and at least 30 and 3 `k`.
    products : int
        Products after which the method gives up.
    seed : int
        Of the random start.
    threads : int or None
        torch's threads meanwhile, at most 1024; ``None`` leaves them.

    Returns
    -------
    Eigenvalues

    Raises
    ------
    ValueError
        On bad arguments, or a loss that is not finite or does not depend on the model it is given.
    RuntimeError
        If the residuals do not reach the tolerance.

    Notes
    -----
    The residual ``norm(H v - λ v)`` of a unit vector bounds the distance of λ to the nearest eigenvalue of a symmetric H (Parlett,
    *The Symmetric Eigenvalue Problem*, 4.5), up to the rounding of the product. That it is the *largest* one rests on the
    random start.

    Examples
    --------
    A quadratic with known curvatures 3, 3 and 1:

    >>> model = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    >>> curvature = torch.tensor([3.0, 3.0, 1.0], dtype=torch.float64)
    >>> sharpness(model, lambda m: (curvature * m.weight**2).sum() / 2, k=3).values
    array([3., 3., 1.])
    """
    k = validate.integer("k", k, least=1)
    parameters = _parameters(model)
    size = sum(p.numel() for p in parameters)
    if k > size:
        raise ValueError(f"k: got {k}, needs at most {size}, the number of parameters")
    block = k if block is None else validate.integer("block", block, least=1)
    basis = max(6 * block, 30, 3 * k) if basis is None else validate.integer("basis", basis, least=k + 2 * block)
    products = validate.integer("products", products, least=1)
    if products < k + block:
        raise ValueError(f"products: got {products} with k = {k} and block = {block}, needs at least k + block")
    validate.function("loss", loss)
    tolerance, smallest = _tolerance(tolerance), validate.flag("smallest", smallest)
    twin = copy.deepcopy(model)
    with _undisturbed(parameters, seed, threads), torch.enable_grad():
        parameters = _parameters(twin)
        gradients = _gradients(twin, loss, parameters, graph=True)[1]
        return _extreme(_hessian(gradients, parameters), parameters[0], size, k, block, basis, tolerance, products, smallest)


def singular_values(matrix: torch.Tensor, k: int) -> np.ndarray:
    r"""The `k` largest singular values of a weight, largest first, from the eigenvalues of its Gram matrix in float64.

    Axes after the first are joined. The error of σ is about 1e-16 σ₁²/σ, so it is below 1e-10 σ₁ down to σ = 1e-6 σ₁.

    Examples
    --------
    >>> singular_values(torch.diag(torch.tensor([1.0, 3.0, 2.0])), 2)
    array([3., 2.])
    """
    k = validate.integer("k", k, least=1)
    if not isinstance(matrix, torch.Tensor) or matrix.ndim < 2:
        raise ValueError(f"matrix: got {getattr(matrix, 'shape', type(matrix))}, needs a tensor of two axes or more")
    if matrix.is_complex() or matrix.layout != torch.strided:
        raise ValueError(f"matrix: got one of {matrix.dtype} and {matrix.layout}, needs a real and dense one")
    A = matrix.detach().flatten(1).double()
    A = A if A.shape[0] <= A.shape[1] else A.mT
    if k > A.shape[0]:
        raise ValueError(f"k: got {k}, needs at most {A.shape[0]}")
    size = A.abs().max()
    if not torch.isfinite(size):
        raise ValueError("matrix: got entries that are not finite, needs finite numbers")
    if size == 0:
        return np.zeros(k)
    A = A / size
    values = torch.linalg.eigvalsh(A @ A.mT)[-k:].flip(0)
    return (values.clamp(min=0).sqrt() * size).cpu().numpy()


def descend(
    model: torch.nn.Module,
    loss: Loss,
    learning_rate: float | Callable[[int], float],
    steps: int,
    *,
    every: int = 1,
    layers: list[str] | None = None,
    k: int = 0,
    sharpness_every: int = 0,
    sharpness_at: Sequence[int] = (),
    eigenvalues: int = 1,
    tolerance: float = 1e-3,
    observe: dict[str, Callable[[torch.nn.Module], object]] | None = None,
    seed: int = 0,
    threads: int | None = 1,
    progress: bool = False,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 100,
) -> Run:
    r"""Gradient descent θ ← θ - η ∇loss on a copy of `model`, recording what the edge of stability is about.

    Parameters
    ----------
    model, loss
        As in `sharpness`.
    learning_rate : float or callable
        η > 0, neither zero nor infinite in the dtype of the weights; or a function of t, its value at step t, >= 0.
    steps : int
        Number of updates; states 0 to `steps` exist.
    every : int
        States recorded: every so many steps.
    layers : list of str, optional
        Names of the parameters whose singular values are recorded; all with two axes or more by default.
    k : int
        How many singular values of each (fewer where a layer has fewer); 0 records none.
    sharpness_every : int
        The Hessian's largest eigenvalues every so many steps; 0 never.
    sharpness_at : sequence of int
        Further steps at which they are wanted.
    eigenvalues, tolerance
        ``k`` and ``tolerance`` of `sharpness` there.
    observe : dict of str to callable, optional
        More functions of the network, recorded with the loss; they must leave it as it is.
    seed : int
        Of torch's random state during the run (dropout) and of the eigenvalue method.
    threads : int or None
        torch's threads meanwhile, at most 1024; ``None`` leaves them.
    progress : bool
        A bar on stderr (needs tqdm).
    checkpoint : path, optional
        A file, in a folder that is there, that the run continues from when it is started again after an interruption. It is
        removed at the end. A checkpoint of another run (weights, loss at the start, settings, one of the first 1000 rates)
        is refused.
    checkpoint_every : int
        Steps between checkpoints.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        On bad arguments, a loss that is not finite at the start or does not depend on the model, or a checkpoint that is
        another run's or was altered.

    Examples
    --------
    One weight, loss w²/2, rate 1/2: each step halves the weight.

    >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.constant_(model.weight, 4.0)
    >>> run = descend(model, lambda m: (m.weight**2).sum() / 2, 0.5, 2, k=1, sharpness_every=2)
    >>> run.loss, run.singular_values["weight"][:, 0], run.sharpness[:, 0]
    (array([8. , 2. , 0.5]), array([4., 2., 1.]), array([1., 1.]))
    """
    steps, every = validate.integer("steps", steps, least=0), validate.integer("every", every, least=1)
    parameters = _parameters(model)
    rate = _rate(learning_rate, str(parameters[0].dtype).removeprefix("torch."))
    options = {
        "k": validate.integer("k", k, least=0),
        "sharpness_every": validate.integer("sharpness_every", sharpness_every, least=0),
        "sharpness_at": _steps(sharpness_at),
        "eigenvalues": validate.integer("eigenvalues", eigenvalues, least=1),
        "tolerance": _tolerance(tolerance),
        "seed": validate.integer("seed", seed, least=0),
    }
    validate.integer("checkpoint_every", checkpoint_every, least=1)
    validate.function("loss", loss)
    if checkpoint is not None and (not isinstance(checkpoint, (str, os.PathLike)) or "\0" in str(checkpoint)):
        raise ValueError(f"checkpoint: got {validate.short(checkpoint)}, needs a path")
    if checkpoint is not None and (Path(checkpoint).is_dir() or not Path(checkpoint).parent.is_dir()):
        raise ValueError(f"checkpoint: got {validate.short(checkpoint)}, needs the path of a file in a folder that is there")
    observe, progress = validate.functions("observe", observe), validate.flag("progress", progress)
    twin = copy.deepcopy(model)
    names = _layers(twin, layers) if k else []
    with _undisturbed(parameters, seed, threads), torch.enable_grad():
        recorder = _Recorder(twin, loss, every, names, options, observe)
        store = _Checkpoint(checkpoint, twin, loss, rate, steps, every, names, options, sorted(observe))
        first = store.resume(recorder)
        for step in _counted(range(first, steps + 1), progress, steps):
            if step > first and checkpoint and step % checkpoint_every == 0:
                store.save(step, recorder)
            gradients = recorder.look(step)
            if gradients is None:
                break
            if step < steps:
                recorder.move(gradients, rate(step))
        run = recorder.result(steps)
    if checkpoint:
        Path(checkpoint).unlink(missing_ok=True)
    return run


class _Recorder:
    """The network on its way and the lists that fill up."""

    def __init__(self, model, loss, every, names, options, observe):
        self.model, self.loss, self.every, self.names, self.options = model, loss, every, names, options
        self.observe = observe
        self.parameters = _parameters(model)
        self.previous = None
        self.diverged_at = None
        self.lists = {"loss": [], "sharpness": [], "residual": []}
        self.lists |= {f"singular/{name}": [] for name in names} | {f"observed/{name}": [] for name in observe}

    def look(self, step):
        """Record the state at `step` and return its gradient, or ``None`` if the loss is not finite."""
        options, lists = self.options, self.lists
        curved = self.curved(step)
        try:
            value, gradients = _gradients(self.model, self.loss, self.parameters, graph=curved)
        except _NotFinite:
            if step == 0:
                raise
            self.diverged_at = step
            return None
        if step % self.every == 0:
            lists["loss"].append(value)
            weights = dict(self.model.named_parameters())
            for name in self.names:
                weight = weights[name]
                k = min(options["k"], weight.shape[0], weight[0].numel())
                lists[f"singular/{name}"].append(singular_values(weight, k))
            with torch.no_grad():
                for name, function in self.observe.items():
                    value = function(self.model)
                    value = value.numpy(force=True) if isinstance(value, torch.Tensor) else value
                    lists[f"observed/{name}"].append(np.array(value, dtype=float))  # a copy: weights change in place
        if curved:
            found = self.curvature(gradients)
            lists["sharpness"].append(found.values)
            lists["residual"].append(found.residuals)
        return [g.detach() for g in gradients]

    def curved(self, step):
        every = self.options["sharpness_every"]
        return bool(every and step % every == 0) or step in self.options["sharpness_at"]

    def curvature(self, gradients):
        k, size = self.options["eigenvalues"], sum(p.numel() for p in self.parameters)
        if k > size:
            raise ValueError(f"eigenvalues: got {k}, needs at most {size}, the number of parameters")
        operator = _hessian(gradients, self.parameters)
        return _extreme(
            operator, self.parameters[0], size, k, k, max(6 * k, 30), self.options["tolerance"], 2000, False
        )

    def move(self, gradients, rate):
        with torch.no_grad():
            self.previous = [p.detach().clone() for p in self.parameters]
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter -= rate * gradient

    def result(self, steps):
        if self.diverged_at is not None:
            with torch.no_grad():
                for parameter, old in zip(self.parameters, self.previous, strict=True):
                    parameter.copy_(old)
        lists = self.lists
        counts = {"all": np.arange(0, steps + 1, self.every)}
        counts["curved"] = np.array([step for step in range(steps + 1) if self.curved(step)], dtype=int)
        k = self.options["eigenvalues"]
        return Run(
            model=self.model,
            steps=counts["all"],
            loss=_padded(lists["loss"], len(counts["all"]), ()),
            singular_values={n: _padded(lists[f"singular/{n}"], len(counts["all"])) for n in self.names},
            sharpness_steps=counts["curved"],
            sharpness=_padded(lists["sharpness"], len(counts["curved"]), (k,)),
            residuals=_padded(lists["residual"], len(counts["curved"]), (k,)),
            observed={n: _padded(lists[f"observed/{n}"], len(counts["all"])) for n in self.observe},
            diverged_at=self.diverged_at,
        )


class _Checkpoint:
    """The state of a run in one file without pickles, replaced in one step."""

    def __init__(self, path, model, loss, rate, steps, every, names, options, observed):
        self.path, self.model = path and Path(path), model
        if not path:
            return
        state = hashlib.sha256()
        for name, value in model.state_dict().items():
            state.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        with torch.no_grad(), torch.random.fork_rng(devices=_devices(model.parameters())):  # the run has not begun
            start = float(loss(copy.deepcopy(model)))
        rates = [rate(t) for t in range(min(steps, 1000))]
        about = {"weights": state.hexdigest(), "loss": start.hex(), "rates": rates}
        about |= {"every": every, "layers": names, "options": options, "observed": observed}
        self.about = json.dumps(about)

    def save(self, step, recorder):
        arrays = {f"list/{key}": np.array(values) for key, values in recorder.lists.items()}
        arrays |= {f"state/{key}": value.cpu().numpy() for key, value in self.model.state_dict().items()}
        arrays |= {f"previous/{i}": value.cpu().numpy() for i, value in enumerate(recorder.previous)}
        arrays |= {"about": np.array(self.about), "step": np.array(step), "random": torch.get_rng_state().numpy()}
        scratch = self.path.with_name(self.path.name + ".partial")
        with scratch.open("wb") as stream:
            np.savez(stream, digest=np.array(_digest(arrays)), **arrays)
        os.replace(scratch, self.path)

    def resume(self, recorder):
        """The step to go on from: 0, or that of the file, whose state is put into the network and the lists."""
        if not self.path or not self.path.exists():
            return 0
        with np.load(self.path, allow_pickle=False) as file:
            stored = {key: file[key] for key in file.files}
        if str(stored.pop("digest", "none")) != _digest(stored):
            raise ValueError(f"checkpoint: {self.path} was altered after it was written; remove it to begin anew")
        old, new = json.loads(str(stored["about"])), json.loads(self.about)
        shared = min(len(old["rates"]), len(new["rates"]))
        old["rates"], new["rates"] = old["rates"][:shared], new["rates"][:shared]
        if differ := sorted(key for key in new if old.get(key) != new[key]):
            raise ValueError(f"checkpoint: {self.path} is of a run with other {', '.join(differ)}; needs the same")
        self.model.load_state_dict(
            {key[6:]: torch.from_numpy(np.array(value)) for key, value in stored.items() if key.startswith("state/")}
        )
        for key in recorder.lists:
            recorder.lists[key] = list(stored[f"list/{key}"])
        like = recorder.parameters  # the state itself may turn out to have no finite loss
        recorder.previous = [torch.from_numpy(stored[f"previous/{i}"]).to(p) for i, p in enumerate(like)]
        torch.set_rng_state(torch.from_numpy(stored["random"]))
        return int(stored["step"])


def _digest(arrays):
    """SHA-256 of arrays by their names."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


class _NotFinite(ValueError):
    pass


def _extreme(operator, like, size, k, block, basis, tolerance, products, smallest):
    """The `k` outermost eigenvalues of a symmetric operator: block Krylov with thick restarts (Krylov-Schur).

    T is the operator in the orthonormal rows of Q; what it does outside their span is R, from the last block alone, so
    the residual of a Ritz vector Qy is the norm of R's combination by the last entries of y.
    """
    sign = -1.0 if smallest else 1.0
    block, basis = min(block, size), min(basis, size)  # the basis has room for k + 2 block vectors, or for all
    draw = torch.Generator().manual_seed(torch.initial_seed())
    Q = torch.empty((basis, size), dtype=like.dtype, device=like.device)
    T, filled, used, scale = np.zeros((basis, basis)), 0, 0, 0.0
    V = _directions(Q.new_zeros((block, size)), Q[:0], 0.0, draw, block)
    first = [operator(v) for v in V]
    unit = float(first[0].abs().max()) or 1.0  # squares of numbers far from 1 would leave the floating-point range
    while True:
        old, filled = filled, filled + len(V)
        Q[old:filled] = V
        R = torch.stack(first if old == 0 else [operator(v) for v in V]) / (sign * unit)
        used += len(V)
        C = np.zeros((filled, len(V)))
        for _ in range(2):  # twice is enough for orthogonality to rounding
            part = Q[:filled] @ R.mT
            R -= part.mT @ Q[:filled]
            C += part.double().cpu().numpy()
        C[old:] = (C[old:] + C[old:].T) / 2
        T[old:filled, :filled] = C.T  # eigh reads the lower triangle
        values, Y = np.linalg.eigh(T[:filled, :filled])
        values, Y = values[::-1], Y[:, ::-1]
        scale = max(scale, np.abs(values).max())
        outside = torch.from_numpy(Y[old:, :k].T.copy()).to(R) @ R
        estimate = torch.linalg.vector_norm(outside, dim=1).double().cpu().numpy()
        bound = _bound(values[:k], scale, tolerance, like.dtype)
        if filled == size or (filled >= k and np.all(estimate <= bound / 2)):
            return _verified(operator, Y[:, :k].T.copy(), Q[:filled], used, smallest, bound, unit)
        if used >= products:
            worst = np.argmax(estimate / bound)
            raise RuntimeError(
                f"products: residual {unit * estimate[worst]:.2g} after {used} of them, needs {unit * bound[worst]:.2g}; "
                "raise `products`, `basis` or `tolerance`"
            )
        V = _directions(R, Q[:filled], scale, draw, min(len(R), size - filled))
        if filled + len(V) > basis:
            filled = max(k + block, basis // 2)
            Q[:filled] = torch.from_numpy(Y[:, :filled].T.copy()).to(Q) @ Q[: len(Y)]
            T[:] = np.diag(np.pad(values[:filled], (0, basis - filled)))


def _bound(values, scale, tolerance, dtype):
    """Residual at which each value counts as found.

    It is relative to the value itself: most of a Hessian's spectrum lies near zero, where any vector has a small residual
    compared with the largest eigenvalue. Nothing can be asked for below the rounding of a product.
    """
    return np.maximum(tolerance * np.maximum(np.abs(values), 1e-3 * scale), 30 * torch.finfo(dtype).eps * scale)


def _directions(R, Q, scale, draw, count):
    """`count` orthonormal rows that span those of `R`, orthogonal to those of `Q`; random where `R` has nothing left."""
    _, sizes, rows = torch.linalg.svd(R, full_matrices=False)
    rows = rows[:count].clone()
    empty = sizes[:count] <= 100 * torch.finfo(R.dtype).eps * scale
    rows[empty] = torch.randn((int(empty.sum()), R.shape[1]), generator=draw, dtype=R.dtype).to(R)
    for _ in range(2):
        rows -= (rows @ Q.mT) @ Q
        rows = torch.linalg.qr(rows.mT).Q.mT.contiguous()
    return rows


def _verified(operator, Y, Q, used, smallest, bound, unit):
    """Ritz values and true residuals in the span of the rows ``Y @ Q``."""
    X = torch.linalg.qr((torch.from_numpy(Y).to(Q) @ Q).mT).Q.mT.contiguous()
    HX = torch.stack([operator(x) / unit for x in X])
    small = (X @ HX.mT).double().cpu().numpy()
    values, turn = np.linalg.eigh((small + small.T) / 2)
    if not smallest:
        values, turn = values[::-1], turn[:, ::-1]
    turn = torch.from_numpy(turn.T.copy()).to(X)
    X, HX = turn @ X, turn @ HX
    rest = HX - torch.from_numpy(values.copy()).to(X)[:, None] * X
    residuals = torch.linalg.vector_norm(rest, dim=1).double().cpu().numpy()
    if np.any(residuals > bound):
        worst = np.argmax(residuals / bound)
        raise RuntimeError(
            f"tolerance: residual {unit * residuals[worst]:.2g} where {unit * bound[worst]:.2g} was asked for: "
            "the rounding of a product is larger; raise `tolerance` or use float64"
        )
    return Eigenvalues(unit * values, unit * residuals, X, used + len(X))


def _gradients(model, loss, parameters, *, graph):
    """Loss and gradient; with ``graph`` they can be differentiated again."""
    value = loss(model)
    if not isinstance(value, torch.Tensor) or value.ndim != 0 or not value.is_floating_point():
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"loss: got {got} from it, needs a function that returns a scalar tensor")
    if not torch.isfinite(value):
        raise _NotFinite(f"loss: got {float(value.detach())}, needs a finite number")
    if not value.requires_grad:
        raise ValueError("loss: does not depend on the model it is given, needs a function of its argument")
    gradients = torch.autograd.grad(value, parameters, create_graph=graph, allow_unused=True)
    if all(g is None for g in gradients):
        raise ValueError("loss: does not depend on the model it is given, needs a function of its argument")
    value = value.detach()
    return float(value), [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]


def _hessian(gradients, parameters):
    """Hessian-vector product from the kept graph of the gradient."""
    curved = [i for i, g in enumerate(gradients) if g.requires_grad]  # the others are constant: no curvature
    outputs = [gradients[i] for i in curved]

    def operator(vector):
        parts = _split(vector, parameters)
        products = torch.autograd.grad(
            outputs, parameters, [parts[i] for i in curved], retain_graph=True, allow_unused=True
        )
        flat = [torch.zeros_like(p) if h is None else h for h, p in zip(products, parameters, strict=True)]
        return torch.cat([h.reshape(-1) for h in flat])

    return operator


def _split(vector, parameters):
    pieces = vector.split([p.numel() for p in parameters])
    return [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]


def _parameters(model):
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model: got {type(model).__name__}, needs a torch.nn.Module")
    parameters = [p for p in model.parameters() if p.requires_grad]
    kinds = {(p.dtype, p.device) for p in parameters}
    if len(kinds) != 1 or next(iter(kinds))[0] not in (torch.float32, torch.float64):
        got = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds)) or "no parameter that requires a gradient"
        raise ValueError(f"model: got {got}, needs parameters of one dtype, float32 or float64, on one device")
    if not all(torch.isfinite(p).all() for p in parameters):
        raise ValueError("model: got parameters that are not finite, needs finite numbers")
    return parameters


def _layers(model, layers):
    weights = {name: p for name, p in model.named_parameters() if p.ndim >= 2}
    if layers is None:
        return list(weights)
    if not isinstance(layers, (list, tuple)) or not all(isinstance(name, str) and name in weights for name in layers):
        raise ValueError(f"layers: got {layers!r}, needs a list of names from {list(weights)}")
    return list(layers)


def _tolerance(value):
    """A relative residual; above one it would say nothing."""
    tolerance = validate.number("tolerance", value, sign="> 0")
    if tolerance > 1:
        raise ValueError(f"tolerance: got {validate.short(value)}, needs a number from 0 to 1")
    return tolerance


def _steps(sharpness_at):
    """Numbers of steps, increasing."""
    try:
        steps = list(sharpness_at)
    except TypeError:
        raise ValueError(f"sharpness_at: got {validate.short(sharpness_at)}, needs a sequence of steps") from None
    return sorted({validate.integer("sharpness_at", step, least=0) for step in steps})


def _devices(parameters):
    """Those with a random state of their own."""
    return sorted({p.device.index for p in parameters if p.device.type == "cuda"})


@contextlib.contextmanager
def _undisturbed(parameters, seed, threads) -> Iterator[None]:
    """torch's random state and thread count are the caller's again afterwards."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=_devices(parameters)):
        torch.manual_seed(validate.integer("seed", seed, least=0))
        try:
            if threads is not None:
                torch.set_num_threads(validate.integer("threads", threads, least=1, most=1024))
            yield
        finally:
            torch.set_num_threads(before)


def _rate(learning_rate, dtype):
    """The learning rate as a function of the step, with finite values."""
    if callable(learning_rate):
        return lambda step: validate.number("learning_rate", learning_rate(step), sign=">= 0")
    rate = validate.positive("learning_rate", learning_rate)
    if rate.ndim:
        raise ValueError(f"learning_rate: got shape {rate.shape}, needs one number or a function of the step")
    validate.cast("learning_rate", learning_rate, rate, dtype)
    return lambda step: float(rate)


def _counted(steps, progress, total):
    if not progress:
        return steps
    from tqdm import tqdm

    return tqdm(steps, total=total + 1, initial=steps.start, desc="descent", unit="step")


def _padded(rows, length, shape=None):
    """Rows as an array of `length`; where the run had diverged, ``inf``."""
    shape = np.shape(rows[0]) if shape is None else shape
    padded = np.full((length, *shape), np.inf)
    padded[: len(rows)] = np.reshape(rows, (len(rows), *shape))
    return padded
