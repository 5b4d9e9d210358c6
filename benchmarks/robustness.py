"""200 damaged files of weights and of each form of data: is each refused in one line, and nothing written?

    python benchmarks/robustness.py --data DATA

Bytes of a file are flipped, cut off, put in and turned round at random. A reader must refuse each with Python's own
errors, in one line; whatever else it raises, and whatever it accepts, is counted. Gzip has a checksum; idx files and
CIFAR-10's batches have none and are compared with the published files. A batch of another size than the published
cannot be: the last case.
"""

from __future__ import annotations

import argparse
import gzip
import os
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import records
import torch

import dip
from dip import trained
from dip.trained import store


def main(arguments: list[str] | None = None) -> None:
    """Damage files, read them, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--data", type=Path, default=os.environ.get("DIP_DATA"), help="folder with the data sets")
    parser.add_argument("--out", type=Path, default=records.RESULTS / "robustness.json")
    options = records.parse(parser, arguments)
    cases: dict[str, tuple[Callable[[Path, Path], Path], Callable[[Path], tuple[np.ndarray, ...]]]] = {
        "weights": (weights, values),
        "MNIST, gzipped": (partial(mnist, packed=True), digits),
        "MNIST, unpacked": (partial(mnist, packed=False), digits),
        "CIFAR-10, archive": (cifar_archive, photographs),
        "CIFAR-10, extracted": (cifar_batch, photographs),
        "CIFAR-10's format, 100 pictures, extracted": (partial(cifar_batch, pictures=100), photographs),
    }
    found = {}
    for name, (make, read) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = damage(make(options.data, Path(folder)), read, options.count)
        print(f"{name}: {found[name]}", flush=True)
    records.Report(options.out, count=options.count, seed=0).set(**found)


def damage(path: Path, read: Callable[[Path], tuple[np.ndarray, ...]], count: int) -> dict[str, Any]:
    """Read damaged copies of a file in its place, and count what comes of it."""
    data, others = path.read_bytes(), sorted(path.parent.iterdir())
    whole, rng = read(path), np.random.default_rng(0)
    outcomes: Counter[str] = Counter()
    for number in range(count):
        path.write_bytes(mutated(data, number, rng))
        try:
            same = all(map(np.array_equal, read(path), whole))
            outcomes["read, and the content is whole" if same else "read, with another content"] += 1
        except (ValueError, OSError) as error:
            one_line = "\n" not in str(error) and path.name in str(error)
            outcomes["refused in one line" if one_line else "refused, but not in one line that names the file"] += 1
        except Exception as error:
            outcomes[f"crashed: {type(error).__name__}"] += 1
    path.write_bytes(data)
    return {**outcomes, "files_written": len(set(path.parent.iterdir()) - set(others))}


def mutated(whole: bytes, number: int, rng: np.random.Generator) -> bytes:
    """Return damaged bytes, which differ from the whole."""
    data = bytearray(whole)
    place = int(rng.integers(len(data)))
    if number % 4 == 0:
        del data[place:]
    elif number % 4 == 1:
        data[place:place] = rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8).tobytes()
    elif number % 4 == 2:
        data[place if rng.random() < 0.5 else place % 64] ^= 1 << int(rng.integers(8))
    else:
        data[place : place + 40] = bytes(255 - byte for byte in data[place : place + 40])
    return bytes(data)


def weights(data: Path, folder: Path) -> Path:
    """Write small weights."""
    model = trained.create("cnn5-residual-bn", 1, width=3, generator=torch.Generator().manual_seed(0))
    (folder / "weights").mkdir()
    return store.write(folder / "weights" / "one.safetensors", model, "cnn5-residual-bn", {"width": 3}, {})


def mnist(data: Path, folder: Path, *, packed: bool) -> Path:
    """Copy MNIST's test pictures."""
    name = "t10k-images-idx3-ubyte"
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes((data / "mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes())
    content = (data / "mnist" / f"{name}.gz").read_bytes()
    path = folder / (f"{name}.gz" if packed else name)
    path.write_bytes(content if packed else gzip.decompress(content))
    return path


def cifar_batch(data: Path, folder: Path, pictures: int = 10_000) -> Path:
    """Copy a batch of CIFAR-10."""
    path = folder / "data_batch_1.bin"
    path.write_bytes((data / "cifar-10-batches-bin" / path.name).read_bytes()[: 3073 * pictures])
    return path


def cifar_archive(data: Path, folder: Path) -> Path:
    """Pack 500 pictures of a batch of CIFAR-10 as the official archive is packed."""
    content = cifar_batch(data, folder, 500)
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(content, f"cifar-10-batches-bin/{content.name}")
    content.unlink()
    return path


def photographs(path: Path) -> tuple[np.ndarray, ...]:
    """Read CIFAR-10."""
    return dip.datasets.cifar10(path if path.suffix == ".gz" else path.parent)


def digits(path: Path) -> tuple[np.ndarray, ...]:
    """Read MNIST."""
    return dip.datasets.mnist(path.parent, train=False)


def values(path: Path) -> tuple[np.ndarray, ...]:
    """Return the weights of a file."""
    return tuple(value.numpy() for value in trained.load(path, device="cpu").model.state_dict().values())


if __name__ == "__main__":
    main()
