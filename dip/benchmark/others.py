"""Deep Image Prior as others wrote it: deepinv's, and the research code of the paper from a checkout."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from dip.benchmark.methods import planes, register
from dip.benchmark.tasks import Case
from dip.devices import resolve

__all__ = ["original_network"]

_CODE, _POINTS = 32, 100
_DECODER = 256  # channels of deepinv's decoder


@register(
    "deepinv-dip",
    "denoise",
    about="deepinv's DeepImagePrior with its ConvDecoder, its last output",
    options={"iters": 2500, "lr": 0.01},
    random=True,
    needs=("deepinv",),
)
def deepinv_prior(case: Case, *, iters: int, lr: float) -> np.ndarray:
    """Run deepinv's implementation with its own network, count of iterations and learning rate.

    Returns
    -------
    ndarray
        What the network makes after the last iteration: deepinv averages nothing, and its network ends without a
        sigmoid, so that values may lie outside of [0, 1].
    """
    from deepinv.models import ConvDecoder, DeepImagePrior
    from deepinv.physics import Denoising

    device, y = resolve(case.device), planes(case.y)
    total = case.iters or iters
    with _seeded(case.seed, device):
        network = ConvDecoder(img_size=tuple(y.shape[1:]), in_size=(4, 4), channels=_DECODER)
        prior = DeepImagePrior(network, (_DECODER, 4, 4), iterations=total, learning_rate=lr).to(device)
        restored = prior(y.to(device), Denoising())
    case.log.update(device=str(device), fits=[{"iterations": total}], parameters=_count(network))
    return _picture(restored, case)


@register(
    "reference",
    "denoise",
    about="the paper's own code (DmitryUlyanov/deep-image-prior): its network and loop, its average of outputs",
    options={"iters": 1800, "lr": 0.01, "jitter": 1 / 30},
    random=True,
)
def reference(case: Case, *, checkout: str = "", iters: int, lr: float, jitter: float) -> np.ndarray:
    """Run the original network in the original loop, and return the average of its outputs (decay 0.99).

    The loop of the authors' notebook, but for three things: 1800 iterations as in the paper and not 3000; the average,
    which the paper reports and the notebook only draws; and no going back to an earlier state when the loss jumps,
    which the paper does not have.

    Parameters
    ----------
    case : Case
        The noisy picture, in colour.
    checkout : str
        The folder of a clone of DmitryUlyanov/deep-image-prior.
    iters, lr, jitter
        Those of the paper.

    Raises
    ------
    FileNotFoundError
        It is no such folder.
    """
    device, y = resolve(case.device), planes(case.y)
    with _seeded(case.seed, device):
        network = original_network(checkout, y.shape[1]).to(device)
        code = torch.rand(1, _CODE, *y.shape[2:]).mul_(0.1).to(device)
        y, clean = y.to(device), planes(case.clean).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=lr)
        average: Tensor | None = None
        curves: dict[str, dict[str, list[float]]] = {
            name: {"iteration": [], "value": []} for name in ("psnr", "psnr_output")
        }
        total = case.iters or iters
        for step in range(1, total + 1):
            optimizer.zero_grad()
            output = network(code + torch.randn_like(code) * jitter)[..., : y.shape[2], : y.shape[3]]
            torch.nn.functional.mse_loss(output, y).backward()
            optimizer.step()
            output = output.detach()
            average = output if average is None else 0.99 * average + 0.01 * output
            if step % max(1, total // _POINTS) == 0:
                for curve, x in zip(curves.values(), (average, output), strict=True):
                    curve["iteration"].append(step)
                    curve["value"].append(round(float(-10 * torch.log10(torch.mean((x - clean) ** 2))), 3))
    case.log.update(device=str(device), fits=[{"iterations": total}], parameters=_count(network), curves=curves)
    assert average is not None
    return _picture(average, case)


def original_network(checkout: str | Path, channels: int) -> torch.nn.Module:
    """Return the paper's denoising network as its authors wrote it.

    Parameters
    ----------
    checkout : str or Path
        The folder of a clone of DmitryUlyanov/deep-image-prior.
    channels : int
        Of the picture.

    Raises
    ------
    FileNotFoundError
        It is no such folder.
    """
    if not checkout or not (Path(checkout) / "models" / "skip.py").is_file():
        raise FileNotFoundError(
            f"{str(checkout) or 'nothing'} is no clone of DmitryUlyanov/deep-image-prior; give --reference FOLDER"
        )
    skip = _models(Path(checkout).resolve() / "models").skip
    wide = [128] * 5
    network: torch.nn.Module = skip(_CODE, channels, wide, wide, [4] * 5, upsample_mode="bilinear", pad="reflection")
    return network


def _models(folder: Path) -> ModuleType:
    """Import the package `models` of a checkout under another name: everybody's is called that."""
    name = "dip_reference_models"
    if name in sys.modules and list(sys.modules[name].__path__) != [str(folder)]:  # another checkout's
        for loaded in [one for one in sys.modules if one.partition(".")[0] == name]:
            del sys.modules[loaded]
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[name] = package
        try:
            spec.loader.exec_module(package)
        except BaseException:
            del sys.modules[name]
            raise
    return importlib.import_module(f"{name}.skip")


def _count(network: torch.nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's global generators, which this code draws from, and put them back."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # noqa: TID251  (undone at the end)
        yield


def _picture(x: Tensor, case: Case) -> np.ndarray:
    made = x[0].detach().cpu().numpy()
    return made[0] if case.y.ndim == 2 else np.moveaxis(made, 0, -1)
