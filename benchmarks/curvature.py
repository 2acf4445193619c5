"""Rows on Hessians: the sharpness along a run, ten eigenvalues with their multiplicities, the dense matrix, torch networks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eoslib import hessian

from . import ours
from .clock import Candidate, compare
from .linear import DEPTH, row

FLOAT32 = 1e-4  # of the largest eigenvalue: ARPACK at the precision of float32
TOP = 10
RATE, OUTPUTS = 0.3, 10  # of the tanh networks


def sharpness(size: dict, limits: dict) -> Iterator[dict]:
    """The sharpness at each step of a run at its edge."""
    for width in size["sharpness"]:
        M, states = ours.edge_states(width, size["states"])
        few = np.arange(0, size["states"], max(1, size["states"] // 4))[:4]

        def peer(function, M=M, states=states, few=few):
            note = f"{len(few)} of {len(states)} states"
            run = lambda: np.array([function(states[i], M)[0] for i in few])  # noqa: E731
            return Candidate(run, len(few), lambda values: values, FLOAT32, "float32", note, lambda answer: answer[few])

        def authors(name, peer=peer):
            from . import authors

            return peer(getattr(authors, name))

        def cohen(peer=peer):
            from . import others

            return peer(lambda W, M: others.cohen(*others.linear_network(W, M), others.half_squares))

        mine = Candidate(lambda M=M, states=states: hessian.sharpness(states, M), len(states), lambda values: values)
        peers = {
            "the authors": lambda authors=authors: authors("sharpness"),
            "the authors' notebook": lambda authors=authors: authors("sharpness_in_a_notebook"),
            "Cohen et al.": cohen,
        }
        report = compare(mine, peers, rounds=size["rounds"], budget=size["budget"])
        settings = {"d": width, "L": DEPTH, "states": len(states)}
        found = hessian.sharpness(states, M)[few]
        if width <= 20:
            exact = np.linalg.eigvalsh(hessian.dense(states[few], M))[:, -1]
        else:  # closed form of aligned states
            exact = ours.spectrum(states[few], M, 1)[:, 0]
        worst = float(np.abs(found / exact - 1).max())
        title = f"Sharpness at each step of a run at its edge, d = {width}"
        yield row(f"sharpness-{width}", title, "evaluation", settings, report, error=worst)


def largest(size: dict, limits: dict) -> Iterator[dict]:
    """The ten largest eigenvalues with their multiplicities, along a run at its edge from an aligned start."""
    for width in size["ten largest"]:
        M, states = ours.edge_states(width, 32)

        def authors(name, M=M, states=states):
            from . import authors

            run = lambda: getattr(authors, name)(states[0], M, TOP)  # noqa: E731
            return Candidate(run, 1, lambda values: values, FLOAT32, "float32", part=lambda answer: answer[0])

        peers = {
            "the authors": lambda authors=authors: authors("sharpness"),
            "the authors' notebook": lambda authors=authors: authors("sharpness_in_a_notebook"),
        }

        mine = Candidate(
            lambda M=M, states=states: ours.spectrum(states, M, TOP), len(states), lambda values: values
        )
        report = compare(mine, peers, rounds=size["rounds"], budget=size["budget"])
        exact = hessian.sharpness(states[:1], M, k=TOP, tolerance=1e-9)  # a block Krylov space, its error the square of that
        worst = np.abs(ours.spectrum(states[:1], M, TOP) - exact).max() / exact.max()
        settings = {"d": width, "L": DEPTH, "eigenvalues": TOP, "states": len(states)}
        title = f"Ten largest eigenvalues with multiplicities, d = {width}"
        yield row(f"ten-largest-{width}", title, "evaluation", settings, report, error=worst)


def dense(size: dict, limits: dict) -> Iterator[dict]:
    """The whole Hessian as a matrix."""
    for width in size["dense"]:
        M, states = ours.edge_states(width, 1)
        W = states[0] + 0.1 * np.random.default_rng(2).standard_normal(states[0].shape)

        def authors(W=W, M=M):
            from . import authors

            return Candidate(lambda: authors.full_hessian(W, M), 1, lambda H: H, FLOAT32, "float32")

        def functional(W=W, M=M):
            from . import others

            return Candidate(lambda: others.full_hessian(W, M), 1, lambda H: H)

        def in_jax(W=W, M=M):
            from . import in_jax

            return Candidate(in_jax.full_hessian(W, M), 1, lambda H: H)

        peers = {"the authors": authors, "torch.func": functional, "JAX, jit(hessian)": in_jax}
        mine = Candidate(lambda W=W, M=M: hessian.dense(W, M), 1, lambda H: H)
        report = compare(mine, peers, rounds=size["rounds"], budget=size["budget"])
        settings = {"d": width, "L": DEPTH, "parameters": DEPTH * width**2}
        yield row(f"dense-{width}", f"Dense Hessian, d = {width}", "matrix", settings, report)


def networks(size: dict, limits: dict) -> Iterator[dict]:
    """The sharpness of a tanh network on full-batch data, below its edge and at it; also in gradient steps."""
    for name, (samples, inputs, hidden, below, at) in size["network"].items():
        for where, trained in (("below", below), ("at", at)):
            yield _network(name, samples, inputs, hidden, where, trained, size)


def _network(name, samples, inputs, hidden, where, trained, size):
    import torch

    from eoslib import training

    from . import others

    torch.set_num_threads(1)
    model, X, y = _trained(samples, inputs, hidden, trained)
    tolerance = 1e-2  # of the residual, which bounds the error; a separated eigenvalue is known to its square

    def mean(output, target):
        return ((output - target) ** 2).sum() / (2 * samples)

    def loss(network):
        return mean(network(X), y)

    def peer(function, tolerance, note=""):
        run = lambda: np.atleast_1d(function(model, X, y, mean))  # noqa: E731
        return lambda: Candidate(run, 1, lambda value: value, tolerance, "float32", note)

    def step():
        gradient = torch.autograd.grad(loss(model), list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradient, strict=True):
                p.sub_(g, alpha=0.0)  # the state stays, the work is done

    unbounded = "stops when a step changes its value by less than 1e-3, which bounds no error; 0.2 is let pass"
    peers = {
        "Cohen et al.": peer(others.cohen, 2 * tolerance),
        "PyHessian's method": peer(others.power_iteration, 0.2, unbounded),
        "PyHessian": peer(others.pyhessian, 0.2, unbounded),
        "curvlinops": peer(lambda *case: others.curvlinops(*case[:3]), 2 * tolerance, "its operator under ARPACK, tolerance 1e-3"),
    }
    mine = Candidate(lambda: training.sharpness(model, loss, tolerance=tolerance), 1, lambda found: found.values)
    timing = {"rounds": size["rounds"], "budget": size["budget"], "beside": {"gradient step": step}}
    report = compare(mine, peers, **timing)
    exact = _reference(model, X, y)
    measures = {
        "error": abs(training.sharpness(model, loss, tolerance=tolerance).values[0] / exact - 1),
        "gradient steps": report["ours"]["seconds"] / report["beside"]["gradient step"]["seconds"],
        "share of the edge": exact * RATE / 2,
    }
    settings = {"samples": samples, "widths": [inputs, hidden, hidden, OUTPUTS], "step": trained, "rate": RATE}
    title = f"Sharpness of a tanh network {inputs}-{hidden}-{hidden}-{OUTPUTS}, {where} the edge"
    return row(f"network-{name}-{where}", title, "evaluation", settings | {"tolerance": tolerance}, report, **measures)


def _trained(samples, inputs, hidden, steps):
    """A tanh network after so many full-batch steps, its inputs and targets."""
    import torch

    draw = torch.Generator().manual_seed(0)
    X = torch.randn((samples, inputs), generator=draw)

    def build(*sizes):
        parts = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layer = torch.nn.Linear(before, after)
            with torch.no_grad():
                layer.weight.copy_(torch.randn((after, before), generator=draw) / before**0.5)
                layer.bias.zero_()
            parts += [layer, torch.nn.Tanh()]
        return torch.nn.Sequential(*parts[:-1])

    teacher, model = build(inputs, hidden, OUTPUTS), build(inputs, hidden, hidden, OUTPUTS)
    with torch.no_grad():
        y = torch.sin(3 * teacher(X))
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        (((model(X) - y) ** 2).sum() / (2 * samples)).backward()
        optimiser.step()
    return model, X, y


def _reference(model, X, y):
    """The largest eigenvalue to 1e-9, by ARPACK on products in float64."""
    import copy

    import torch
    from scipy.sparse.linalg import LinearOperator, eigsh

    twin, X, y = copy.deepcopy(model).double(), X.double(), y.double()
    parameters = list(twin.parameters())
    value = ((twin(X) - y) ** 2).sum() / (2 * len(X))
    gradient = torch.autograd.grad(value, parameters, create_graph=True)

    def product(vector):
        pieces = torch.from_numpy(np.array(vector).reshape(-1)).split([p.numel() for p in parameters])
        pieces = [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]
        second = torch.autograd.grad(gradient, parameters, pieces, retain_graph=True)
        return np.concatenate([h.reshape(-1).numpy() for h in second])

    size = sum(p.numel() for p in parameters)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    return float(eigsh(operator, k=1, which="LA", tol=1e-5, return_eigenvectors=False)[0])
