"""Data sets: from a local folder, else a cache, else a checked download, else a stand-in from an installed library.

`load` says in ``source`` which it was. Nothing is unpickled; a file is used only if its SHA-256 is the known one.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import logging
import os
import re
import shutil
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import validate

SECONDS = 10.0  # how long a silent server is waited for
MOST_PAIRS = 100_000  # of sentences that the stand-in for "stsb" makes
_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_STSB = (
    "https://raw.githubusercontent.com/PhilipMay/stsb-multi-mt/main/data/",
    "https://huggingface.co/datasets/PhilipMay/stsb_multi_mt/resolve/main/data/",
)


@dataclass(frozen=True)
class File:
    """A published file: its name, its SHA-256 and the folders on the web that have it."""

    name: str
    sha256: str
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """What `load` returns: n items and where they came from."""

    images: np.ndarray  # (n, 28, 28) or (n, 32, 32, 3) uint8; (n, 2) sentences for "stsb"
    labels: np.ndarray  # (n,) uint8, the class; (n,) float64, the score 0 to 5, for "stsb"
    source: str  # "mnist", "cifar10 (JPEG re-encoded)", ..., or the stand-in's name
    sha256: str  # of the files read, in their order; of the arrays, for a stand-in
    stand_in: bool  # whether these are other data than those asked for

    @property
    def sentences(self) -> np.ndarray:
        """The pairs of sentences of "stsb": another name for `images`."""
        return self.images


@dataclass(frozen=True)
class _Kind:
    extract: tuple[File, ...]  # looked for in the folder only
    originals: tuple[File, ...]  # folder, cache, download
    read_extract: Callable
    read_originals: Callable
    extract_source: str
    stand_in: Callable
    needed: Callable  # how many of the originals the first n items need


def load(name: str, n: int | None = None, *, download: bool = True, progress: bool = True) -> Dataset:
    """The first `n` items of a data set, from the first place that has it.

    The places, in order: the folder named by the environment variable ``EOSLIB_DATA`` (an extract, or the original
    files); the cache (``EOSLIB_CACHE``, else the user's cache folder); the web, where each mirror is tried in turn and a
    file enters the cache only when its checksum is right; and a stand-in made from scikit-learn.

    Parameters
    ----------
    name : {"mnist", "cifar10", "stsb"}
        MNIST begins with its 10,000 test digits, so that the extract and the originals agree; STS-B is its English
        training, development and test part, in this order.
    n : int, optional
        Number of items; all that the source has by default.
    download : bool
        Whether the web may be asked. Without it the stand-in is what remains.
    progress : bool
        Whether a download shows a bar (on stderr).

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If `name` is unknown, `n` is more than the source has, or a file's checksum is wrong: the message names the file
        and both checksums. The file stays where it is.

    Examples
    --------
    >>> digits = load("mnist", n=100, download=False)
    >>> digits.images.shape, digits.images.dtype, digits.labels.shape
    ((100, 28, 28), dtype('uint8'), (100,))
    >>> load("imagenet")
    Traceback (most recent call last):
    ...
    ValueError: name: got 'imagenet', needs "mnist", "cifar10" or "stsb"
    """
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError(f'name: got {name!r}, needs "mnist", "cifar10" or "stsb"')
    if n is not None:
        n = validate.integer("n", n, least=1)
    for flag, value in (("download", download), ("progress", progress)):
        if not isinstance(value, bool):
            raise ValueError(f"{flag}: got {value!r}, needs True or False")
    kind = _KINDS[name]
    found = _from_folder(name, kind, n) or _from_cache_or_web(name, kind, n, download, progress)
    return _cut(_stand_in(kind, n) if found is None else found, n)


def stand_in(name: str, n: int) -> Dataset:
    """The first `n` items of a set's stand-in, whatever else is at hand.

    Raises
    ------
    ValueError
        If `name` is unknown, or `n` is more than the stand-in has: 16,173, 30,294 and 100,000 items, in the order of
        the names in `load`.

    Examples
    --------
    >>> stand_in("mnist", 3).source
    'scikit-learn digits, enlarged and shifted (stand-in for MNIST)'
    """
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError(f'name: got {name!r}, needs "mnist", "cifar10" or "stsb"')
    return _cut(_stand_in(_KINDS[name], validate.integer("n", n, least=1)), n)


def cache() -> Path:
    """The folder that downloads are kept in: ``EOSLIB_CACHE``, else the user's cache folder for this library."""
    if folder := os.environ.get("EOSLIB_CACHE"):
        return Path(folder)
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("eoslib"))


def fetch(file: File, folder: Path, *, progress: bool = True) -> Path | None:
    """Put a published file into `folder` unless it is there, and return its path; ``None`` if no mirror answers.

    The download happens in a folder of its own, is checked, and moves in one step: one that is killed leaves only that
    folder, which the next call removes.

    Raises
    ------
    ValueError
        If the file is there with another checksum, or if all that the mirrors sent has one.
    """
    if (path := folder / file.name).exists():
        _check(path, file)
        return path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a notebook tqdm asks for widgets, which no download needs
        import pooch
    import requests

    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    scratch, wrong = Path(tempfile.mkdtemp(prefix=f"partial-{os.getpid()}-", dir=folder)), None
    downloader = pooch.HTTPDownloader(progressbar=progress, timeout=SECONDS)
    try:
        for mirror in file.mirrors:
            try:
                with _quiet(pooch.get_logger()):
                    pooch.retrieve(mirror + file.name, None, file.name, scratch, downloader=downloader)
                _check(scratch / file.name, file)
                os.replace(scratch / file.name, path)
                return path
            except ValueError as error:  # not what was published: ask the next mirror
                wrong = ValueError(str(error).replace(str(scratch / file.name), f"{file.name} from {mirror}"))
                (scratch / file.name).unlink(missing_ok=True)
            except (requests.exceptions.RequestException, OSError):
                (scratch / file.name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if wrong is not None:
        raise wrong
    return None


def _stand_in(kind, n):
    inputs, labels, source = kind.stand_in(n)
    digest = hashlib.sha256(inputs.tobytes() + labels.tobytes()).hexdigest()
    return Dataset(inputs, labels, source, digest, True)


def _cut(found, n):
    if n is not None and n > len(found.labels):
        raise ValueError(f"n: got {n}, needs at most {len(found.labels)}, which is what {found.source!r} has")
    return Dataset(_frozen(found.images[:n]), _frozen(found.labels[:n]), found.source, found.sha256, found.stand_in)


def _from_folder(name, kind, n):
    setting = os.environ.get("EOSLIB_DATA")
    if not setting:
        return None
    folder = Path(setting)
    if not folder.is_dir():
        raise ValueError(f"EOSLIB_DATA: got {setting!r}, needs an existing folder")
    if kind.extract and all((folder / file.name).exists() for file in kind.extract):
        digests = [_check(folder / file.name, file) for file in kind.extract]
        inputs, labels = kind.read_extract([folder / file.name for file in kind.extract])
        if n is None or n <= len(labels) or not _all_there(folder, kind, n):
            return Dataset(inputs, labels, kind.extract_source, _join(digests), False)
    if _all_there(folder, kind, n):
        return _read(name, kind, [folder / file.name for file in kind.originals[: kind.needed(n)]])
    return None


def _all_there(folder, kind, n):
    return all((folder / file.name).exists() for file in kind.originals[: kind.needed(n)])


def _from_cache_or_web(name, kind, n, download, progress):
    files, folder = kind.originals[: kind.needed(n)], cache()
    if not all((folder / file.name).exists() for file in files) and not download:
        return None
    paths = []
    for file in files:
        path = fetch(file, folder, progress=progress)
        if path is None:
            return None
        paths.append(path)
    return _read(name, kind, paths)


def _read(name, kind, paths):
    digests = [_check(path, file) for path, file in zip(paths, kind.originals, strict=False)]
    inputs, labels = kind.read_originals(paths)
    return Dataset(inputs, labels, name, _join(digests), False)


def _check(path, file):
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256:
        raise ValueError(f"{path}: expected sha256 {file.sha256}, found {found}; remove or replace this file")
    return found


def _join(digests):
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _sweep(folder):
    """Remove what downloads of processes that have ended left behind."""
    for left in folder.glob("partial-*"):
        owner = re.match(r"partial-(\d+)-", left.name)
        if owner and not _running(int(owner[1])):
            shutil.rmtree(left, ignore_errors=True)


def _running(pid):
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def _quiet(logger):
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _frozen(array):
    array.flags.writeable = False
    return array


def _read_npz(paths):
    with np.load(paths[0], allow_pickle=False) as file:
        return file["images"], file["labels"]


def _read_idx(paths):
    arrays = []
    for path in paths:
        raw = gzip.decompress(path.read_bytes())
        shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3]))
        arrays.append(np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape))
    return np.concatenate(arrays[0::2]), np.concatenate(arrays[1::2])


def _read_cifar(paths):
    rows = []
    with tarfile.open(paths[0], "r:gz") as archive:
        for part in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
            member = archive.extractfile(f"cifar-10-batches-bin/{part}.bin")
            rows.append(np.frombuffer(member.read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32))
    table = np.concatenate(rows)
    images = table[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), table[:, 0].copy()


def _read_stsb(paths):
    rows = [row for path in paths for row in csv.reader(io.StringIO(path.read_text(encoding="utf8"), newline=""))]
    return np.array([row[:2] for row in rows]), np.array([float(row[2]) for row in rows])


def _digits(n):
    """Scikit-learn's 8 x 8 digits, each pixel three wide, in nine positions: 16,173 images of MNIST's shape."""
    from sklearn.datasets import load_digits

    small, labels = load_digits(return_X_y=True)
    large = np.kron(np.round(small.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), np.ones((3, 3), np.uint8))
    centred = np.pad(large, ((0, 0), (2, 2), (2, 2)))
    shifts = [(0, 0)] + [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    images = np.concatenate([np.roll(centred, shift, axis=(1, 2)) for shift in shifts])
    return images, np.tile(labels.astype(np.uint8), 9), "scikit-learn digits, enlarged and shifted (stand-in for MNIST)"


def _patches(n):
    """Patches of 32 x 32 pixels of scikit-learn's two photographs, labelled by the region they were cut from."""
    from sklearn.datasets import load_sample_images

    patches, labels = [], []
    for number, photo in enumerate(load_sample_images().images):
        windows = np.lib.stride_tricks.sliding_window_view(photo, (32, 32), axis=(0, 1))[::4, ::4]
        region = np.arange(windows.shape[1]) * 5 // windows.shape[1] + 5 * number
        patches.append(windows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(np.tile(region, windows.shape[0]))
    images, labels = np.concatenate(patches), np.concatenate(labels).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))[:n]
    return images[order], labels[order], "patches of scikit-learn's two photographs (stand-in for CIFAR-10)"


def _overlaps(n):
    """Pairs of sentences from scikit-learn's descriptions of data sets, scored by the share of words in common."""
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "descr"
    text = " ".join(path.read_text(encoding="utf8") for path in sorted(folder.glob("*.rst")))
    sentences = [" ".join(s.split()) for s in re.split(r"[.!?]\s", text)]
    sentences = sorted({s for s in sentences if re.fullmatch(r"[\w ,'()-]{30,150}", s)})
    rng, pairs, scores = np.random.default_rng(0), [], []
    for _ in range(10_000 if n is None else min(n, MOST_PAIRS)):
        one, two = (sentences[i].split() for i in rng.integers(len(sentences), size=2))
        cut = rng.integers(len(one) + 1)  # the second sentence begins as the first one does
        two = (one[:cut] + two)[: len(one)]
        shared, union = set(one) & set(two), set(one) | set(two)
        pairs.append((" ".join(one), " ".join(two)))
        scores.append(5 * len(shared) / len(union))
    source = "sentences of scikit-learn's data set descriptions, scored by words in common (stand-in for STS-B)"
    return np.array(pairs), np.array(scores), source


_KINDS = {
    "mnist": _Kind(
        (File("mnist.npz", "af5595f05f0cc260498196e07655cfa443d2d96874d5ba0dcfeaea06defbda81"),),
        tuple(
            File(f"{part}-ubyte.gz", digest, _MNIST)
            for part, digest in (
                ("t10k-images-idx3", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
                ("t10k-labels-idx1", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
                ("train-images-idx3", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
                ("train-labels-idx1", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            )
        ),
        _read_npz,
        _read_idx,
        "mnist",
        _digits,
        lambda n: 2 if n is not None and n <= 10_000 else 4,
    ),
    "cifar10": _Kind(
        (File("cifar10.npz", "98e97ff8681eb72696e8add5cc72da8a72324276bbb48f947f724c677adff00c"),),
        (
            File(
                "cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                ("https://www.cs.toronto.edu/~kriz/", "https://cs.toronto.edu/~kriz/"),
            ),
        ),
        _read_npz,
        _read_cifar,
        "cifar10 (JPEG re-encoded)",
        _patches,
        lambda n: 1,
    ),
    "stsb": _Kind(
        (),
        tuple(
            File(f"stsb-en-{part}.csv", digest, _STSB)
            for part, digest in (
                ("train", "e1e84fec60bbb598735552f54a35f4949904a484750fd2cb11e2720e49f63da6"),
                ("dev", "d29586e96558c4eb52cf5ea5d14e9c24d3bf0e44f111b017caba43a5adc33226"),
                ("test", "11523b625219e94e9ca05d2816b5f02cac1614c5894fe657376fa0806378d053"),
            )
        ),
        _read_npz,
        _read_stsb,
        "stsb",
        _overlaps,
        lambda n: 3,
    ),
}
