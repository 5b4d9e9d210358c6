"""CIFAR-10 and MNIST: what is read from intact files, and that every damaged file is refused by name."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import tarfile

import numpy as np
import pytest

import dip
from dip.datasets import cifar, idx, places

RECORD = 3073
BATCH = "data_batch_1.bin"
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """No test finds data that lie on this machine."""
    monkeypatch.delenv("DIP_DATA", raising=False)
    monkeypatch.setenv("DIP_CACHE", str(tmp_path / "cache"))


def cifar_batch(count, seed=0):
    """The bytes of a batch, its images (N, 32, 32, 3) and its labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, count, np.uint8)
    rows = []
    for label, image in zip(labels, images, strict=True):
        rows.append(bytes([label]) + b"".join(image[..., channel].tobytes() for channel in range(3)))
    return b"".join(rows), images, labels


def tar_bytes(members, kind="gz", **options):
    """An archive of (TarInfo or name, content) pairs, the same bytes at any time of day."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", **options) as archive:
        for info, content in members:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0) if kind == "gz" else buffer.getvalue()


def digits(count, seed=0):
    """The bytes of an images file and a labels file, and what is in them."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 28, 28), np.uint8)
    labels = rng.integers(0, 10, count, np.uint8)
    head = struct.pack(">IIII", 0x803, count, 28, 28)
    return head + images.tobytes(), struct.pack(">II", 0x801, count) + labels.tobytes(), images, labels


def listing(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


# CIFAR-10


def test_cifar_from_a_folder(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    first, second = cifar_batch(3, seed=1), cifar_batch(4, seed=2)
    (folder / BATCH).write_bytes(first[0])
    (folder / "data_batch_4.bin").write_bytes(second[0])
    for given in (folder, tmp_path, str(tmp_path)):
        images, labels = dip.datasets.cifar10(given)
        assert images.dtype == labels.dtype == np.uint8
        assert images.flags.c_contiguous
        np.testing.assert_array_equal(images, np.concatenate([first[1], second[1]]))
        np.testing.assert_array_equal(labels, np.concatenate([first[2], second[2]]))


@pytest.mark.parametrize("limit", [1, 3, 5, 7, 100])
@pytest.mark.parametrize("packed", [False, True])
def test_cifar_limit_takes_the_first(tmp_path, limit, packed):
    first, second = cifar_batch(3, seed=1), cifar_batch(4, seed=2)
    if packed:
        names = [f"cifar-10-batches-bin/data_batch_{n}.bin" for n in (2, 1)]
        (tmp_path / "cifar-10-binary.tar.gz").write_bytes(tar_bytes(zip(names, (second[0], first[0]), strict=True)))
    else:
        (tmp_path / BATCH).write_bytes(first[0])
        (tmp_path / "data_batch_2.bin").write_bytes(second[0])
    images, labels = dip.datasets.cifar10(tmp_path, limit=limit)
    np.testing.assert_array_equal(images, np.concatenate([first[1], second[1]])[:limit])
    np.testing.assert_array_equal(labels, np.concatenate([first[2], second[2]])[:limit])


@pytest.mark.parametrize("kind", ["gz", ""])
@pytest.mark.parametrize("below", ["cifar-10-batches-bin/", "", "./cifar-10-batches-bin/"])
def test_cifar_from_the_archive_extracts_nothing(tmp_path, kind, below):
    data, images, labels = cifar_batch(2)
    folder = tarfile.TarInfo("cifar-10-batches-bin")
    folder.type = tarfile.DIRTYPE
    members = [(folder, b""), (f"{below}readme.html", b"<html>"), (f"{below}test_batch.bin", data)]
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(tar_bytes(members, kind))
    for given in (tmp_path, path):
        read = dip.datasets.cifar10(given, train=False)
        np.testing.assert_array_equal(read[0], images)
        np.testing.assert_array_equal(read[1], labels)
    assert listing(tmp_path) == [path.relative_to(tmp_path)]


def test_cifar_is_found_through_the_environment(tmp_path, monkeypatch):
    folder = tmp_path / "research" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / BATCH).write_bytes(cifar_batch(2)[0])
    monkeypatch.setenv("DIP_DATA", str(tmp_path / "research"))
    assert len(dip.datasets.cifar10()[0]) == 2
    monkeypatch.setenv("DIP_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"DIP_DATA names .*nowhere"):
        dip.datasets.cifar10()


def test_cifar_missing_says_what_where_and_how(tmp_path, monkeypatch):
    research = tmp_path / "research"
    research.mkdir()
    monkeypatch.setenv("DIP_DATA", str(research))
    with pytest.raises(FileNotFoundError) as caught:
        dip.datasets.cifar10()
    for part in ("data_batch_1.bin", str(research), str(tmp_path / "cache"), "download=True", "https://www.cs.toronto"):
        assert part in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"test_batch\.bin"):
        dip.datasets.cifar10(research, train=False)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        dip.datasets.cifar10(tmp_path / "nowhere")


def test_the_pickled_cifar_is_refused(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(FileNotFoundError, match="pickle, which is never loaded"):
        dip.datasets.cifar10(tmp_path)
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(tar_bytes([("cifar-10-batches-py/data_batch_1", b"\x80\x02}q\x00.")]))
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz .*pickle, which is never loaded"):
        dip.datasets.cifar10(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (bytes(RECORD - 1), "3072 bytes"),
        (bytes(2 * RECORD + 1), "6147 bytes"),
        (bytes(RECORD) + b"\x0a" + bytes(RECORD - 1), "label 1 is 10"),
        (bytes(10_001 * RECORD), "more than 30730000 bytes"),
    ],
)
def test_cifar_batches_of_another_form_are_refused(tmp_path, data, reason):
    (tmp_path / BATCH).write_bytes(data)
    with pytest.raises(ValueError, match=reason) as caught:
        dip.datasets.cifar10(tmp_path)
    assert str(tmp_path / BATCH) in str(caught.value)


def odd(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "member",
    [
        ("../data_batch_2.bin", b"x"),
        ("cifar-10-batches-bin/../../x", b"x"),
        ("/tmp/data_batch_2.bin", b"x"),
        ("C:\\data_batch_2.bin", b"x"),
        ("a\\..\\..\\x", b"x"),
        (odd("cifar-10-batches-bin/data_batch_2.bin", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (odd("cifar-10-batches-bin/data_batch_2.bin", tarfile.LNKTYPE, "data_batch_1.bin"), b""),
        (odd("pipe", tarfile.FIFOTYPE), b""),
        (odd("device", tarfile.CHRTYPE), b""),
        (odd("sparse", tarfile.GNUTYPE_SPARSE), b""),
        (BATCH, cifar_batch(1)[0]),
    ],
    ids=lambda member: getattr(member[0], "name", member[0]) + getattr(member[0], "type", b"").decode(),
)
def test_archives_with_odd_members_are_refused(tmp_path, member):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(tar_bytes([(f"cifar-10-batches-bin/{BATCH}", cifar_batch(1)[0]), member]))
    with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz (has|is)") as caught:
        dip.datasets.cifar10(tmp_path)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == [path.relative_to(tmp_path)]


def test_an_archive_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.tar.gz"
    path.write_bytes(tar_bytes([("letter.txt", b"hello")]))
    with pytest.raises(ValueError, match=r"other.tar.gz has none of data_batch_1.bin"):
        dip.datasets.cifar10(path)
    path.write_bytes(gzip.compress(b"hello"))
    with pytest.raises(ValueError, match=r"other.tar.gz is damaged or no tar archive"):
        dip.datasets.cifar10(path)


def test_bombs_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "cifar-10-binary.tar.gz"
    monkeypatch.setattr(cifar, "_MAX_UNPACKED", 2**20)
    path.write_bytes(gzip.compress(bytes(2**22)))
    with pytest.raises(ValueError, match="more than 1048576 bytes"):
        dip.datasets.cifar10(path)
    path.write_bytes(tar_bytes([(f"empty{n}", b"") for n in range(100)]))
    with pytest.raises(ValueError, match="more than 50 members"):
        dip.datasets.cifar10(path)
    # a header that claims 8 GiB
    plain = bytearray(tar_bytes([(BATCH, cifar_batch(1)[0])], kind=""))
    plain[124:136] = b"77777777777\0"
    plain[148:156] = b"%06o\0 " % (sum(plain[:148]) + 8 * 32 + sum(plain[156:512]))
    path.write_bytes(plain)
    with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz is (cut short|damaged)"):
        dip.datasets.cifar10(path)
    # and one of a negative size, which made old versions of tarfile go round for ever
    plain[124:136] = b"\xff" * 10 + b"\xfe\x00"
    plain[148:156] = b"%06o\0 " % (sum(plain[:148]) + 8 * 32 + sum(plain[156:512]))
    path.write_bytes(plain)
    with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz (is|has)"):
        dip.datasets.cifar10(path)
    # an idx file that claims 3 TiB
    (tmp_path / LABELS).write_bytes(digits(1)[1])
    (tmp_path / IMAGES).write_bytes(struct.pack(">IIII", 0x803, 2**32 - 1, 28, 28))
    with pytest.raises(ValueError, match="4294967295 x 28 x 28"):
        dip.datasets.mnist(tmp_path)


# MNIST


@pytest.mark.parametrize("names", [(IMAGES, LABELS), ("train-images.idx3-ubyte", "train-labels.idx1-ubyte")])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
def test_mnist(tmp_path, names, packed, below):
    *contents, images, labels = digits(6)
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, contents, strict=True):
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    read = dip.datasets.mnist(tmp_path)
    np.testing.assert_array_equal(read[0], images)
    np.testing.assert_array_equal(read[1], labels)
    assert read[0].dtype == read[1].dtype == np.uint8
    read = dip.datasets.mnist(tmp_path, limit=4)
    np.testing.assert_array_equal(read[0], images[:4])
    np.testing.assert_array_equal(read[1], labels[:4])
    with pytest.raises(FileNotFoundError, match="t10k-images-idx3-ubyte"):
        dip.datasets.mnist(tmp_path, train=False)


def test_mnist_unpacked_by_a_browser_that_kept_the_name(tmp_path):
    contents = digits(2)
    (tmp_path / f"{IMAGES}.gz").write_bytes(contents[0])
    (tmp_path / LABELS).write_bytes(gzip.compress(contents[1]))
    np.testing.assert_array_equal(dip.datasets.mnist(tmp_path)[0], contents[2])


def test_mnist_missing_names_the_file(tmp_path):
    (tmp_path / IMAGES).write_bytes(digits(1)[0])
    with pytest.raises(FileNotFoundError, match=rf"{LABELS} or {LABELS}.gz not found; looked in .*download=True"):
        dip.datasets.mnist(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (IMAGES, b"\0\0", "cut short"),
        (IMAGES, digits(3)[0][:-1], "cut short"),
        (IMAGES, digits(3)[0] + b"\0", "longer"),
        (IMAGES, digits(12)[1], "begins with 0x00000801"),
        (IMAGES, struct.pack(">IIII", 0x803, 3, 28, 29) + bytes(3 * 28 * 29), "3 x 28 x 29"),
        (IMAGES, struct.pack(">IIII", 0x803, 0, 28, 28), "0 x 28 x 28"),
        (IMAGES, digits(4)[0], "3 labels for the 4 pictures"),
        (LABELS, struct.pack(">II", 0x801, 3) + b"\x01\x0a\x02", "label 1 is 10"),
        (LABELS, gzip.compress(digits(3)[1], mtime=0)[:-4], "damaged or cut short"),
        (LABELS, gzip.compress(digits(3)[1], mtime=0) + b"more", "damaged or cut short"),
    ],
)
def test_mnist_files_of_another_form_are_refused(tmp_path, name, content, reason):
    (tmp_path / IMAGES).write_bytes(digits(3)[0])
    (tmp_path / LABELS).write_bytes(digits(3)[1])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        dip.datasets.mnist(tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize("read", [dip.datasets.cifar10, dip.datasets.mnist])
@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_a_wrong_limit_is_refused_before_anything_is_read(tmp_path, read, limit):
    with pytest.raises((ValueError, TypeError), match="limit"):
        read(tmp_path / "nowhere", limit=limit)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / BATCH)
    with pytest.raises(ValueError, match="pipe, socket or device"):
        dip.datasets.cifar10(tmp_path)
    (tmp_path / "test_batch.bin").mkdir()
    with pytest.raises(IsADirectoryError, match=r"test_batch.bin is a folder"):
        dip.datasets.cifar10(tmp_path, train=False)


# mutated files


def mutations(data, count, seed):
    """Copies of some data that are cut short, longer, or have changed bytes, half of them near the beginning."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        kind, changed = number % 4, bytearray(data)
        if kind == 0:
            yield bytes(changed[: rng.integers(0, len(data))])
        elif kind == 1:
            yield bytes(changed) + rng.bytes(int(rng.integers(1, 2000)))
        else:
            reach = min(len(data), 600) if kind == 2 else len(data)
            for place in rng.integers(0, reach, rng.integers(1, 4)):
                changed[place] ^= int(rng.integers(1, 256))
            yield bytes(changed)


def outcome(read, folder):
    """What is read, or the message of the refusal."""
    try:
        return read(folder), ""
    except (ValueError, OSError) as error:
        return None, str(error)


CIFAR_DATA = cifar_batch(12)[0]
BELOW = "cifar-10-batches-bin/"
CIFAR_MEMBERS = [(f"{BELOW}batches.meta.txt", b"airplane\n"), (BELOW + BATCH, CIFAR_DATA)]
PAX = {"format": tarfile.PAX_FORMAT, "pax_headers": {"a": "b"}}
FORMS = {
    "batch": (BATCH, CIFAR_DATA),
    "archive": ("cifar-10-binary.tar.gz", tar_bytes(CIFAR_MEMBERS)),
    "pax archive": ("cifar-10-binary.tar.gz", tar_bytes(CIFAR_MEMBERS, "", **PAX)),
    "plain archive": ("cifar-10-binary.tar.gz", tar_bytes(CIFAR_MEMBERS, "")),
    "images": (IMAGES, digits(12)[0]),
    "packed images": (f"{IMAGES}.gz", gzip.compress(digits(12)[0], mtime=0)),
    "labels": (LABELS, digits(12)[1]),
    "packed labels": (f"{LABELS}.gz", gzip.compress(digits(12)[1], mtime=0)),
}


@pytest.mark.parametrize("form", FORMS)
def test_mutated_files_are_refused_by_name_or_read_in_the_right_shape(tmp_path, form):
    name, intact = FORMS[form]
    is_cifar = "CIFAR" in form or name == BATCH or name.startswith("cifar")
    if not is_cifar:
        (tmp_path / IMAGES).write_bytes(digits(12)[0])
        (tmp_path / LABELS).write_bytes(digits(12)[1])
        (tmp_path / name.removesuffix(".gz")).unlink()
    read, side = (dip.datasets.cifar10, (32, 32, 3)) if is_cifar else (dip.datasets.mnist, (28, 28))
    (tmp_path / name).write_bytes(intact)
    images, labels = read(tmp_path)
    assert images.shape == (12, *side)
    whole = images.tobytes() + labels.tobytes()
    files, refused = listing(tmp_path), 0
    for number, data in enumerate(mutations(intact, 48, seed=len(form))):
        (tmp_path / name).write_bytes(data)
        got, error = outcome(read, tmp_path)
        assert listing(tmp_path) == files
        if got is None:
            refused += 1
            assert name.removesuffix(".gz") in error, number
            assert "\n" not in error, number
            continue
        assert [part.shape for part in got] == [(12, *side), (12,)], number
        assert [part.dtype for part in got] == [np.uint8, np.uint8], number
        assert got[1].max() < 10, number
        if data[:2] == b"\x1f\x8b":  # gzip's checksum was compared
            assert got[0].tobytes() + got[1].tobytes() == whole, number
    assert refused >= 24  # every one that is cut short or longer, and more


def flipped(data):
    """One bit of the last value is another."""
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("kind", ["folder", "", "gz"])
def test_cifar_of_the_published_size_is_what_was_published(tmp_path, monkeypatch, kind):
    data, images, _ = cifar_batch(20)
    monkeypatch.setattr(cifar, "_BATCH", 20)
    monkeypatch.setitem(cifar._SHA256, BATCH, hashlib.sha256(data).hexdigest())
    path = tmp_path / (BATCH if kind == "folder" else "cifar-10-binary.tar.gz")

    def write(content):
        path.write_bytes(content if kind == "folder" else tar_bytes([(BATCH, content)], kind))

    write(data)
    np.testing.assert_array_equal(dip.datasets.cifar10(tmp_path)[0], images)
    write(flipped(data))
    if kind == "gz":  # another set of that size, whole by gzip's checksum
        assert (dip.datasets.cifar10(tmp_path)[0] != images).sum() == 1
        return
    with pytest.raises(
        ValueError, match=rf"{BATCH}.* is damaged, or of another data set: .*SHA-256 .*tar.gz"
    ) as caught:
        dip.datasets.cifar10(tmp_path)
    assert str(path) in str(caught.value)
    write(flipped(data)[: 19 * RECORD])  # no published size: nothing to compare it with
    assert len(dip.datasets.cifar10(tmp_path)[0]) == 19


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_mnist_of_the_published_size_is_what_was_published(tmp_path, monkeypatch, name):
    contents = dict(zip((IMAGES, LABELS), digits(6)[:2], strict=True))
    for each, content in contents.items():
        (tmp_path / each).write_bytes(content)
        monkeypatch.setitem(idx._SHA256, len(content), hashlib.sha256(content).hexdigest())
    whole = dip.datasets.mnist(tmp_path)
    (tmp_path / name).write_bytes(flipped(contents[name]))
    with pytest.raises(ValueError, match=rf"{name} is damaged, or of another data set: .*SHA-256 .*gzip"):
        dip.datasets.mnist(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(flipped(contents[name])))
    read = dip.datasets.mnist(tmp_path)
    assert sum((one != other).sum() for one, other in zip(read, whole, strict=True)) == 1


def test_the_published_sizes_are_known():
    sizes = {16 + 784 * 60_000, 8 + 60_000, 16 + 784 * 10_000, 8 + 10_000}
    assert set(idx._SHA256) == sizes
    assert set(cifar._SHA256) == {*cifar._FILES[True], *cifar._FILES[False]}


def test_the_cache_can_be_chosen(tmp_path, monkeypatch):
    assert places.cache() == tmp_path / "cache"
    monkeypatch.delenv("DIP_CACHE")
    kept = places.cache()
    assert "dip" in str(kept)  # pooch's folder for this user


# real files


def test_the_real_files(data_dir, monkeypatch):
    monkeypatch.setenv("DIP_DATA", str(data_dir))
    if not (data_dir / "cifar-10-batches-bin").is_dir() or not (data_dir / "mnist").is_dir():
        pytest.skip("CIFAR-10 or MNIST is not in DIP_DATA")
    images, labels = dip.datasets.cifar10(limit=10_000)
    assert images.shape == (10_000, 32, 32, 3)
    assert np.bincount(labels).min() > 900  # the classes are about equal
    np.testing.assert_allclose(images.mean(axis=(0, 1, 2)), [125.3, 123.0, 113.9], atol=1)  # published means
    images, labels = dip.datasets.mnist(train=False)
    assert images.shape == (10_000, 28, 28)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert abs(dip.datasets.mnist()[0].mean() / 255 - 0.1307) < 1e-4  # published mean


@pytest.mark.parametrize("name", ["data_batch_2.bin", IMAGES, LABELS, "t10k-images-idx3-ubyte"])
def test_one_wrong_bit_in_a_real_file(data_dir, tmp_path, name):
    if name.endswith(".bin"):
        path, read = data_dir / "cifar-10-batches-bin" / name, dip.datasets.cifar10
    else:
        path = data_dir / "mnist" / f"{name}.gz"

        def read(folder):
            for part in ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"):
                packed = f"{name[: name.index('-')]}-{part}"
                if packed != f"{name}.gz":
                    (folder / packed).write_bytes((path.parent / packed).read_bytes())
            return dip.datasets.mnist(folder, train=name.startswith("train"))

    if not path.exists():
        pytest.skip(f"{path.name} is not in DIP_DATA")
    content = path.read_bytes() if name.endswith(".bin") else gzip.decompress(path.read_bytes())
    (tmp_path / name).write_bytes(content)
    assert len(read(tmp_path)[0]) in (10_000, 60_000)
    (tmp_path / name).write_bytes(flipped(content))
    with pytest.raises(ValueError, match=f"{name} is damaged, or of another data set"):
        read(tmp_path)
