"""MNIST: handwritten digits, from the official idx files.

An idx file is a magic number (0x803 for images, 0x801 for labels), the count, for images the height and width,
all as big-endian 32-bit integers, and then the bytes.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
from pathlib import Path

import numpy as np

from dip.datasets import places
from dip.datasets.fetch import fetch
from dip.errors import positive_int

__all__ = ["mnist"]

_SIDE, _CLASSES = 28, 10
_MOST = {True: 60_000, False: 10_000}  # training, test
_IMAGES, _LABELS = 0x803, 0x801
_PREFIX = {True: "train", False: "t10k"}
_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
# Of the unpacked files, by their size; idx has no checksum.
_SHA256 = {
    47_040_016: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",  # training images
    60_008: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    7_840_016: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",  # test images
    10_008: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_MAX_DOWNLOAD = 16 * 2**20  # bytes; the largest of the files has 9.9 million


def mnist(
    folder: str | os.PathLike[str] | None = None,
    *,
    train: bool = True,
    limit: int | None = None,
    download: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Read MNIST: 60,000 handwritten digits for training, 10,000 for tests.

    Parameters
    ----------
    folder : str or path-like, optional
        Where the files ``train-images-idx3-ubyte`` and so on lie, gzipped or not, or a folder with them in
        ``mnist``. By default the folder that the environment variable DIP_DATA names, then the cache of downloads.
    train : bool, default True
        The training pictures; False: the test pictures.
    limit : int, optional
        The most pictures, the first of the file.
    download : bool, default False
        Fetch files that are not there: 10 MB for training, 2 MB for tests (needs the extra ``data``).

    Returns
    -------
    images : ndarray
        (N, 28, 28), uint8, 0 is the background.
    labels : ndarray
        (N,), uint8, the digit.

    Raises
    ------
    OSError
        If a file is missing (FileNotFoundError) or cannot be fetched.
    ValueError
        If a file is cut short, too long, damaged, or not of this data set. Damage shows by the checksum of gzip;
        unpacked files of the published size are compared with the published ones (SHA-256).
    ImportError
        If pooch is needed for a download and missing.

    Examples
    --------
    >>> images, labels = mnist("data/mnist", train=False)  # doctest: +SKIP
    >>> images.shape, labels[:3]  # doctest: +SKIP
    ((10000, 28, 28), array([7, 2, 1], dtype=uint8))
    """
    limit = None if limit is None else positive_int(limit, "limit")
    images_path = _find(f"{_PREFIX[bool(train)]}-images-idx3-ubyte", folder, download)
    labels_path = _find(f"{_PREFIX[bool(train)]}-labels-idx1-ubyte", folder, download)
    most = _MOST[bool(train)]
    images, count = _read(images_path, _IMAGES, (_SIDE, _SIDE), most, limit)
    labels, label_count = _read(labels_path, _LABELS, (), most, limit)
    if label_count != count:
        raise ValueError(f"{labels_path} has {label_count} labels for the {count} pictures of {images_path}")
    if (labels >= _CLASSES).any():
        place = int(np.argmax(labels >= _CLASSES))
        raise ValueError(f"{labels_path} is damaged: label {place} is {labels[place]}, allowed: 0 to {_CLASSES - 1}")
    return images, labels


def _find(name: str, folder: str | os.PathLike[str] | None, download: bool) -> Path:
    looked = places.roots(folder)
    names = [name, name.replace("-idx", ".idx")]
    names += [f"{one}.gz" for one in names]
    path = places.first(looked, [f"{below}{one}" for below in ("", "mnist/", "MNIST/raw/") for one in names])
    if path is not None:
        return path
    if not download:
        how = f"fetch it with download=True (dip train: --download), or from {_MIRRORS[0]}"
        raise places.missing("MNIST", f"{name} or {name}.gz", looked, how)
    packed = f"{name}.gz"
    target = places.target(folder, "mnist") / packed
    return fetch([mirror + packed for mirror in _MIRRORS], target, checksum=f"md5:{_MD5[packed]}", most=_MAX_DOWNLOAD)


def _read(path: Path, magic: int, shape: tuple[int, ...], most: int, limit: int | None) -> tuple[np.ndarray, int]:
    """The first entries of an idx file, and the count of all; it is read to its end, as far as that may be."""
    numbers = 2 + len(shape)
    with places.unpacked(path) as file:
        head = file.read(4 * numbers)
        if len(head) < 4 * numbers:
            raise ValueError(f"{path} is cut short: {len(head)} bytes; get an intact copy")
        given, count, *sides = struct.unpack(f">{numbers}I", head)
        if given != magic:
            raise ValueError(f"{path} begins with {given:#010x}, an idx file of this kind with {magic:#010x}")
        if tuple(sides) != shape or not 0 < count <= most:
            size, wanted = " x ".join(map(str, (count, *sides))), " x ".join(map(str, (f"1 to {most}", *shape)))
            raise ValueError(f"{path} says it has {size} values, MNIST has {wanted}; get an intact copy")
        each = math.prod(shape)
        data = file.read(count * each)
        if len(data) < count * each or file.read(1):
            kind = "is cut short" if len(data) < count * each else "is longer than its header says"
            raise ValueError(f"{path} {kind} ({count} entries of {each} bytes); get an intact copy")
        if not isinstance(file, gzip.GzipFile):
            places.as_published(head + data, _SHA256, str(path), "gzip another set of that size, which has a checksum")
    kept = count if limit is None else min(limit, count)
    return np.frombuffer(data, np.uint8, kept * each).reshape(kept, *shape).copy(), count
