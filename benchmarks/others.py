"""As others work with torch: Cohen et al. (2021), PyHessian, curvlinops, and ``torch.func``; written after their public code.

The first three take a network, data and a loss, as they do; a deep linear network is one of linear layers fitted to the columns
of its target on the unit vectors.
"""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch.nn.utils import parameters_to_vector
from torch.utils.data import DataLoader, TensorDataset


def linear_network(W, M, dtype=torch.float32):
    """Network, inputs and targets: half the summed squared error is the loss of the deep linear network."""
    layers = [torch.nn.Linear(w.shape[1], w.shape[0], bias=False, dtype=dtype) for w in W]
    with torch.no_grad():
        for layer, w in zip(layers, W, strict=True):
            layer.weight.copy_(torch.tensor(np.array(w)))
    eye = torch.eye(M.shape[1], dtype=dtype)
    return torch.nn.Sequential(*layers), eye, torch.tensor(M.T.copy(), dtype=dtype)


def half_squares(output, target):
    """Half the summed squared error."""
    return 0.5 * ((output - target) ** 2).sum()


def cohen(network, X, y, loss, k=1, batch=1000):
    """Top eigenvalues by ARPACK; each product goes through a DataLoader and differentiates twice, nothing kept.

    `loss` of a batch, such that batches add up; `batch` is the physical batch size of their code.
    """
    parameters, data = list(network.parameters()), TensorDataset(X, y)
    size = len(parameters_to_vector(parameters))

    def product(vector):
        v = torch.tensor(vector, dtype=torch.float32).reshape(-1)
        total = torch.zeros(size)
        for inputs, targets in DataLoader(data, batch_size=batch, shuffle=False):
            value = loss(network(inputs), targets)
            gradient = torch.autograd.grad(value, parameters, create_graph=True)
            directional = parameters_to_vector(gradient).mul(v).sum()
            second = torch.autograd.grad(directional, parameters, retain_graph=True)
            total += parameters_to_vector([h.contiguous() for h in second])
        return total.numpy()

    operator = LinearOperator((size, size), matvec=product, dtype=np.float32)
    values, _ = eigsh(operator, k)
    return np.sort(values)[::-1]


def power_iteration(network, X, y, loss, tolerance=1e-3, most=100):
    """Top eigenvalue by power iteration on the kept graph, until its relative change in a step is below `tolerance`."""
    parameters = list(network.parameters())
    gradient = torch.autograd.grad(loss(network(X), y), parameters, create_graph=True)
    v = [torch.randn_like(p) for p in parameters]
    value = None
    for _ in range(most):
        norm = torch.sqrt(sum((a * a).sum() for a in v))
        v = [a / (norm + 1e-6) for a in v]
        product = torch.autograd.grad(gradient, parameters, grad_outputs=v, retain_graph=True)
        found = float(sum((a * b).sum() for a, b in zip(v, product, strict=True)))
        if value is not None and abs(value - found) / (abs(value) + 1e-6) < tolerance:
            return found
        value, v = found, [h.detach() for h in product]
    return value


def pyhessian(network, X, y, loss):
    """The published package, on the processor, with its own defaults."""
    package = importlib.import_module("pyhessian")
    values, _ = package.hessian(network, loss, data=(X, y), cuda=False).eigenvalues(maxIter=100, tol=1e-3, top_n=1)
    return values[0]


def curvlinops(network, X, y):
    """The published package's operator under SciPy's ARPACK, tolerance 1e-3, for half the squared error, mean over samples."""
    package = importlib.import_module("curvlinops")
    parameters = [p for p in network.parameters() if p.requires_grad]
    loss = torch.nn.MSELoss()  # the package knows torch's losses; this one averages over outputs too
    operator = package.HessianLinearOperator(network, loss, parameters, [(X, y)], check_deterministic=False)
    values = eigsh(operator.to_scipy(), k=1, which="LA", tol=1e-3, return_eigenvectors=False)
    return float(values[0]) * y.shape[1] / 2


def _loss(layers, target):
    """Loss of a deep linear network, layers (L, d, d)."""
    out = layers[0]
    for i in range(1, layers.shape[0]):
        out = layers[i] @ out
    return 0.5 * ((out - target) ** 2).sum()


def sweep(W, M, rates, steps, keep):
    """All rates at once by ``torch.func.vmap(grad)`` in float64; singular values (n, keep, d) of the last states."""
    W, M, rates = (torch.tensor(np.array(a), dtype=torch.float64) for a in (W, M, rates))
    gradient = torch.func.vmap(torch.func.grad(_loss), in_dims=(0, None))
    state, kept = W.expand(len(rates), *W.shape).contiguous(), []
    with torch.no_grad():
        for step in range(steps + 1):
            if step > steps - keep:
                product = state[:, 0]
                for i in range(1, W.shape[0]):
                    product = state[:, i] @ product
                kept.append(product)
            if step < steps:
                state = state - rates[:, None, None, None] * gradient(state, M)
    return torch.linalg.svdvals(torch.stack(kept, dim=1)).numpy()


def full_hessian(W, M):
    """``torch.func.hessian`` in float64, as a matrix."""
    W, M = torch.tensor(np.array(W)), torch.tensor(M)
    with warnings.catch_warnings():  # some releases of torch warn of what they use themselves
        warnings.filterwarnings("ignore", message=".torch.jit.script")
        return torch.func.hessian(_loss)(W, M).reshape(W.numel(), W.numel()).numpy()
