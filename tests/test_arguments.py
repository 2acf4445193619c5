"""Every public function with every kind of bad argument: an error that names the argument, or a finite answer.

A table of calls that work. Each of their arguments is replaced, one at a time, by everything on a list of bad values. What
comes back must be a ValueError or TypeError whose message begins with the argument's name, or, where the value is one that
the argument may have, an answer without NaN; in each case within a few seconds.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import re
import signal
import warnings
from collections import Counter
from decimal import Decimal
from fractions import Fraction

import matplotlib.figure
import numpy as np
import pytest
import sympy as sp
import torch

from eoslib import alignment, averages, balance, bifurcation, data, descent, diagonal, enclose, escape, hessian
from eoslib import landscape, network, optimisers, plot, reduction, scalar, sweep, symbols, torus, training, transverse

SECONDS = 3
W = network.initialise("unbalanced", depth=3, width=2, scale=0.3)
W3 = np.stack([np.diag([2.0, 1.0]), np.diag([1.5, 0.5]), np.diag([1.0, 0.7])])
M, I = np.diag([2.0, 1.0]), np.eye(2)
COMMON = {
    "none": None,
    "word": "three",
    "empty word": "",
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": -float("inf"),
    "complex": 1 + 1j,
    "empty list": [],
    "ragged": [[1.0], [1.0, 2.0]],
    "words": ["a", "b"],
    "dict": {"a": 1},
    "object": object(),
    "masked": np.ma.masked_array([1.0, 2.0], [True, False]),
    "nan array": np.array([[1.0, np.nan], [0.0, 1.0]]),
    "complex array": np.array([[1.0, 1j], [0.0, 1.0]]),
    "cube": np.ones((2, 2, 2, 2, 2, 2)),
    "no rows": np.ones((0, 2)),
    "date": np.datetime64("2020-01-01"),
}
NUMBERS = {
    "zero": 0,
    "negative": -1.5,
    "tiny": 1e-300,
    "huge": 1e300,
    "beyond floats": 10**400,
    "true": True,
    "half": 0.5,
    "pair": [1.0, 2.0],
    "three": [1.0, 2.0, 3.0],
    "float32": np.float32(0.5),
    "million million": 10**12,
    "vector of 5": np.ones(5),
    "long, beyond float64": np.longdouble("1e400"),  # infinite where it has no more range
    "masked count": np.ma.masked_array(3, mask=True),
}
LISTS = {"pair", "three", "vector of 5", "masked count"}
NEVER = {  # values that no argument of the kind may have
    "number": set(COMMON) | LISTS | {"true", "beyond floats", "long, beyond float64"},
    "positive": set(COMMON) | LISTS | {"true", "beyond floats", "long, beyond float64", "zero", "negative"},
    "positive or none": set(COMMON) - {"none"} | LISTS | {"true", "beyond floats", "zero", "negative"},
    "positives": (set(COMMON) - {"empty list", "no rows", "cube"})
    | {"masked count", "true", "beyond floats", "zero", "negative"},
    "count": set(COMMON) | set(NUMBERS) - {"zero", "million million"},
    "steps": set(COMMON) | set(NUMBERS) - {"zero", "million million"},
    "flag": (set(COMMON) | set(NUMBERS)) - {"true"},
    "name": set(COMMON) | set(NUMBERS),
    "label": set(COMMON) - {"word", "empty word"} | set(NUMBERS),
    "list": set(COMMON) - {"empty list"} | set(NUMBERS),
    "array": (set(COMMON) - {"empty list", "no rows", "cube", "none"}) | {"masked count", "true", "beyond floats"},
    "any": set(),
}


def call(function, /, **arguments):
    """A call that works: each argument as (value, kind)."""
    kinds = {name: kind for name, (_, kind) in arguments.items()}
    return function, {name: value for name, (value, _) in arguments.items()}, kinds


DEPTH, SCALE, RATE = (3, "count"), (0.5, "positives"), (0.1, "positives")
TARGET, VALUES = (2.0, "positives"), ((2.0, 1.0), "positives")
AXIS = matplotlib.figure.Figure().subplots()
MODEL = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)


def energy(model):
    """A quadratic loss of curvatures 3, 2, 1."""
    return (torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64) * model.weight**2).sum() / 2


CALLS = [
    call(alignment.subspace_distance, W=(W3, "array"), rank=(2, "count"), signed=(False, "flag")),
    call(alignment.angles, P=(M, "array"), vectors=(I, "array"), rank=(2, "count"), by=("mode", "name")),
    call(
        alignment.coordinates,
        W=(W3, "array"),
        left=(I, "array"),
        right=(I, "array"),
        frames=(np.stack([I, I]), "array"),
    ),
    call(alignment.off_diagonal, D=(M, "array")),
    call(alignment.commutator, W=(W3, "array")),
    call(alignment.imbalance, W=(W3, "array")),
    call(alignment.distance_from_imbalance, W=(W3, "array"), C=(np.zeros((2, 2, 2)), "array"), rank=(2, "count")),
    call(alignment.singular_vector_velocity, W=(M, "array"), velocity=(I, "array")),
    call(alignment.frames, W=(np.stack([I, I, M]), "array")),
    call(alignment.rotate, W=(W3, "array"), R=(np.stack([I, I]), "array")),
    call(balance.gaps, values=(W3[:, 0], "array")),
    call(balance.gap_factors, values=(W3[:, 0], "array"), target=([2.0, 1.0], "array"), learning_rate=RATE),
    call(balance.flow_limit, scale=SCALE, target=TARGET, depth=DEPTH),
    call(balance.flow_sharpness, scale=SCALE, target=TARGET, depth=DEPTH),
    call(balance.sharpness_slope, scale=SCALE, target=TARGET, depth=DEPTH),
    call(balance.growth, scale=SCALE, target=TARGET, depth=DEPTH),
    call(balance.critical_scale, target=TARGET, depth=DEPTH),
    call(balance.growth_constant, depth=DEPTH),
    call(balance.scale_bound, learning_rate=RATE, target=TARGET, depth=DEPTH, form=("exact", "name")),
    call(balance.contracts, scale=SCALE, learning_rate=RATE, singular_values=([2.0, 1.0], "positives"), depth=DEPTH),
    call(
        balance.least_factor,
        scale=SCALE,
        learning_rate=RATE,
        singular_values=([2.0, 1.0], "positives"),
        depth=DEPTH,
    ),
    call(balance.certify_positivity, bits=(24, "count")),
    call(balance.cycle_factor, ratio=(1.5, "positives")),
    call(balance.frozen_fraction, scale=SCALE, target=TARGET, depth=DEPTH, learning_rate=RATE),
    call(bifurcation.rate, overshoot=(1.3, "array"), depth=DEPTH),
    call(bifurcation.overshoot, q=(2.4, "positive"), depth=DEPTH),
    call(bifurcation.critical_orbit, overshoot=(1.3, "array"), depth=DEPTH, steps=(4, "steps")),
    call(
        bifurcation.superstable,
        depth=(2, "count"),
        period=(2, "steps"),
        near=(1.4, "positive"),
        digits=(20, "count"),
    ),
    call(bifurcation.feigenbaum, rates=([2.0, 2.3, 2.36, 2.37], "array")),
    call(bifurcation.accumulation, rates=([2.0, 2.3, 2.36, 2.37], "array")),
    call(
        bifurcation.scan,
        depth=(2, "count"),
        q=([2.2], "positives"),
        steps=(100, "steps"),
        keep=(10, "count"),
        start=(0.7, "positive"),
    ),
    call(bifurcation.period, orbits=(np.ones((2, 40)), "array"), longest=(4, "count"), tolerance=(1e-06, "positive")),
    call(
        bifurcation.pair_step,
        u=([0.9, 0.8], "array"),
        q=(2.1, "positives"),
        ratio=(0.8, "positives"),
        depth=(2, "count"),
    ),
    call(
        descent.descend,
        W=(W, "array"),
        M=(M, "array"),
        learning_rate=RATE,
        steps=(5, "steps"),
        keep=(2, "any"),
        every=(1, "count"),
        observe=(None, "any"),
        singular_values=(True, "flag"),
        reduce=(False, "flag"),
        compiled=(False, "flag"),
        device=(None, "any"),
    ),
    call(
        descent.flow,
        W=(W3, "array"),
        M=(M, "array"),
        times=([0.0, 1.0], "array"),
        rtol=(1e-08, "positive"),
        atol=(1e-08, "positive or none"),
    ),
    call(
        diagonal.initialise,
        start=("balanced", "name"),
        depth=(2, "count"),
        width=(3, "count"),
        scale=(0.5, "positive"),
    ),
    call(diagonal.gradient, s=(np.ones((2, 3)), "array"), target=([3.0, 2.0, 1.0], "array")),
    call(
        diagonal.descend,
        s=(np.ones((2, 3)), "array"),
        target=([3.0, 2.0, 1.0], "array"),
        learning_rate=RATE,
        steps=(5, "steps"),
        keep=(2, "any"),
    ),
    call(diagonal.hessian_blocks, s=(np.ones((2, 3)), "array"), target=([3.0, 2.0, 1.0], "array")),
    call(
        diagonal.spectrum_at_minimum,
        singular_values=VALUES,
        depth=DEPTH,
        width=(3, "count"),
        scale=(0.1, "positive"),
        init=("unbalanced", "name"),
    ),
    call(diagonal.multipliers, singular_values=VALUES, depth=(2, "count"), learning_rate=(0.3, "positive")),
    call(diagonal.together, depth=DEPTH),
    call(diagonal.most_together, singular_values=((2.0, 1.9), "positives"), depth=DEPTH),
    call(diagonal.periods, values=(np.ones((40, 2)), "any"), largest=(4, "count"), tolerance=(1e-07, "positive")),
    call(enclose.arithmetic, bits=(53, "count")),
    call(enclose.over, function=(lambda iv, x: x * x, "good"), pieces=(4, "any"), bits=(53, "count")),
    call(
        enclose.below,
        function=(lambda iv, x: x * x, "good"),
        bound=(5.0, "number"),
        bits=(53, "count"),
        most=(50, "steps"),
    ),
    call(escape.escape_time, target=TARGET, depth=DEPTH, scale=(0.1, "positives"), start=("balanced", "name")),
    call(
        escape.time_to_reach,
        fraction=(0.5, "positive"),
        target=(2.0, "positive"),
        depth=DEPTH,
        scale=(0.1, "positive"),
    ),
    call(
        escape.leave_saddle,
        target=(2.0, "positive"),
        depth=DEPTH,
        scale=(0.1, "positive"),
        learning_rate=(0.1, "positive"),
        remaining=(10, "steps"),
    ),
    call(hessian.dense, W=(W, "array"), M=(M, "array")),
    call(
        hessian.sharpness,
        W=(W, "array"),
        M=(M, "array"),
        k=(1, "count"),
        smallest=(False, "flag"),
        tolerance=(1e-08, "number"),
    ),
    call(
        hessian.spectrum_at_minimum,
        singular_values=VALUES,
        depth=DEPTH,
        width=(3, "count"),
        scale=(0.1, "positive"),
        init=("balanced", "name"),
    ),
    call(
        hessian.spectrum_aligned,
        layer_singular_values=(np.ones((3, 2)), "array"),
        target_singular_values=((2.0, 1.0), "array"),
    ),
    call(hessian.spectrum_reduced, W=(W, "array"), M=(M, "array"), tolerance=(1e-10, "number")),
    call(
        network.target,
        singular_values=VALUES,
        width=(3, "count"),
        rng=(np.random.default_rng(0), "name"),
        symmetric=(False, "flag"),
        diagonal=(False, "flag"),
    ),
    call(
        network.initialise,
        start=("gaussian", "name"),
        depth=(2, "count"),
        width=(3, "count"),
        scale=(0.1, "positive"),
        rng=(np.random.default_rng(0), "name"),
        dtype=(float, "any"),
    ),
    call(network.product, W=(W, "array")),
    call(network.loss, W=(W, "array"), M=(M, "array")),
    call(network.gradient, W=(W, "array"), M=(M, "array")),
    call(network.hessian_vector_product, W=(W, "array"), M=(M, "array"), V=(W, "array")),
    call(
        plot.threshold,
        axis=(AXIS, "name"),
        value=(1.0, "number"),
        label=("a", "label"),
        along=("x", "name"),
        where=(0.5, "number"),
        colour=("black", "name"),
    ),
    call(plot.download, name=("fig-a", "name"), columns=({"a": [1.0]}, "name"), digits=(6, "count")),
    call(reduction.reduce, W=(W, "array"), M=(M, "array"), tolerance=(1e-12, "positive")),
    call(scalar.step, s=(0.5, "array"), target=TARGET, depth=DEPTH, learning_rate=RATE),
    call(
        scalar.orbit,
        s=(0.5, "array"),
        target=TARGET,
        depth=DEPTH,
        learning_rate=RATE,
        steps=(5, "steps"),
        keep=(2, "any"),
        compiled=(False, "flag"),
    ),
    call(scalar.slope, s=(0.5, "array"), target=TARGET, depth=DEPTH, learning_rate=RATE),
    call(scalar.sharpness_at_minimum, target=TARGET, depth=DEPTH),
    call(scalar.relative_rate, target=TARGET, depth=DEPTH, learning_rate=RATE),
    call(scalar.branch, t=(0.1, "array"), depth=DEPTH),
    call(scalar.branch_multiplier, t=(0.1, "array"), depth=DEPTH),
    call(scalar.branch_parameter, q=(2.3, "positives"), depth=DEPTH),
    call(scalar.two_cycle, target=(1.0, "positives"), depth=(2, "count"), learning_rate=(1.1, "positives")),
    call(scalar.sharpness_on_cycle, target=(1.0, "positives"), depth=(2, "count"), learning_rate=(1.1, "positives")),
    call(scalar.window, depth=(2, "count")),
    call(scalar.lyapunov, target=(1.0, "positives"), depth=(2, "count"), learning_rate=(1.1, "positives")),
    call(
        sweep.run,
        function=(lambda x, y: {"z": x + y}, "good"),
        grid=({"x": [0.0, 1.0], "y": [1, 2]}, "name"),
        batch=("x", "any"),
        block=(2, "count"),
        record=(None, "any"),
        settings=(None, "any"),
        n_jobs=(1, "any"),
        progress=(False, "flag"),
    ),
    call(sweep.select, result=(sweep.run(lambda x: {"y": x}, {"x": [1.0]}, n_jobs=1, progress=False), "name")),
    call(symbols.prove, left=(sp.Integer(0), "any"), right=(0, "any"), assuming=((), "any")),
    call(symbols.network_symbols, depth=(2, "count"), width=(2, "count"), name=("w", "any")),
    call(
        transverse.pair_hessian,
        first=([1.2, 1.0], "array"),
        second=([1.1, 0.9], "array"),
        targets=((1.2, 1.0), "array"),
    ),
    call(
        transverse.multipliers,
        singular_values=((1.0, 0.9), "positives"),
        depth=(2, "count"),
        learning_rate=(1.02, "positives"),
    ),
    call(transverse.pair_eigenvalue, singular_values=((1.0, 0.9), "positives"), depth=(2, "count")),
    call(transverse.threshold, singular_values=((1.0, 0.9), "positives"), depth=(2, "count")),
    call(averages.third_derivative, W=(W3, "array"), M=(M, "array"), U=(W3, "array"), V=(W3, "array")),
    call(
        averages.central_flow,
        W=(np.ones((2, 1, 1)), "array"),
        M=(np.eye(1), "array"),
        learning_rate=(0.1, "positive"),
        steps=(2, "steps"),
        substeps=(2, "steps"),
        every=(1, "count"),
    ),
    call(averages.central_rest, target=(1.0, "positive"), depth=(2, "count"), learning_rate=(1.1, "positive")),
    call(averages.on_cycle, target=(1.0, "positive"), depth=(2, "count"), learning_rate=(1.1, "positive")),
    call(averages.complementarity, A=(I, "array"), B=(np.einsum("ik,jl->ijkl", I, I), "array"), tolerance=(1e-13, "positive")),
    call(bifurcation.cascade, depth=(2, "count"), doublings=(2, "steps"), digits=(20, "count")),
    call(bifurcation.landmarks, depth=(2, "count")),
    call(bifurcation.zero_hit, depth=(2, "count")),
    call(landscape.holder, points=([1.0, 2.0], "array"), usual=(False, "flag")),
    call(landscape.holder_gradient, points=([1.0, 2.0], "array"), usual=(False, "flag")),
    call(landscape.holder_hessian, points=([1.0, 2.0], "array"), usual=(False, "flag")),
    call(landscape.cell, points=([1.0, 2.0], "array")),
    call(landscape.cell_minimum, cells=([0, 0], "array"), usual=(False, "flag")),
    call(landscape.downward_share, gradients=([1.0, 2.0], "array"), hessians=(M, "array")),
    *(
        call(function, points=([1.0, 1.0], "array"), targets=((0.8, 1.0), "positives"), depth=DEPTH)
        for function in (landscape.scalar_network, landscape.scalar_network_gradient, landscape.scalar_network_hessian)
    ),
    call(optimisers.heavy_ball_cycle, t=(0.1, "number"), depth=DEPTH, momentum=(0.5, "number")),
    call(optimisers.heavy_ball_multipliers, multipliers=([0.5], "any"), momentum=(0.5, "number")),
    call(optimisers.label_noise_variance, q=(1.0, "positive"), depth=DEPTH, noise=(0.1, "positive")),
    call(optimisers.nesterov_cycle, t=(0.1, "number"), depth=DEPTH, momentum=(0.5, "number")),
    call(optimisers.rmsprop_cycle, t=(0.1, "positive"), depth=DEPTH, memory=(0.5, "number"), floor=(0.0, "number")),
    call(optimisers.weight_decay_cycle, t=(0.1, "positive"), depth=DEPTH, decay=(0.1, "number")),
    call(optimisers.weight_decay_edge, depth=DEPTH, decay=(0.1, "number")),
    call(
        plot.ruler,
        axis=(AXIS, "name"),
        marks=({"edge": 2.0}, "any"),
        ends=((1.0, 3.0), "array"),
        spans=(((1.0, 2.0, "a", "blue"),), "list"),
    ),
    call(torus.law, ratio=(0.8, "positive")),
    call(torus.closed_form, n=(0.5, "positive")),
    call(torus.quintic, a=(Fraction(2, 3), "name")),
    call(
        training.sharpness,
        model=(MODEL, "name"),
        loss=(energy, "name"),
        k=(2, "count"),
        smallest=(False, "flag"),
        tolerance=(1e-5, "positive"),
        block=(1, "any"),
        basis=(None, "any"),
        products=(200, "steps"),
        seed=(0, "steps"),
        threads=(1, "any"),
    ),
    call(training.singular_values, matrix=(torch.eye(3), "name"), k=(2, "count")),
    call(
        training.descend,
        model=(MODEL, "name"),
        loss=(energy, "name"),
        learning_rate=(0.1, "positive"),
        steps=(3, "steps"),
        every=(1, "count"),
        layers=(["weight"], "any"),
        k=(1, "steps"),
        sharpness_every=(2, "steps"),
        sharpness_at=((1,), "any"),
        eigenvalues=(1, "count"),
        tolerance=(1e-3, "positive"),
        observe=(None, "any"),
        seed=(0, "steps"),
        threads=(1, "any"),
        progress=(False, "flag"),
        checkpoint=(None, "good"),
        checkpoint_every=(2, "count"),
    ),
    call(data.stand_in, name=("mnist", "name"), n=(3, "count")),
    call(data.load, name=("mnist", "name"), n=(3, "any"), download=(False, "good"), progress=(False, "flag")),
    call(
        transverse.floquet_matrix,
        singular_values=((1.0, 0.8), "positives"),
        depth=(2, "count"),
        learning_rate=(1.1, "positive"),
        sign=(1, "any"),
        pair=((0, 1), "any"),
        phase=("rest", "name"),
        deflate=(False, "flag"),
    ),
    call(
        transverse.growth_rate,
        singular_values=((1.0, 0.8), "positives"),
        depth=(2, "count"),
        learning_rate=(1.1, "positive"),
        pair=((0, 1), "any"),
        phase=("rest", "name"),
    ),
    call(transverse.near_degenerate, depth=(3, "count")),
    call(
        transverse.sector_hessian,
        first=(1.1, "number"),
        second=(0.8, "number"),
        targets=((1.0, 0.64), "array"),
        depth=(2, "count"),
        sign=(1, "any"),
    ),
    call(
        transverse.lyapunov,
        W=(W3[None], "array"),
        M=(M, "array"),
        learning_rate=([0.1], "positives"),
        steps=(5, "steps"),
        rng=(np.random.default_rng(0), "name"),
    ),
    call(
        bifurcation.pair_exponent,
        depth=(2, "count"),
        q=(2.2, "positives"),
        ratio=(0.8, "positive"),
        steps=(20, "steps"),
        transient=(5, "steps"),
        seed=(0, "any"),
    ),
    call(bifurcation.pair_limit, depth=(2, "count"), q=(2.2, "positive"), orbit=([0.9, 1.1], "array")),
    call(
        bifurcation.network_scan,
        W=(W3, "array"),
        M=(M, "array"),
        learning_rates=([0.1, 0.2], "positives"),
        steps=(5, "steps"),
        keep=(2, "count"),
        basis=((I, I), "any"),
    ),
    call(optimisers.HeavyBall, momentum=(0.5, "number")),
    call(optimisers.Nesterov, momentum=(0.5, "number")),
    call(optimisers.WeightDecay, decay=(0.5, "number")),
    call(optimisers.BatchNoise, variance=(0.5, "number"), rng=(np.random.default_rng(0), "name")),
    call(
        optimisers.LabelNoise,
        direction=(I, "array"),
        size=(0.5, "number"),
        rng=(np.random.default_rng(0), "name"),
    ),
    call(optimisers.ScalarRMSProp, memory=(0.5, "number"), momentum=(0.5, "number"), floor=(0.5, "number")),
    call(
        optimisers.descend,
        W=(W3, "array"),
        M=(M, "array"),
        learning_rate=RATE,
        steps=(5, "steps"),
        rule=(optimisers.HeavyBall(0.5), "flag"),
        memory=(None, "any"),
        keep=(2, "any"),
        every=(1, "count"),
        observe=(None, "any"),
        singular_values=(True, "flag"),
    ),
    call(
        optimisers.window_end,
        cycle=(lambda t: optimisers.heavy_ball_cycle(t, 2, momentum=0.5), "name"),
        start=(1e-3, "number"),
        stop=(1.0, "number"),
        pieces=(20, "count"),
    ),
    call(
        landscape.descend,
        gradient=(lambda p: p, "name"),
        start=([[1.0, 2.0]], "array"),
        rates=([0.5, 0.5], "positives"),
        limit=(1e3, "positive"),
    ),
    call(
        landscape.chord_hessian,
        hessian=(lambda p: p[..., None] ** 2, "name"),
        one=([0.0], "array"),
        two=([3.0], "array"),
        nodes=(4, "count"),
    ),
    call(enclose.ends, interval=(enclose.arithmetic(53).mpf(1), "name")),
]
EXTRA = {enclose.over: [(0.0, 1.0)], enclose.below: [(0.0, 1.0)], sweep.run: []}  # what stands after the first argument
# what a function is documented to answer where there is nothing wrong with the arguments
REFUSALS = {
    bifurcation.superstable: RuntimeError,
    enclose.below: ArithmeticError,
    symbols.prove: AssertionError,
    averages.complementarity: RuntimeError,
    averages.central_flow: RuntimeError,
    optimisers.label_noise_variance: ArithmeticError,
    descent.flow: RuntimeError,
}
REFUSALS_SAY = {
    bifurcation.superstable: "no superstable cycle of period|the cycle near overshoot",
    enclose.below: "function: not shown to be less than",
    symbols.prove: "not proved: left - right",
    averages.complementarity: "complementarity: no solution",
    averages.central_flow: "complementarity: no solution",
    optimisers.label_noise_variance: "label noise: the integrals",
    descent.flow: "gradient flow stopped",
}
DOCUMENTED = {averages.Averages: {"mean_sharpness"}}  # NaN where there is no prediction
OUTCOMES = Counter()
NAN_AT_ZERO = {"landscape.holder_gradient", "landscape.holder_hessian", "landscape.downward_share"}  # as documented
SLOW = {("descent.flow", "times"), ("descent.flow", "W")}  # a million evaluations: a test of its own
# a good argument that does not go with the changed one is named, and so is what was made of both
PARTNER = re.compile(r"not named: ValueError: [a-z_A-Z]+(, [a-z_A-Z]+)*: got ")


def holds_nan(value) -> bool:
    """Whether there is a NaN anywhere in an answer."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = {field.name for field in dataclasses.fields(value)} - DOCUMENTED.get(type(value), set())
        return any(holds_nan(getattr(value, name)) for name in names)
    if isinstance(value, dict):
        return any(map(holds_nan, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(holds_nan, value))
    if isinstance(value, (np.ndarray, np.generic, float, complex)):
        array = np.asarray(value)
        return array.dtype.kind in "fc" and bool(np.isnan(array).any())
    return False


def too_long(signum, frame):
    raise TimeoutError(f"longer than {SECONDS} s")


def outcome(function, good, name, value, must_fail) -> str:
    """"named", "answer", or what is wrong."""
    arguments = good | {name: value}
    first = [arguments.pop("function"), *EXTRA[function]] if function in EXTRA else []
    before = signal.signal(signal.SIGPROF, too_long)  # processor time: a busy machine is no fault of the call
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            answer = function(*first, **arguments)
    except (ValueError, TypeError) as error:
        said = [part.split("[")[0].strip() for part in str(error).split(":")[0].split(",")]
        partner = said[0] in arguments and re.search(rf"\b{name}\b", str(error))  # two arguments that do not match
        return "named" if name in said or partner else f"not named: {type(error).__name__}: {error}"[:150]
    except REFUSALS.get(function, ()) as error:
        return "named" if re.match(REFUSALS_SAY[function], str(error)) else f"refused without words: {error}"[:150]
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:150]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    if must_fail:
        return f"accepted, with the answer {answer!r}"[:150]
    return "NaN without an error" if holds_nan(answer) else "answer"


def of_its_shape(value):
    """An argument that works, changed in one entry, in all, or in its length: name, value, whether it is wrong."""
    array = np.array(value, dtype=float)
    mask = np.arange(array.size).reshape(array.shape) == 0
    yield "one masked", np.ma.masked_array(array, mask), True
    for word, wrong in {"complex": 1j, "symbol": sp.Symbol("x"), "none": None, "decimal": Decimal(1)}.items():
        yield f"one {word}", np.where(mask, np.array(wrong, dtype=object), array.astype(object)), True
    for factor in (5e-324, 1e-300, 1e-160, 1e160, 1e300):
        with np.errstate(over="ignore", under="ignore"):
            yield f"times {factor:g}", array * factor, False
            yield f"one times {factor:g}", np.where(mask, array * factor, array), False
    for factor in ("1e-4000", "1e-400", "1e400", "1e4000"):
        yield f"long, times {factor}", array.astype(np.longdouble) * np.longdouble(factor), False
    for dtype in (np.float16, np.longdouble, object, ">f8"):
        yield np.dtype(dtype).name, array.astype(dtype), False
    yield "zero", 0 * array, False
    yield "equal", np.ones_like(array), False
    yield "twice as long", np.concatenate([array, array]), False
    yield "no batch", array[None][:0], False
    yield "a batch", np.stack([array] * 3), False


def full_name(function) -> str:
    return f"{function.__module__.split('.')[-1]}.{function.__name__}"


@pytest.fixture(scope="module", autouse=True)
def compile_before_the_clock_runs():
    if importlib.util.find_spec("numba"):
        descent.descend(W, M, 0.1, 5, keep=2, compiled=True)
        scalar.orbit(0.5, 2.0, 3, 0.1, 5, compiled=True)


@pytest.mark.parametrize(("function", "good", "kinds"), CALLS, ids=[full_name(c[0]) for c in CALLS])
def test_bad_arguments_are_named(function, good, kinds):
    wrong = {}
    for name, kind in kinds.items():
        if kind == "good":
            continue
        for word, value in (COMMON | NUMBERS).items():
            if kind == "steps" and word == "million million":
                continue  # a long run is what was asked for
            found = outcome(function, good, name, value, word in NEVER[kind])
            OUTCOMES["named" if found == "named" else "answer" if found == "answer" else "wrong"] += 1
            if found not in ("named", "answer"):
                wrong[f"{name} = {word}"] = found
    assert wrong == {}


@pytest.mark.parametrize(("function", "good", "kinds"), CALLS, ids=[full_name(c[0]) for c in CALLS])
def test_arrays_of_the_right_shape(function, good, kinds):
    wrong = {}
    for name, value in good.items():
        if kinds[name] not in ("array", "positives") or np.ndim(value) == 0 or (full_name(function), name) in SLOW:
            continue
        for word, changed, must_fail in of_its_shape(value):
            found = outcome(function, good, name, changed, must_fail)
            if word == "zero" and found.startswith("NaN") and full_name(function) in NAN_AT_ZERO:
                continue
            if found not in ("named", "answer") and not PARTNER.match(found):
                wrong[f"{name}: {word}"] = found
    assert wrong == {}


@pytest.mark.parametrize(("function", "good", "kinds"), CALLS, ids=[full_name(c[0]) for c in CALLS])
def test_the_call_itself_works(function, good, kinds):
    first = next(iter(kinds))
    assert outcome(function, good, first, good[first], False) == "answer"
    given = [p for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_POSITIONAL]
    assert set(kinds) <= {p.name for p in given}


def test_every_public_function_is_in_the_table():
    modules = [alignment, averages, balance, bifurcation, data, descent, diagonal, escape, hessian, landscape, network]
    public = {
        f"{module.__name__.split('.')[-1]}.{name}"
        for module in [*modules, optimisers, plot, reduction, scalar, sweep, symbols, torus, training, transverse]
        for name, member in inspect.getmembers(module, inspect.isfunction)
        if member.__module__ == module.__name__ and not name.startswith("_")
    }
    inner = {"network.layers", "network.prefixes", "network.sweep_back", "network.curvature"}  # said to be unchecked
    intervals = {"balance.pull", "balance.pull_of_others"}  # called with intervals by the certificate
    settled = {"data.cache", "data.fetch", "plot.use_style"}  # no arguments, or a file that the library knows
    assert public - inner - intervals - settled <= {full_name(function) for function, _, _ in CALLS}
