r"""Recorded run: the sharpness of a UNet with fixed input that is fitted to one image, smooth or rich in detail.

The network is small: three resolutions, convolutions of width 3 with reflected borders, each followed by an instance norm and
SiLU, average pooling down, bilinear interpolation up, and a skip connection at both upper resolutions. Its input is
a fixed array of Gaussian noise, eight channels; its weights are PyTorch's own initialisation. Both depend on the
seed alone, not on the image. The loss is the squared error, summed over pixels.

Images are crops of the two photographs that come with scikit-learn, in grey, 32 by 32, shifted and scaled to mean 0 and
the same standard deviation: what differs is where their power lies. Three more are one of them, blurred.

    python recorded/mild_sharpening_unet.py        # a few minutes; can be interrupted and started again
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_image
from torch import nn

from eoslib import recorded

RECORD = Path(__file__).resolve().with_suffix(".npz")
SIZE = 32
CHANNELS = 16
SPREAD = 0.2  # standard deviation of every image
CROPS = {  # photograph, first row, first column, pixels per pixel
    "sky": ("china.jpg", 100, 420, 4),
    "flower": ("flower.jpg", 95, 185, 4),
    "roof": ("china.jpg", 180, 140, 4),
    "foliage": ("china.jpg", 330, 370, 2),
}
BLURS = (1, 2, 4)  # pixels
FAMILY = ("foliage", *(f"foliage blurred {width}" for width in BLURS))
SEEDS = (0, 1, 2)
THRESHOLDS = (9000, 14000, 20000)  # 2 / rate
FRACTION = 1.0  # of 1 / sharpness: the step of the runs at a small rate
STOP = 0.01  # loss, relative to that of a flat image, at which a run ends
STEPS = 4000  # at most
LOOK = 40  # steps between two looks at the sharpness
TOLERANCE = 2e-3  # of the sharpness, relative
GAINS = (0.5, 2.0)  # of the contrast


def images():
    """Name to (32, 32) array with mean 0 and standard deviation `SPREAD`."""
    found = {}
    for name, (photograph, row, column, step) in CROPS.items():
        grey = load_sample_image(photograph).mean(2) / 255
        block = grey[row : row + SIZE * step, column : column + SIZE * step]
        found[name] = block.reshape(SIZE, step, SIZE, step).mean((1, 3))
    for width in BLURS:
        found[f"foliage blurred {width}"] = gaussian_filter(found["foliage"], width, mode="reflect")
    return {name: SPREAD * (image - image.mean()) / image.std() for name, image in found.items()}


class UNet(nn.Module):
    """Three resolutions, five convolutions with instance norm and SiLU, two skip connections, a linear output."""

    def __init__(self, channels=CHANNELS, inputs=8):
        super().__init__()
        c = channels
        pairs = ((inputs, c), (c, 2 * c), (2 * c, 2 * c), (4 * c, c), (2 * c, c))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, padding_mode="reflect", bias=False) for a, b in pairs
        )
        self.norms = nn.ModuleList(nn.InstanceNorm2d(b, affine=True) for _, b in pairs)
        self.output = nn.Conv2d(c, 1, 1)

    def forward(self, z):
        upper = self._block(0, z)
        middle = self._block(1, F.avg_pool2d(upper, 2))
        lower = self._block(2, F.avg_pool2d(middle, 2))
        x = self._block(3, torch.cat([_double(lower), middle], 1))
        x = self._block(4, torch.cat([_double(x), upper], 1))
        return self.output(x)

    def _block(self, i, x):
        return F.silu(self.norms[i](self.convolutions[i](x)))


def _double(x):
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def problem(image, seed, dtype=torch.float32):
    """The network and its loss; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet().to(dtype)
        noise = torch.randn(1, 8, SIZE, SIZE, dtype=dtype)
    target = torch.tensor(image, dtype=dtype)[None, None]
    return network, lambda net: ((net(noise) - target) ** 2).sum()


def noise_of(seed):
    """The fixed input that `problem` draws, in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        UNet()
        return torch.randn(1, 8, SIZE, SIZE)


class Watch:
    """Gradients and the sharpness (Lanczos from the last vector plus a random one) of a network that is trained."""

    def __init__(self, network, loss):
        self.network, self.loss = network, loss
        self.parameters = list(network.parameters())
        self.vector, self.draws = None, torch.Generator().manual_seed(0)

    def step(self, rate):
        """One step of gradient descent."""
        for p, g in zip(self.parameters, torch.autograd.grad(self.loss(self.network), self.parameters)):
            p.data -= rate * g

    def sharpness(self, most=60):
        """Loss, largest eigenvalue of the Hessian, residual."""
        loss = self.loss(self.network)
        slope = _flat(torch.autograd.grad(loss, self.parameters, create_graph=True))
        q = torch.randn(slope.numel(), generator=self.draws, dtype=slope.dtype)
        q /= q.norm()
        if self.vector is not None:
            q = self.vector + 0.3 * q
        basis, diagonal, off = [q / q.norm()], [], []
        while True:
            w = _flat(torch.autograd.grad(slope, self.parameters, basis[-1], retain_graph=True))
            diagonal.append(float(w @ basis[-1]))
            for _ in range(2):
                for b in basis:
                    w = w - (w @ b) * b
            length = float(w.norm())
            values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
            residual = length * abs(vectors[-1, -1])
            if len(basis) == most or (len(basis) > 4 and residual < TOLERANCE * values[-1]):
                break
            off.append(length)
            basis.append(w / length)
        self.vector = sum(float(c) * b for c, b in zip(vectors[:, -1], basis))
        return float(loss.detach()), float(values[-1]), residual


def _flat(parts):
    return torch.cat([part.reshape(-1) for part in parts])


def flow(name, seed, steps=STEPS, fraction=FRACTION, gain=1.0, dtype=torch.float32):
    """Descent with steps of `fraction` / sharpness, half of what would be stable."""
    image = gain * images()[name]
    watch, flat = Watch(*problem(image, seed, dtype)), float(np.sum(image**2))
    rows, step, clock, wait, last = [], 0, 0.0, 1, None
    while True:
        loss, value, residual = watch.sharpness()
        rows.append((step, clock, loss / flat, value, residual))
        if loss < STOP * flat or step >= steps:
            return _columns(rows)
        change = abs(value / last - 1) if last else 1.0
        wait, last = (max(1, wait // 2) if change > 0.05 else min(2 * wait, LOOK) if change < 0.02 else wait), value
        for _ in range(wait):
            watch.step(fraction / value)
        step, clock = step + wait, clock + wait * fraction / value


def descend(name, seed, threshold, steps=STEPS, look=LOOK, dtype=torch.float32):
    """Descent at the fixed rate 2 / `threshold`."""
    image = images()[name]
    watch, flat, rows = Watch(*problem(image, seed, dtype)), float(np.sum(image**2)), []
    for step in range(steps + 1):
        if step % look == 0:
            loss, value, residual = watch.sharpness()
            rows.append((step, step * 2 / threshold, loss / flat, value, residual))
            if not np.isfinite(loss) or loss > 1e3 * flat or loss < STOP * flat / 4:
                break
        watch.step(2 / threshold)
    return _columns(rows)


def _columns(rows):
    names = ("step", "time", "loss", "sharpness", "residual")
    return {name: np.array(column) for name, column in zip(names, zip(*rows))}


def settings():
    """Everything that determines the record."""
    return {
        "size": SIZE, "channels": CHANNELS, "spread": SPREAD, "crops": CROPS, "blurs": BLURS, "seeds": SEEDS,
        "thresholds": THRESHOLDS, "fraction": FRACTION, "stop": STOP, "steps": STEPS, "look": LOOK,
        "tolerance": TOLERANCE, "gains": GAINS, "precision": "float32",
    }  # fmt: skip


def jobs():
    """Name and function of every part."""
    names = (*CROPS, *FAMILY[1:])
    parts = {f"flow-{name}-{seed}": partial(flow, name, seed) for seed in SEEDS for name in names}
    parts |= {f"rate-{name}-{t}": partial(descend, name, 0, t) for t in THRESHOLDS for name in names}
    for name in (FAMILY[0], FAMILY[-1]):  # is the small rate small, and what does contrast do?
        parts[f"finer-{name}"] = partial(flow, name, 0, fraction=FRACTION / 4, steps=4 * STEPS)
        parts |= {f"gain-{name}-{gain}": partial(flow, name, 0, gain=gain) for gain in GAINS}
    return {name.replace(" ", "_"): job for name, job in parts.items()}


READERS = ("load", "main", "noise_of")


def load(path=RECORD):
    """The record: part to a dict of its columns, and under "images" the images."""
    file = recorded.load(path, settings=settings())
    parts = {name: {} for name in jobs()}
    for key, array in file.items():
        if "/" in key and key.split("/")[0] in parts:
            name, column = key.split("/")
            parts[name][column] = array
    return parts | {"images": {n: file[f"images/{n}"] for n in images()}, "about": file["about"]}


def main():
    """Make the parts that are not there, then write the record."""
    torch.set_num_threads(1)
    parts = recorded.collect(RECORD, jobs(), settings=settings())
    seconds = sum(float(part.pop("seconds")) for part in parts.values())
    arrays = {f"{name}/{column}": array for name, part in parts.items() for column, array in part.items()}
    arrays |= {f"images/{name}": image for name, image in images().items()}
    recorded.save(RECORD, settings(), seconds, arrays, packages=("numpy", "torch", "scikit-learn", "scipy"))


if __name__ == "__main__":
    main()
