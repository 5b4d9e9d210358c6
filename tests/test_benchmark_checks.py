"""What `dip.benchmark` refuses, in Python and on the command line, before it works for hours; and what it does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from dip import benchmark, datasets

CAMERA = next(entry for entry in datasets.pictures("photographs") if entry.name == "camera").read()[100:164, 100:164]
DENOISE = benchmark.Protocol("denoise")


@dataclass(frozen=True, eq=False)
class Pixels:
    """A picture of a set of one's own."""

    name: str
    pixels: np.ndarray
    known: np.ndarray | None = None

    def read(self):
        return self.pixels

    def mask(self):
        return self.known


# ---------------------------------------------------------------------- pictures


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64, ">u2", ">f4"])
def test_pictures_of_any_usual_dtype_are_the_same_picture(dtype):
    if np.dtype(dtype).kind == "f":
        given, error = (CAMERA / 255).astype(dtype), 2**-11 if dtype == np.float16 else 1e-7
    else:
        given, error = CAMERA.astype(dtype) * (1 if dtype == np.uint8 else 257), 1e-7
    np.testing.assert_allclose(DENOISE.case(given).clean, CAMERA / 255, atol=error)


def test_a_picture_of_true_and_false_is_black_and_white():
    np.testing.assert_array_equal(DENOISE.case(CAMERA > 99).clean, np.where(CAMERA > 99, 1, 0))


WRONG = [
    (CAMERA.astype(np.int64), TypeError, "has dtype int64, which does not say what is white; allowed: uint8, uint16"),
    (CAMERA.astype(np.int16), TypeError, "has dtype int16"),
    (CAMERA.astype(np.float32), ValueError, r"has values from 5 to 255; .* divide by what is white"),
    (CAMERA / 255 - 0.5, ValueError, "values from -0.4"),
    (np.full((9, 9), np.nan), ValueError, "values from nan"),
    (CAMERA / 255 + 0j, TypeError, "complex128"),
    (CAMERA[..., None], ValueError, r"shape \(64, 64, 1\); allowed"),
    (CAMERA[:0], ValueError, "shape"),
    (CAMERA.tolist(), TypeError, "is a list"),
]


@pytest.mark.parametrize(("pixels", "error", "message"), WRONG, ids=[one[2][:20] for one in WRONG])
def test_other_pictures_are_refused_by_name_before_any_job(pixels, error, message, tmp_path):
    entries = [Pixels("first", CAMERA), Pixels("second", pixels)]
    with pytest.raises(error, match=f"second: .*{message}"):
        benchmark.run(entries, DENOISE, ["tv"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
