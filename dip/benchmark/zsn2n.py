r"""Zero-shot Noise2Noise: a small network that learns to denoise one picture from that picture alone.

Written from the description in Y. Mansour and R. Heckel, "Zero-Shot Noise2Noise: Efficient Image Denoising without any
Data", CVPR 2023. Two convolutions with stride 2 make a pair of half-size pictures out of the noisy one, whose noise is
independent and whose content is nearly the same:

.. math:: D_1(y) = y * \tfrac12 \begin{pmatrix} 0 & 1 \\ 1 & 0 \end{pmatrix}, \qquad
          D_2(y) = y * \tfrac12 \begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix} .

With :math:`g(u) = u - f_θ(u)`, where :math:`f_θ` finds the noise, the loss is

.. math:: \tfrac12 \left( \|g(D_1 y) - D_2 y\|^2 + \|g(D_2 y) - D_1 y\|^2 \right) +
          \tfrac12 \left( \|g(D_1 y) - D_1 g(y)\|^2 + \|g(D_2 y) - D_2 g(y)\|^2 \right) ,

and the result is :math:`g(y)`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dip.benchmark.methods import planes, register
from dip.benchmark.tasks import Case
from dip.devices import resolve, reused_memory

__all__ = ["pair", "zero_shot_noise2noise"]

_CHANNELS = 48
_POINTS = 100


def pair(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two half-size pictures of (N, C, H, W); an odd last row or column is left out."""
    height, width = (n // 2 * 2 for n in y.shape[2:])
    a, b = y[..., 0:height:2, 0:width:2], y[..., 0:height:2, 1:width:2]
    c, d = y[..., 1:height:2, 0:width:2], y[..., 1:height:2, 1:width:2]
    return (b + c) / 2, (a + d) / 2


def _network(channels: int, generator: torch.Generator) -> nn.Module:
    """Two layers of 3 x 3, and one of 1 x 1 that makes a picture of them."""

    def layer(inputs: int, outputs: int, size: int) -> nn.Module:
        # PyTorch's own start, but from a generator
        made = nn.utils.skip_init(nn.Conv2d, inputs, outputs, size, padding=size // 2)
        bound = (inputs * size * size) ** -0.5
        for weights in made.parameters():
            nn.init.uniform_(weights, -bound, bound, generator=generator)
        return made

    return nn.Sequential(
        layer(channels, _CHANNELS, 3),
        nn.LeakyReLU(0.2),
        layer(_CHANNELS, _CHANNELS, 3),
        nn.LeakyReLU(0.2),
        layer(_CHANNELS, channels, 1),
    )


@register(
    "zsn2n",
    "denoise",
    about="zero-shot Noise2Noise (Mansour and Heckel 2023), our own",
    options={"iters": 2000, "lr": 0.001},
    random=True,
)
def zero_shot_noise2noise(case: Case, *, iters: int, lr: float) -> np.ndarray:
    """Denoise a picture by zero-shot Noise2Noise.

    Parameters
    ----------
    case : Case
        The noisy picture.
    iters : int
        Steps of Adam; the case's own count goes first. The learning rate is halved after three quarters of them.
    lr : float
        Learning rate.

    Returns
    -------
    ndarray
        As the noisy picture.
    """
    device = resolve(case.device)
    y = planes(case.y).to(device)
    if min(y.shape[2:]) < 2:
        raise ValueError(f"a picture of {y.shape[2]} x {y.shape[3]} pixels cannot be halved")
    network = _network(y.shape[1], torch.Generator().manual_seed(case.seed)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    total = case.iters or iters
    clean = torch.from_numpy(case.clean).to(device)
    curve: dict[str, list[float]] = {"iteration": [], "value": []}
    first, second = pair(y)

    def restored() -> Tensor:
        x = (y - network(y))[0].clamp(0, 1)
        return x[0] if case.y.ndim == 2 else x.permute(1, 2, 0)

    with torch.inference_mode(False), torch.enable_grad(), reused_memory(device):
        for step in range(1, total + 1):
            if step == total * 3 // 4:
                for group in optimizer.param_groups:
                    group["lr"] = lr / 2
            optimizer.zero_grad()
            one, other = first - network(first), second - network(second)
            whole_one, whole_other = pair(y - network(y))
            mse = F.mse_loss
            loss = (mse(one, second) + mse(other, first) + mse(one, whole_one) + mse(other, whole_other)) / 2
            loss.backward()
            optimizer.step()
            if step % max(1, total // _POINTS) == 0:
                with torch.no_grad():
                    curve["iteration"].append(step)
                    curve["value"].append(round(float(-10 * torch.log10(F.mse_loss(restored(), clean))), 3))
    case.log.update(
        curves={"psnr": curve},
        device=str(device),
        fits=[{"iterations": total}],
        parameters=sum(p.numel() for p in network.parameters()),
    )
    with torch.no_grad():
        return restored().cpu().numpy()
