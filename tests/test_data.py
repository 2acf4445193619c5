"""Data sets: where they are looked for, and that a wrong file is never used and never replaces a right one."""

import builtins
import functools
import gzip
import hashlib
import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from eoslib import data

GOOD = gzip.compress(b"\0\0\x08\x03" + np.array([5, 28, 28], ">i4").tobytes() + bytes(range(245)) * 16, mtime=0)
FILE = data.File("digits.gz", hashlib.sha256(GOOD).hexdigest())


class Server(http.server.ThreadingHTTPServer):
    """A web server on the loopback that counts requests and can send the files cut, wrong or slowly."""

    daemon_threads = True

    def __init__(self, files):
        self.files, self.asked = files, []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def at(self, folder=""):
        return f"http://127.0.0.1:{self.server_address[1]}/{folder}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        slow = self.path.startswith("/slow")
        self.send_header("Content-Length", str(len(body) + slow))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if slow:
            time.sleep(30)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server({"/good/digits.gz": GOOD, "/cut/digits.gz": GOOD[:-7], "/slow/digits.gz": GOOD[:-7]}) as running:
        yield running
        running.shutdown()


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No folder, an empty cache, no network."""
    monkeypatch.delenv("EOSLIB_DATA", raising=False)
    monkeypatch.setenv("EOSLIB_CACHE", str(tmp_path / "cache"))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # the discard port: refused at once
    monkeypatch.setenv("no_proxy", "")
    return tmp_path / "cache"


def mirrors(server, *folders):
    return data.File(FILE.name, FILE.sha256, tuple(server.at(folder + "/") for folder in folders))


get = functools.partial(data.fetch, progress=False)


def test_a_file_comes_from_the_first_mirror_that_has_it(server, tmp_path):
    path = get(mirrors(server, "missing", "cut", "good", "never"), tmp_path / "cache")
    assert path.read_bytes() == GOOD
    assert server.asked == ["/missing/digits.gz", "/cut/digits.gz", "/good/digits.gz"]
    assert get(mirrors(server, "never"), tmp_path / "cache") == path and len(server.asked) == 3
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["digits.gz"]


def test_a_wrong_file_is_refused_with_both_checksums_and_never_enters_the_cache(server, tmp_path):
    server.files["/wrong/digits.gz"] = wrong = GOOD[:100] + bytes([GOOD[100] ^ 1]) + GOOD[101:]
    with pytest.raises(ValueError, match="digits.gz") as refused:
        get(mirrors(server, "wrong", "missing"), tmp_path)
    assert FILE.sha256 in str(refused.value) and hashlib.sha256(wrong).hexdigest() in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_no_mirror_that_answers_is_no_file(server, tmp_path):
    dead = data.File(FILE.name, FILE.sha256, ("http://127.0.0.1:9/", server.at("missing/")))
    assert get(dead, tmp_path) is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), lambda raw: b""])
def test_a_damaged_file_in_the_cache_is_named_and_kept(server, tmp_path, damage):
    path = tmp_path / FILE.name
    path.write_bytes(damage(GOOD))
    with pytest.raises(
        ValueError, match=f"expected sha256 {FILE.sha256}, found {data.hashlib.sha256(damage(GOOD)).hexdigest()}"
    ):
        get(mirrors(server, "good"), tmp_path)
    assert path.read_bytes() == damage(GOOD) and not server.asked


def test_a_download_that_is_killed_leaves_no_broken_cache(server, tmp_path):
    script = (
        "import sys, pathlib; from eoslib import data\n"
        "data.fetch(data.File(sys.argv[1], sys.argv[2], (sys.argv[3],)), pathlib.Path(sys.argv[4]), progress=False)\n"
    )
    command = [sys.executable, "-c", script, FILE.name, FILE.sha256, server.at("slow/"), str(tmp_path)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size for p in tmp_path.glob("partial-*/*")):  # some of it has arrived
        assert process.poll() is None and time.monotonic() < deadline
        if server.asked and time.monotonic() > deadline - 55:
            break  # it may still sit in the client's buffer
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / FILE.name).exists() and list(tmp_path.glob("partial-*"))
    assert get(mirrors(server, "good"), tmp_path).read_bytes() == GOOD
    assert [p.name for p in tmp_path.iterdir()] == [FILE.name]  # what the killed one left is gone


def test_two_downloads_at_once_do_not_disturb_each_other(server, tmp_path):
    file, paths = mirrors(server, "good"), []
    threads = [threading.Thread(target=lambda: paths.append(get(file, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [p.read_bytes() for p in paths] == [GOOD] * 4


def test_a_bar_is_shown(server, tmp_path, capfd):
    data.fetch(mirrors(server, "good"), tmp_path, progress=True)
    assert "100%" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "shape", "kind"), [("mnist", (28, 28), "uint8"), ("cifar10", (32, 32, 3), "uint8"), ("stsb", (2,), "<U")]
)
def test_without_folder_cache_and_network_a_stand_in_says_that_it_is_one(nowhere, name, shape, kind):
    found = data.load(name, n=200)
    assert found.stand_in and "stand-in" in found.source and "scikit-learn" in found.source
    assert found.images.shape == (200, *shape) and found.labels.shape == (200,)
    assert str(found.images.dtype).startswith(kind) and found.sentences is found.images
    assert len(np.unique(found.labels)) == 10 if name != "stsb" else 0 <= found.labels.min() < found.labels.max() <= 5
    again, longer = data.load(name, n=200), data.load(name, n=300, download=False)
    assert np.array_equal(again.images, found.images) and np.array_equal(longer.labels[:200], found.labels)
    assert not found.images.flags.writeable


def test_the_stand_in_digits_are_large_enough_for_the_papers_subset(nowhere):
    found = data.load("mnist", n=5000, download=False)
    assert found.images.shape == (5000, 28, 28) and len(np.unique(found.images.reshape(5000, -1), axis=0)) == 5000
    with pytest.raises(ValueError, match="n: got 20000, needs at most 16173"):
        data.load("mnist", n=20_000, download=False)


def test_the_stand_in_may_be_asked_for(nowhere):
    assert np.array_equal(data.stand_in("mnist", 5).images, data.load("mnist", 5, download=False).images)
    with pytest.raises(ValueError, match="name: got 'x'"):
        data.stand_in("x", 5)


def test_a_damaged_extract_in_the_folder_is_refused_and_kept(nowhere, monkeypatch, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    np.savez(folder / "mnist.npz", images=np.zeros((3, 28, 28), np.uint8), labels=np.zeros(3, np.uint8))
    before = (folder / "mnist.npz").read_bytes()
    monkeypatch.setenv("EOSLIB_DATA", str(folder))
    found = hashlib.sha256(before).hexdigest()
    with pytest.raises(ValueError, match=f"mnist.npz: expected sha256 af5595f0.*, found {found}"):
        data.load("mnist", n=2)
    assert (folder / "mnist.npz").read_bytes() == before
    assert data.load("cifar10", n=2, download=False).stand_in  # what the folder does not have comes from elsewhere
    monkeypatch.setenv("EOSLIB_DATA", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="EOSLIB_DATA: got .*absent', needs an existing folder"):
        data.load("mnist")


def _publish(monkeypatch, name, server, files):
    """Let `name` consist of the given files, served by `server`."""
    kind = data._KINDS[name]
    originals = tuple(
        data.File(file.name, hashlib.sha256(body).hexdigest(), (server.at("web/"),))
        for file, body in zip(kind.originals, files, strict=True)
    )
    server.files |= {f"/web/{file.name}": body for file, body in zip(kind.originals, files, strict=True)}
    monkeypatch.setitem(data._KINDS, name, data._Kind(**{**vars(kind), "originals": originals}))


def _idx(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(head + array.tobytes(), mtime=0)


def test_the_original_files_are_read_from_web_cache_and_folder(nowhere, monkeypatch, server, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for n in (3, 4)]
    labels = [rng.integers(0, 10, n, dtype=np.uint8) for n in (3, 4)]
    _publish(monkeypatch, "mnist", server, [_idx(a) for pair in zip(parts, labels, strict=True) for a in pair])
    found = data.load("mnist", n=3, progress=False)
    assert len(server.asked) == 2  # the training digits were not needed
    assert found.source == "mnist" and not found.stand_in and np.array_equal(found.images, parts[0])
    found = data.load("mnist", progress=False)
    assert np.array_equal(found.images, np.concatenate(parts)) and np.array_equal(found.labels, np.concatenate(labels))
    assert len(server.asked) == 4 and data.load("mnist", download=False).sha256 == found.sha256
    monkeypatch.setenv("EOSLIB_DATA", str(nowhere))
    monkeypatch.setenv("EOSLIB_CACHE", str(tmp_path / "empty"))
    assert data.load("mnist", download=False).sha256 == found.sha256 and len(server.asked) == 4


def test_the_original_archive_of_cifar_is_read(nowhere, monkeypatch, server, tmp_path):
    import io
    import tarfile

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number, part in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
            pair = (2 * number, 2 * number + 1)
            body = b"".join(bytes([item]) + images[item].transpose(2, 0, 1).tobytes() for item in pair)
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{part}.bin")
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    _publish(monkeypatch, "cifar10", server, [buffer.getvalue()])
    found = data.load("cifar10", progress=False)
    assert (
        np.array_equal(found.images, images) and found.labels.tolist() == list(range(12)) and found.source == "cifar10"
    )


def test_no_pickle_is_opened(nowhere, monkeypatch, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.savez(tmp_path / "mnist.npz", images=np.array([Trap()], dtype=object), labels=np.zeros(1))
    with pytest.raises(ValueError, match="allow_pickle"):
        data._read_npz([tmp_path / "mnist.npz"])
    source = Path(data.__file__).read_text(encoding="utf8")
    assert not (tmp_path / "sprung").exists() and "import pickle" not in source


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("imagenet",), "name: got 'imagenet'"),
        ((None,), "name: got None"),
        (("mnist", 0), "n: got 0, needs an integer >= 1"),
        (("mnist", 2.5), "n: got 2.5"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.load(*arguments)


@pytest.mark.skipif(not os.environ.get("EOSLIB_DATA"), reason="the folder EOSLIB_DATA is not set")
def test_the_real_data_where_they_are_at_hand():
    digits = data.load("mnist", n=10_000)
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # known of the 10,000 test digits
    assert digits.source == "mnist" and np.bincount(digits.labels).tolist() == counts
    assert data.load("cifar10", n=100).images.shape == (100, 32, 32, 3)
    pairs = data.load("stsb")
    assert len(pairs.labels) == 8628 and pairs.sentences.shape == (8628, 2)


@pytest.mark.parametrize("flag", ["download", "progress"])
def test_switches_are_true_or_false(flag):
    for bad in (1, 0, None, "yes"):
        with pytest.raises(ValueError, match=f"^{flag}: got {bad!r}, needs True or False"):
            data.load("mnist", **{flag: bad})
    with pytest.raises(ValueError, match="^n: got 0, needs an integer >= 1"):
        data.stand_in("mnist", 0)


def small_mnist(folder, monkeypatch, training=lambda images, labels: (images, labels)):
    """An extract of three digits in `folder`, and the files of originals whose training part is made from it."""
    folder.mkdir()
    images, labels = (
        np.random.default_rng(1).integers(0, 256, (3, 28, 28), dtype=np.uint8),
        np.array([7, 8, 9], np.uint8),
    )
    np.savez(folder / "mnist.npz", images=images, labels=labels)
    parts, kind = [_idx(a) for a in (*training(images, labels), images[:2], labels[:2])], data._KINDS["mnist"]
    known = {
        "extract": (data.File("mnist.npz", hashlib.sha256((folder / "mnist.npz").read_bytes()).hexdigest()),),
        "originals": tuple(data.File(f.name, hashlib.sha256(p).hexdigest()) for f, p in zip(kind.originals, parts)),
    }
    monkeypatch.setitem(data._KINDS, "mnist", data._Kind(**{**vars(kind), **known}))
    monkeypatch.setenv("EOSLIB_DATA", str(folder))
    return images, parts, kind, known


def test_an_extract_is_preferred_and_the_originals_are_read_where_it_is_too_short(nowhere, monkeypatch, tmp_path):
    folder = tmp_path / "folder"
    images, parts, kind, known = small_mnist(folder, monkeypatch)
    found = data.load("mnist", download=False)
    assert found.source == "mnist" and not found.stand_in and found.sha256 == known["extract"][0].sha256
    assert np.array_equal(found.images, images) and found.labels.tolist() == [7, 8, 9]
    assert data.load("mnist", n=2, download=False).labels.tolist() == [7, 8]
    with pytest.raises(ValueError, match="^n: got 4, needs at most 3, which is what 'mnist' has"):
        data.load("mnist", n=4, download=False)
    for file, body in zip(kind.originals, parts):
        (folder / file.name).write_bytes(body)
    monkeypatch.setitem(data._KINDS, "mnist", data._Kind(**{**vars(kind), **known, "needed": lambda n: 4}))
    longer = data.load("mnist", n=5, download=False)
    assert longer.labels.tolist() == [7, 8, 9, 7, 8]
    digests = "".join(file.sha256 for file in known["originals"])
    assert (
        longer.sha256 == hashlib.sha256(digests.encode()).hexdigest()
    )  # of several files: that of their digests in order


def test_what_the_processes_of_others_left_behind(server, tmp_path):
    mine, dead, other = (tmp_path / f"partial-{name}" for name in (f"{os.getpid()}-x", "4194304-x", "word"))
    for folder in (mine, dead, other):
        folder.mkdir()
    get(mirrors(server, "good"), tmp_path)
    assert mine.exists() and other.exists() and not dead.exists()  # no process has a number above the kernel's limit


def test_the_users_cache_folder_without_a_setting(monkeypatch, tmp_path):
    monkeypatch.delenv("EOSLIB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.cache().name == "eoslib" and data.cache().is_absolute()
    monkeypatch.setenv("EOSLIB_CACHE", str(tmp_path / "own"))
    assert data.cache() == tmp_path / "own"


def test_the_first_files_of_mnist_are_its_test_digits():
    needed = data._KINDS["mnist"].needed
    assert [needed(n) for n in (1, 10_000, 10_001, None)] == [2, 2, 4, 4]


def test_the_table_of_published_files():
    names = {
        "mnist": [f"{part}-ubyte.gz" for part in ("t10k-images-idx3", "t10k-labels-idx1")]
        + [f"{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1")],
        "cifar10": ["cifar-10-binary.tar.gz"],
        "stsb": ["stsb-en-train.csv", "stsb-en-dev.csv", "stsb-en-test.csv"],
    }
    hosts = {
        "mnist": ["ossci-datasets.s3.amazonaws.com", "storage.googleapis.com"],
        "cifar10": ["www.cs.toronto.edu", "cs.toronto.edu"],
        "stsb": ["raw.githubusercontent.com", "huggingface.co"],
    }
    extracts = {"mnist": ["mnist.npz"], "cifar10": ["cifar10.npz"], "stsb": []}
    assert list(data._KINDS) == list(names)
    for name, kind in data._KINDS.items():
        assert [file.name for file in kind.originals] == names[name]
        assert [file.name for file in kind.extract] == extracts[name] and not any(f.mirrors for f in kind.extract)
        assert kind.needed(1) <= kind.needed(None) == len(kind.originals)
        for file in kind.originals:
            found = [re.fullmatch(r"https://([a-z0-9.-]+)/([A-Za-z0-9~_-]+/)+", mirror)[1] for mirror in file.mirrors]
            assert found == hosts[name]
        digests = [file.sha256 for file in kind.originals + kind.extract]
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests) and len(set(digests)) == len(digests)
    assert [kind.extract_source for kind in data._KINDS.values()] == ["mnist", "cifar10 (JPEG re-encoded)", "stsb"]


def test_digits_of_the_stand_in_by_hand(nowhere):
    from sklearn.datasets import load_digits

    small, labels = load_digits(return_X_y=True)
    found = data.load("mnist", download=False)
    assert len(found.labels) == 9 * len(labels) and np.array_equal(found.labels[: len(labels)], labels)
    first = found.images[0]
    # the 8 x 8 digit with each pixel three wide, in the middle of 28 x 28; 16 grey levels become 255
    assert (
        first[2:26, 2:26].reshape(8, 3, 8, 3)[:, 1, :, 1].tolist()
        == np.round(small[0].reshape(8, 8) * 255 / 16).tolist()
    )
    assert not first[:2].any() and not first[26:].any() and not first[:, :2].any() and not first[:, 26:].any()
    shifted = found.images[len(labels) :: len(labels)]
    shifts = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    assert all(
        np.array_equal(image, np.roll(first, shift, (0, 1))) for image, shift in zip(shifted, shifts, strict=True)
    )


def test_scores_of_the_stand_in_pairs_are_shares_of_words(nowhere):
    pairs = data.load("stsb", n=50, download=False)
    for (one, two), score in zip(pairs.sentences, pairs.labels):
        a, b = set(one.split()), set(two.split())
        assert score == 5 * len(a & b) / len(a | b) and len(two.split()) <= len(one.split())


# -- what a download does beside the file -----------------------------------------------------------------------------
def test_a_download_is_made_in_a_folder_of_its_own_inside_the_new_cache(server, tmp_path, monkeypatch):
    moved, replace = [], os.replace

    def watched(source, target):
        moved.append((Path(source), Path(target)))
        replace(source, target)
        Path(source).parent.rmdir()  # somebody else tidies up at the same moment: no error

    monkeypatch.setattr(data.os, "replace", watched)
    folder = tmp_path / "a" / "b"
    path = get(mirrors(server, "good"), folder)
    ((source, target),) = moved
    assert target == path == folder / FILE.name and source.name == FILE.name
    assert source.parent.parent == folder and re.match(rf"partial-{os.getpid()}-", source.parent.name)


def test_a_mirror_without_a_proper_address_is_passed_over(server, tmp_path):
    file = data.File(FILE.name, FILE.sha256, ("http:///", "no-protocol://x/", server.at("good/")))
    assert get(file, tmp_path).read_bytes() == GOOD
    broken = data.File(FILE.name, "0" * 64, (server.at("good/"), "http://127.0.0.1:9/"))
    with pytest.raises(ValueError, match=f"^other.gz from {server.at('good/')}: expected sha256 {'0' * 64}, found "):
        server.files["/good/other.gz"] = GOOD
        get(data.File("other.gz", broken.sha256, broken.mirrors), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [FILE.name]


def test_a_silent_server_is_waited_for_no_longer_than_said(server, tmp_path, monkeypatch):
    assert data.SECONDS == pytest.approx(10, abs=2)
    monkeypatch.setattr(data, "SECONDS", 0.2)
    began = time.monotonic()
    assert get(mirrors(server, "slow", "good"), tmp_path).read_bytes() == GOOD
    assert server.asked == ["/slow/digits.gz", "/good/digits.gz"] and time.monotonic() - began < 10  # the server: 30 s


def test_a_download_says_nothing_but_its_bar(server, tmp_path, capfd):
    import pooch

    logger = pooch.get_logger()
    before = logger.level
    try:
        logger.setLevel("INFO")
        get(mirrors(server, "good"), tmp_path)
        assert capfd.readouterr() == ("", "") and logger.level == 20
    finally:
        logger.setLevel(before)
    data.fetch(mirrors(server, "good"), tmp_path / "other")
    assert "100%" in capfd.readouterr().err  # a bar is the default


def test_load_shows_a_bar_unless_told_otherwise(nowhere, monkeypatch, server, capfd):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    rows = 'one,two,1.5\n"a, b","c ""d""\r\ne",5\n', "é,ö,0\n", "x,y,2.25\nz,w,3\n"
    _publish(monkeypatch, "stsb", server, [text.encode() for text in rows])
    pairs = data.load("stsb", n=4)
    assert capfd.readouterr().err.count("100%") == 3
    assert pairs.sentences.tolist() == [["one", "two"], ["a, b", 'c "d"\ne'], ["é", "ö"], ["x", "y"]]
    assert pairs.labels.tolist() == [1.5, 5.0, 0.0, 2.25] and pairs.labels.dtype == np.float64
    assert pairs.source == "stsb" and not pairs.stand_in and not pairs.labels.flags.writeable
    again = data.load("stsb")
    assert len(again.labels) == 5 and again.sha256 == pairs.sha256 and len(server.asked) == 3
    (nowhere / "stsb-en-dev.csv").unlink()
    assert not data.load("stsb", n=1, progress=False).stand_in and capfd.readouterr().err == ""
    del server.files["/web/stsb-en-dev.csv"]
    (nowhere / "stsb-en-dev.csv").unlink()
    assert data.load("stsb", n=1).stand_in  # one of three is nowhere
    assert data.load("stsb", n=1, download=False).stand_in


def test_which_processes_are_running(monkeypatch):
    assert data._running(os.getpid())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not data._running(ended.pid)

    def kill(pid, number):
        asked.append((pid, number))
        raise PermissionError

    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(data.os, "kill", kill)
        other = data._running(7)  # it belongs to somebody else
        patch.setattr(data.os, "name", "nt")
        foreign = data._running(8)  # there, signal 0 would end it
    assert other is True and foreign is True and asked == [(7, 0)]


def test_only_folders_of_ended_processes_are_swept(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f"partial-{ended.pid}-x", f"partial-{os.getpid()}-x", f"partial-x{ended.pid}-x", f"other-{ended.pid}-x"]
    for name in names:
        (tmp_path / name / "inner").mkdir(parents=True)
    data._sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names[1:])
    (tmp_path / names[0]).write_text("")  # a file of that name is no folder: no error, and the next call may try again
    data._sweep(tmp_path)


# -- what the readers make of the published formats -------------------------------------------------------------------
def test_sizes_of_idx_files_have_four_bytes_each(tmp_path):
    long = np.zeros(2**24 + 2**16 + 2**8 + 3, np.uint8)
    long[[0, -1]] = 5, 7
    wide = long[::-1].reshape(1, 1, -1)
    for name, array in (("a", wide), ("b", long)):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        (tmp_path / name).write_bytes(gzip.compress(head + array.tobytes(), 1, mtime=0))
    images, labels = data._read_idx([tmp_path / "a", tmp_path / "b"])
    assert np.array_equal(images, wide) and np.array_equal(labels, long) and images.dtype == labels.dtype == np.uint8


def test_patches_of_the_stand_in_by_hand(nowhere):
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    places = []
    for number, photo in enumerate(photos):
        columns = range(0, photo.shape[1] - 31, 4)
        places += [
            (number, i, j, 5 * number + rank * 5 // len(columns))
            for i in range(0, photo.shape[0] - 31, 4)
            for rank, j in enumerate(columns)
        ]
    found = data.load("cifar10", download=False)
    assert len(found.labels) == len(places)
    order = np.random.default_rng(0).permutation(len(places))
    for item, place in enumerate(order[:40]):
        number, i, j, region = places[place]
        assert np.array_equal(found.images[item], photos[number][i : i + 32, j : j + 32])
        assert found.labels[item] == region
    assert found.labels.dtype == found.images.dtype == np.uint8


def test_pairs_of_the_stand_in_are_sentences_and_their_mixtures(nowhere):
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "descr"
    texts = [path.read_text(encoding="utf8") for path in sorted(folder.glob("*.rst"))]
    ends = " ".join([*" ".join(texts).split(), ""]).replace("! ", ". ").replace("? ", ". ")
    whole = {s for s in map(str.strip, ends.split(". ")) if 30 <= len(s) <= 150}
    allowed = set("' ,()-_") | {c for c in ends if c.isalnum()}
    whole = {s for s in whole if set(s) <= allowed}
    pairs = data.load("stsb", download=False)
    assert pairs.sentences.shape == (10_000, 2) and pairs.labels.shape == (10_000,)
    used = set(pairs.sentences[:, 0].tolist())
    assert used == whole  # 10,000 draws meet each of the few hundred sentences
    words = [s.split() for s in sorted(whole)]
    for one, two in pairs.sentences[:100].tolist():
        first, second = one.split(), two.split()
        # the second begins as the first one, and goes on as some sentence begins
        assert any(
            second == (first[:cut] + other)[: len(first)] for cut in range(len(first) + 1) for other in words
        )
    same = [one == two for one, two in pairs.sentences.tolist()]
    assert 0.02 < np.mean(same) < 0.2 and np.all((pairs.labels == 5) >= same)  # cut at the end: 1 in about 15 words
    assert np.min(pairs.labels) == 0 and len(data.stand_in("stsb", 1).labels) == 1
    assert np.array_equal(data.stand_in("stsb", 70).sentences, pairs.sentences[:70])


def test_an_extract_serves_as_long_as_it_is_long_enough(nowhere, monkeypatch, tmp_path):
    folder = tmp_path / "folder"
    _, parts, kind, _ = small_mnist(folder, monkeypatch, lambda images, labels: (images + np.uint8(1), labels - np.uint8(6)))
    for file, body in zip(kind.originals, parts):
        (folder / file.name).write_bytes(body)
    for n in (None, 1, 3):
        assert data.load("mnist", n=n, download=False).labels.tolist() == [7, 8, 9][:n]
    (folder / kind.originals[3].name).unlink()
    assert data.load("mnist", n=2, download=False).labels.tolist() == [7, 8]
    (folder / "mnist.npz").unlink()
    assert data.load("mnist", n=2, download=False).labels.tolist() == [1, 2]  # two of the originals are enough for two
    assert data.load("mnist", n=2, download=False).source == "mnist"
    assert data.load("mnist", download=False).stand_in


def test_the_table_names_the_mirrors_that_the_module_gives():
    assert {file.mirrors for file in data._KINDS["mnist"].originals} == {data._MNIST}
    assert {file.mirrors for file in data._KINDS["stsb"].originals} == {data._STSB}


def test_the_digest_of_a_stand_in_is_that_of_its_arrays(nowhere):
    found = data.stand_in("cifar10", 3)
    assert found.sha256 == hashlib.sha256(found.images.tobytes() + found.labels.tobytes()).hexdigest()
    assert data.load("cifar10", n=4, download=False).sha256 != found.sha256


# -- what is not asked, not shown and not left to the machine ---------------------------------------------------------
def test_without_leave_the_web_is_not_asked(nowhere, monkeypatch, server):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    _publish(monkeypatch, "stsb", server, [f"one,two,{score}\n".encode() for score in (1, 2, 3)])
    assert data.load("stsb", n=1, download=False).stand_in and server.asked == []
    assert not data.load("stsb", n=1, progress=False).stand_in
    (nowhere / "stsb-en-dev.csv").unlink()
    server.asked.clear()
    assert data.load("stsb", n=1, download=False).stand_in and server.asked == []  # two of three are not enough


def test_a_download_does_not_pass_on_what_tqdm_misses(server, tmp_path, monkeypatch, recwarn):
    """Loading pooch loads tqdm, which warns in a notebook without widgets."""
    load = builtins.__import__

    def watched(name, *rest, **options):
        if name == "pooch":
            seen.append(name)
            warnings.warn("IProgress not found", stacklevel=2)
        return load(name, *rest, **options)

    seen = []
    monkeypatch.setattr(builtins, "__import__", watched)
    assert get(mirrors(server, "good"), tmp_path).read_bytes() == GOOD
    assert seen == ["pooch"] and not recwarn.list


def test_texts_are_read_as_utf8_whatever_the_locale(tmp_path, monkeypatch):
    read, seen = Path.read_text, []
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: seen.append((path.suffix, k)) or read(path, *a, **k))
    (tmp_path / "pairs.csv").write_bytes('é,"ö\r\nü",1.5\r\n'.encode())
    sentences, scores = data._read_stsb([tmp_path / "pairs.csv"])
    assert sentences.tolist() == [["é", "ö\nü"]] and scores.tolist() == [1.5]
    data.stand_in("stsb", 1)
    ours = [item for item in seen if item[0] in (".csv", ".rst")]  # sklearn may be loading for the first time
    assert len(ours) > 3 and all(options == {"encoding": "utf8"} for _, options in ours)


def test_stand_ins_say_of_what_they_are_made_and_for_what_they_stand():
    made = {name: data.stand_in(name, 1).source for name in ("mnist", "cifar10", "stsb")}
    words = {
        "mnist": ("scikit-learn digits, ", " (stand-in for MNIST)"),
        "cifar10": ("patches of scikit-learn's two photographs", " (stand-in for CIFAR-10)"),
        "stsb": ("sentences of scikit-learn's data set descriptions, ", " (stand-in for STS-B)"),
    }
    assert all(made[name].startswith(first) and made[name].endswith(last) for name, (first, last) in words.items())
    assert [len(part) for n in (1, 3) for part in data._overlaps(n)[:2]] == [1, 1, 3, 3]  # no more than are asked for


def test_a_stand_in_has_a_last_item(monkeypatch):
    """However many are asked for, it makes no more than it says."""
    monkeypatch.setattr(data, "MOST_PAIRS", 20)
    assert len(data.stand_in("stsb", 20).labels) == 20
    for name, most in (("mnist", 16_173), ("cifar10", 30_294), ("stsb", 20)):
        for n in (most + 1, 10**12):
            with pytest.raises(ValueError, match=f"^n: got {n}, needs at most {most}, which is what .* has"):
                data.stand_in(name, n)
