"""200 damaged files of weights and 200 of data: is each refused in one line, and nothing written?

    python benchmarks/robustness.py

Files are made here, then bytes are flipped, cut off, put in and turned round at random. A reader must refuse each with
Python's own errors, in one line; whatever else it raises, and whatever it accepts although it differs, is counted.
CIFAR-10's records have no checksum: a file of the right length is pictures, whatever its bytes, and is counted apart.
"""

from __future__ import annotations

import argparse
import gzip
import struct
import tempfile
from collections import Counter
from collections.abc import Callable
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
    parser.add_argument("--out", type=Path, default=records.RESULTS / "robustness.json")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        found = {
            "weights": damage(weights(Path(name)), trained.load, options.count, rng),
            "mnist": damage(mnist(Path(name)), lambda path: dip.datasets.mnist(path.parent), options.count, rng),
            "cifar10": damage(cifar(Path(name)), lambda path: dip.datasets.cifar10(path.parent), options.count, rng),
        }
    records.Report(options.out, count=options.count, seed=0).set(**found)
    print(found, flush=True)


def damage(path: Path, read: Callable[[Path], Any], count: int, rng: np.random.Generator) -> dict[str, Any]:
    """Read damaged copies of a file in its place, and count what comes of it."""
    whole, others = path.read_bytes(), sorted(path.parent.iterdir())
    read(path)  # as it is, it is read
    outcomes: Counter[str] = Counter()
    for number in range(count):
        path.write_bytes(mutated(whole, number, rng))
        try:
            read(path)
            outcomes["read, of the same length" if len(path.read_bytes()) == len(whole) else "read"] += 1
        except (ValueError, OSError) as error:
            one_line = "\n" not in str(error) and path.name in str(error)
            outcomes["refused in one line" if one_line else "refused, but not in one line that names the file"] += 1
        except Exception as error:
            outcomes[f"crashed: {type(error).__name__}"] += 1
    path.write_bytes(whole)
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


def weights(folder: Path) -> Path:
    """Write small weights."""
    model = trained.create("cnn5-residual-bn", 1, width=3, generator=torch.Generator().manual_seed(0))
    (folder / "weights").mkdir()
    return store.write(folder / "weights" / "one.safetensors", model, "cnn5-residual-bn", {"width": 3}, {})


def mnist(folder: Path) -> Path:
    """Write a small MNIST; its pictures are the file that is damaged."""
    place = folder / "mnist"
    place.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = np.arange(20, dtype=np.uint8) % 10
    path = place / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">iiii", 2051, 20, 28, 28) + pixels.tobytes(), mtime=0))
    (place / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(struct.pack(">ii", 2049, 20) + labels.tobytes()))
    return path


def cifar(folder: Path) -> Path:
    """Write a small CIFAR-10; its first file is damaged."""
    place = folder / "cifar-10-batches-bin"
    place.mkdir()
    for number in range(1, 6):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 3073), dtype=np.uint8)
        pixels[:, 0] %= 10
        (place / f"data_batch_{number}.bin").write_bytes(pixels.tobytes())
    (place / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n")
    return place / "data_batch_1.bin"


if __name__ == "__main__":
    main()
