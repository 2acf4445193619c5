"""As the paper's authors work: torch modules in float32, autograd at each step, one learning rate after another.

Written after what their public code does, not copied from it: gradients by ``backward``, three ``torch.svd`` a step, the sharpness by
ARPACK on Hessian-vector products that are made from scratch each time, the Hessian row by row.
"""

from __future__ import annotations

import copy

import numpy as np
import sympy as sp
import torch
from scipy.sparse.linalg import LinearOperator, eigsh


class DeepLinear(torch.nn.Module):
    """A product of square layers."""

    def __init__(self, W, dtype=torch.float32):
        super().__init__()
        self.layers = torch.nn.ParameterList([torch.tensor(np.array(w), dtype=dtype) for w in W])

    def forward(self):
        out = self.layers[0]
        for layer in self.layers[1:]:
            out = layer @ out
        return out


def train(W, M, rate, steps, keep=None):
    """Gradient descent by autograd; loss and singular values of the product, and those of two layers, at each step.

    Returns losses (steps + 1,) and singular values of the product (steps + 1, d), or of the last `keep` states.
    """
    model, target = DeepLinear(W), torch.tensor(M, dtype=torch.float32)
    losses, products, first, last = [], [], [], []
    for step in range(steps + 1):
        model.zero_grad()
        product = model()
        loss = 0.5 * torch.norm(product - target) ** 2
        loss.backward()
        losses.append(loss.item())
        products.append(torch.svd(product.detach())[1].numpy())
        first.append(torch.svd(model.layers[0].detach())[1].numpy())
        last.append(torch.svd(model.layers[-1].detach())[1].numpy())
        if step < steps:
            with torch.no_grad():
                for layer in model.layers:
                    layer -= rate * layer.grad
    return np.array(losses)[-(keep or 0) :], np.array(products)[-(keep or 0) :]


def train_in_a_notebook(W, M, rate, steps):
    """The same with an optimiser, and a copy of the model kept at each step, whose singular values are taken afterwards."""
    model, target = DeepLinear(W), torch.tensor(M, dtype=torch.float32)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate)
    losses, history = [], []
    for _ in range(steps + 1):
        optimiser.zero_grad()
        loss = 0.5 * torch.norm(model() - target) ** 2
        loss.backward()
        losses.append(loss.item())
        history.append(copy.deepcopy(model))
        optimiser.step()
    return np.array(losses), np.array([torch.linalg.svdvals(kept().detach()).numpy() for kept in history])


def sharpness(W, M, k=1):
    """The k largest eigenvalues of the Hessian, largest first: ARPACK, and both derivatives anew for each product."""
    model, target = DeepLinear(W), torch.tensor(M, dtype=torch.float32)
    parameters = list(model.parameters())
    size = sum(p.numel() for p in parameters)

    def product(vector):
        v = torch.from_numpy(np.asarray(vector, dtype=np.float32).reshape(-1))
        loss = 0.5 * torch.norm(model() - target) ** 2
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        flat = torch.cat([g.reshape(-1) for g in gradient])
        second = torch.autograd.grad(flat @ v, parameters)
        return torch.cat([h.reshape(-1) for h in second]).numpy()

    operator = LinearOperator((size, size), matvec=product, dtype=np.float32)
    return eigsh(operator, k=k, which="LA", return_eigenvectors=False)[::-1]


def full_hessian(W, M):
    """The Hessian, one entry of the gradient differentiated after another."""
    model, target = DeepLinear(W), torch.tensor(M, dtype=torch.float32)
    parameters = list(model.parameters())
    loss = 0.5 * torch.norm(model() - target) ** 2
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    rows = []
    for entry in gradient:
        second = torch.autograd.grad(entry, parameters, retain_graph=True)
        rows.append(torch.cat([h.reshape(-1) for h in second]))
    return torch.stack(rows).numpy()


def one_mode(target, depth, rate, start, steps):
    """The scalar network by SymPy: gradient and Hessian made into functions once; its eigenvalues at each step.

    All layers carry the same number. Returns the layer's value at each step.
    """
    layers = sp.symbols(f"s0:{depth}")
    loss = (sp.prod(layers) - target) ** 2 / 2
    gradient = sp.lambdify(layers, [sp.diff(loss, s) for s in layers])
    hessian = sp.lambdify(layers, sp.hessian(loss, layers))
    state, orbit, curvature = np.full(depth, float(start)), [], []
    for _ in range(steps):
        state = state - rate * np.array(gradient(*state))
        orbit.append(state[0])
        curvature.append(np.linalg.eigvals(np.array(hessian(*state), dtype=float)).real.max())
    return np.array(orbit)
