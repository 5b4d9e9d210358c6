"""What several test files share. Nothing here changes a global setting (seeds, flags)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from skimage.io import imsave

from dip import devices, guides


def pytest_configure(config: pytest.Config) -> None:
    """Give each of pytest-xdist's processes its share of the cores: threads that wait for each other take long."""
    count = os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if count is not None:
        share = max(1, devices.cores() // int(count))
        torch.set_num_threads(share)
        os.environ.setdefault("OMP_NUM_THREADS", str(share))  # for the processes that a test begins


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by their number: their content may hold the time (gzip), and all workers must collect alike."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Let tests press Ctrl-C although they run in the background, where a shell has it ignored."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pixels be filled in in 8 turns in place of 100, for what does not depend on how well it is done."""
    monkeypatch.setattr(guides, "inpainted", partial(guides.inpainted, times=8))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of research pictures that DIP_DATA names; skips the test where there is none."""
    folder = os.environ.get("DIP_DATA")
    if not folder:
        pytest.skip("DIP_DATA is not set: it names the folder of research pictures")
    if not Path(folder).is_dir():
        pytest.skip(f"DIP_DATA={folder!r} is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def _astronaut() -> np.ndarray:
    return skimage.data.astronaut()


@pytest.fixture
def photo(_astronaut: np.ndarray) -> np.ndarray:
    """A real photograph, (64, 64, 3) uint8: a face cut from scikit-image's astronaut, new for each test."""
    return _astronaut[80:144, 192:256].copy()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of scikit-image under the names of the research pictures."""
    folder = tmp_path_factory.mktemp("data")
    photo = skimage.data.astronaut()[:400]
    large = np.concatenate([photo, photo[:, ::-1]], axis=1)
    mask = np.full(photo.shape[:2], 255, np.uint8)
    mask[190:210, 250:260] = 0
    pictures = {
        "set9/f16.png": photo,
        "dip_paper/sr/zebra_GT.png": large,
        "dip_paper/inpainting/kate.png": photo,
        "dip_paper/inpainting/kate_mask.png": mask,
        "dip_paper/restoration/barbara.png": photo[..., 1],
    }
    for name, pixels in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        imsave(folder / name, pixels, check_contrast=False)
    return folder
