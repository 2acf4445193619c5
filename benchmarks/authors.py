"""As the paper's authors work: torch modules in float32, autograd at each step, one learning rate after another.

Written after what their public code does, not copied from it. Their script takes each step with an optimiser, evaluates the loss once
more after it, and decomposes each of the three layers with ``torch.svd``; their notebooks keep a copy of the model instead. Momentum
and the progress bar of the script are left out.
"""

from __future__ import annotations

import copy

import numpy as np
import sympy as sp
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch.nn.utils import parameters_to_vector


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


def train(W, M, rate, steps):
    """The script's loop: step, loss, three decompositions, the four largest values of each layer kept one by one.

    Returns the losses after each step (steps,), the singular values of the layers (layers, steps, 4), and those of the last product.
    """
    model, target = DeepLinear(W), torch.tensor(M, dtype=torch.float32)
    criterion = torch.nn.MSELoss(reduction="sum")  # twice the loss, so half the rate
    optimiser = torch.optim.SGD(model.parameters(), lr=rate / 2)
    losses = []
    values = [[[] for _ in range(min(4, len(M)))] for _ in model.layers]
    for _ in range(steps):
        optimiser.zero_grad()
        training = criterion(model(), target)
        training.backward()
        optimiser.step()
        after = criterion(model(), target)
        losses.append(after.detach().numpy() / 2)
        with torch.no_grad():
            for kept, layer in zip(values, model.layers, strict=True):
                _, s, _ = torch.svd(layer)
                for history, value in zip(kept, s, strict=False):
                    history.append(value.detach().numpy())
        if f"{training:.2e}, {after:.2e}" == "nan, nan":  # the two numbers that their progress bar shows
            break
    return np.array(losses), np.array(values).swapaxes(-1, -2), torch.linalg.svdvals(model().detach()).numpy()


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
    """The k eigenvalues of largest modulus as the script finds them: two passes and two derivatives anew for each product of ARPACK."""
    model, target = DeepLinear(W), torch.tensor(M, dtype=torch.float32)
    criterion = torch.nn.MSELoss(reduction="sum")
    size = len(parameters_to_vector(model.parameters()))

    def product(vector):
        v = torch.tensor(vector, dtype=torch.float32).reshape(-1)
        model.zero_grad()
        model()  # their code runs the network once for an output that it does not use
        gradient = torch.autograd.grad(criterion(model(), target), model.parameters(), create_graph=True)
        directional = torch.dot(parameters_to_vector(gradient), v)
        second = torch.autograd.grad(directional, model.parameters(), retain_graph=True)
        return parameters_to_vector(second).detach().numpy()

    values, _ = eigsh(LinearOperator((size, size), matvec=product, dtype=np.float32), k)
    return np.sort(values)[::-1] / 2  # of twice the loss


def sharpness_in_a_notebook(W, M, k=1):
    """The same with one pass for each product, and no eigenvectors."""
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
        second = torch.autograd.grad(entry, parameters, create_graph=True)
        rows.append(torch.cat([h.reshape(-1) for h in second]).detach().numpy())
    return np.stack(rows).T


def one_mode(target, depth, rate, start, steps):
    """The scalar network by SymPy: gradient and Hessian made into functions once; its eigenvalues at each step.

    All layers carry the same number. Returns the layer's value after each step.
    """
    layers = sp.symbols(f"s0:{depth}")
    loss = (sp.prod(layers) - target) ** 2 / 2
    gradient = sp.lambdify(layers, [sp.diff(loss, s) for s in layers])
    hessian, value = sp.lambdify(layers, sp.hessian(loss, layers)), sp.lambdify(layers, loss)
    state, orbit, curvature, losses = np.full(depth, float(start)), [], [], []
    for _ in range(steps):
        state = state - rate * np.array(gradient(*state))
        orbit.append(state[0])
        losses.append(value(*state))
        curvature.append(np.linalg.eigvals(np.array(hessian(*state), dtype=float)).real.max())
    return np.array(orbit)
