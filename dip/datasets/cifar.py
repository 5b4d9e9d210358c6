"""CIFAR-10: small colour photographs, from the official binary version.

A batch is a row of records of 3073 bytes: the label, then 32 x 32 values of red, of green and of blue. The version
for Python is a pickle, which can run anything when it is loaded; it is refused.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np

from dip.datasets import places
from dip.datasets.fetch import fetch
from dip.errors import positive_int

__all__ = ["cifar10"]

_SIDE, _CLASSES = 32, 10
_RECORD = 1 + 3 * _SIDE * _SIDE
_BATCH = 10_000  # records of an official batch; test_batch.bin and home-made ones may have fewer
_FOLDER, _ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
_FILES = {True: [f"data_batch_{number}.bin" for number in range(1, 6)], False: ["test_batch.bin"]}
_PICKLES = ("cifar-10-batches-py", "cifar-10-python.tar.gz", "data_batch_1", "test_batch")
_URL, _MD5 = f"https://www.cs.toronto.edu/~kriz/{_ARCHIVE}", "c32a1d4ab5d03f1284b67883e8d87530"
# SHA-256 of the files in it, also in torchvision-ruby (ankane/torchvision-ruby); the format has no checksum.
_SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
# The official archive has 170 million bytes, 8 members and 184 million bytes unpacked.
_MAX_DOWNLOAD, _MAX_UNPACKED, _MAX_MEMBERS = 180_000_000, 200_000_000, 50


def cifar10(
    folder: str | os.PathLike[str] | None = None,
    *,
    train: bool = True,
    limit: int | None = None,
    download: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Read CIFAR-10: 50,000 colour photographs of 32 x 32 pixels for training, 10,000 for tests.

    Parameters
    ----------
    folder : str or path-like, optional
        The extracted folder ``cifar-10-batches-bin``, the archive ``cifar-10-binary.tar.gz``, or a folder with one
        of them in it. By default the folder that the environment variable DIP_DATA names, then the cache of
        downloads. Of the five training batches those that are there are read.
    train : bool, default True
        The training pictures; False: the test pictures.
    limit : int, optional
        The most pictures, the first in the order of the files.
    download : bool, default False
        Fetch the archive (170 MB) where nothing is found (needs the extra ``data``).

    Returns
    -------
    images : ndarray
        (N, 32, 32, 3), uint8, RGB.
    labels : ndarray
        (N,), uint8: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.

    Raises
    ------
    OSError
        If it is missing (FileNotFoundError) or cannot be fetched.
    ValueError
        If a file is cut short, too long, damaged, not of this data set, or the version for Python. Damage shows by the
        checksum of a gzipped archive; elsewhere batches of 10,000 records are compared with the published ones
        (SHA-256), and the values of smaller ones cannot be checked.
    ImportError
        If pooch is needed for a download and missing.

    Examples
    --------
    >>> images, labels = cifar10("data/cifar-10-batches-bin", limit=5000)  # doctest: +SKIP
    >>> images.shape, labels.shape  # doctest: +SKIP
    ((5000, 32, 32, 3), (5000,))
    """
    limit = None if limit is None else positive_int(limit, "limit")
    path = _find(folder, bool(train), download)
    wanted = _FILES[bool(train)]
    batches = _from_folder(path, wanted, limit) if path.is_dir() else _from_archive(path, wanted)
    labels = np.concatenate([batch[:, 0] for batch in batches])[:limit]
    images = np.empty((len(labels), _SIDE, _SIDE, 3), np.uint8)
    done = 0
    for batch in batches:
        planes = batch[: len(images) - done, 1:].reshape(-1, 3, _SIDE, _SIDE)
        images[done : done + len(planes)] = planes.transpose(0, 2, 3, 1)
        done += len(planes)
    return images, labels


def _find(folder: str | os.PathLike[str] | None, train: bool, download: bool) -> Path:
    """The folder of batches, or the archive."""
    looked = places.roots(folder)
    if folder is not None and looked[0].is_file():
        return looked[0]
    below = ("", f"{_FOLDER}/", "cifar10/", f"cifar10/{_FOLDER}/")
    batch = places.first(looked, [place + name for place in below for name in _FILES[train]])
    if batch is not None:
        return batch.parent
    archive = places.first(looked, [_ARCHIVE, f"cifar10/{_ARCHIVE}"])
    if archive is not None:
        return archive
    if not download:
        how = f"fetch it with download=True (dip train: --download), or from {_URL}"
        if places.first(looked, _PICKLES) is not None:
            how += "; the version for Python is there, but it is a pickle, which is never loaded: get the binary one"
        files = f"{_FOLDER}/{_FILES[train][0]} or {_ARCHIVE}"
        raise places.missing("CIFAR-10", files, looked, how)
    return fetch([_URL], places.target(folder) / _ARCHIVE, checksum=f"md5:{_MD5}", most=_MAX_DOWNLOAD)


def _from_folder(folder: Path, wanted: list[str], limit: int | None) -> list[np.ndarray]:
    """The records of each batch, as far as they are needed."""
    found: list[np.ndarray] = []
    for name in wanted:
        path = folder / name
        if not path.exists() or (limit is not None and sum(len(batch) for batch in found) >= limit):
            continue
        with places.opened(path) as file:
            found.append(_unprotected(file.read(_BATCH * _RECORD + 1), name, str(path)))
    return found


def _from_archive(path: Path, wanted: list[str]) -> list[np.ndarray]:
    """Records straight out of the archive: nothing is extracted, so nothing can land anywhere."""
    with places.unpacked(path) as file:
        data = file.read(_MAX_UNPACKED + 1)  # whole, so that gzip's checksum is compared
        packed = isinstance(file, gzip.GzipFile)
    if len(data) > _MAX_UNPACKED:
        raise ValueError(f"{path} holds more than {_MAX_UNPACKED} bytes, which is not CIFAR-10; get an intact copy")
    try:
        batches = _members(data)
    except _RefusalError as refusal:
        raise ValueError(f"{path} {refusal}") from None
    except Exception as error:  # a damaged archive can make tarfile raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} is damaged or no tar archive ({reason}); get an intact copy") from error
    if any(name in batches for name in _PICKLES):
        raise ValueError(f"{path} is the version for Python, a pickle, which is never loaded; get {_URL}")
    there = [name for name in wanted if name in batches]
    if not there:
        raise ValueError(f"{path} has none of {', '.join(wanted)} in it; get {_URL}")
    if packed:
        return [_records(batches[name], f"{name} in {path}") for name in there]
    return [_unprotected(batches[name], name, f"{name} in {path}") for name in there]


class _RefusalError(ValueError):
    """An archive that is understood but not accepted; the message says why."""


def _members(data: bytes) -> dict[str, memoryview]:
    """The files of a tar archive by their last name; links, devices and odd names are refused."""
    found: dict[str, memoryview] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for count, member in enumerate(archive):
            if count >= _MAX_MEMBERS:
                raise _RefusalError(f"has more than {_MAX_MEMBERS} members, which is not CIFAR-10")
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in member.name:
                raise _RefusalError(f"has a member outside its folder ({member.name[:80]!r}); do not trust it")
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise _RefusalError(f"has a member that is no plain file ({member.name[:80]!r}); do not trust it")
            end = member.offset_data + member.size
            if member.size < 0 or end > len(data):
                raise _RefusalError(f"is cut short in {member.name[:80]!r}; get an intact copy")
            if name.name in found:
                raise _RefusalError(f"has two members with the name {name.name!r}; get an intact copy")
            found[name.name] = memoryview(data)[member.offset_data : end]
        rest = data[archive.offset :]
    if rest.strip(b"\0"):
        raise _RefusalError("is damaged: what follows its last member is not empty; get an intact copy")
    return found


def _unprotected(data: bytes | memoryview, file: str, name: str) -> np.ndarray:
    """(N, 3073) from the bytes of a batch that no checksum protects."""
    records = _records(data, name)
    known = {_BATCH * _RECORD: _SHA256[file]}
    places.as_published(data, known, name, "pack another set of that size as .tar.gz, which has a checksum")
    return records


def _records(data: bytes | memoryview, name: str) -> np.ndarray:
    """(N, 3073) from the bytes of a batch."""
    count, rest = divmod(len(data), _RECORD)
    if rest or not 0 < count <= _BATCH:
        size = f"{len(data)} bytes" if len(data) <= _BATCH * _RECORD else f"more than {_BATCH * _RECORD} bytes"
        raise ValueError(f"{name} has {size}, a batch 1 to {_BATCH} records of {_RECORD}; get an intact copy")
    records = np.frombuffer(data, np.uint8).reshape(count, _RECORD)
    wrong = records[:, 0] >= _CLASSES
    if wrong.any():
        place = int(np.argmax(wrong))
        label = records[place, 0]
        raise ValueError(f"{name} is damaged: label {place} is {label}, allowed: 0 to {_CLASSES - 1}")
    return records
