"""The layers of the networks: convolution and upsampling, with backward passes that suit a CPU.

They compute what PyTorch's own do. On a CPU two of PyTorch's backward passes are slow at the sizes of a picture: the
gradient of a convolution's weights, which gets faster when the picture is taken in strips that fit the cache; and that
of bilinear upsampling, which leaves the channels-last order and runs on one thread where its gradient comes from a
concatenation. Elsewhere PyTorch's own are used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Conv2d", "conv2d", "upsample"]

_STRIP = 8192  # pixels of the output in a strip


class Conv2d(nn.Conv2d):
    """A convolution that pads by reflection or with zeros and computes in the precision of its input.

    Weights stay in float32 (what the optimiser wants) and are cast for the product only. They are left
    unset by the constructor: the network that owns the layer draws them all from one generator.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int, padding: str, bias: bool
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride=stride, bias=bias)
        self.pad = kernel // 2
        self.reflect = padding == "reflect" and self.pad > 0

    def reset_parameters(self) -> None:
        """Draw nothing yet (see the class)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.reflect:
            x = F.pad(x, (self.pad,) * 4, mode="reflect")
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return conv2d(x, self.weight.to(x.dtype), bias, self.stride[0], 0 if self.reflect else self.pad)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0) -> Tensor:
    """Return `torch.nn.functional.conv2d`.

    Parameters
    ----------
    x : Tensor
        (N, C, H, W).
    weight : Tensor
        (K, C, k, k), dtype of x.
    bias : Tensor or None
        (K,), dtype of x.
    stride, padding : int
        In both directions; padding with zeros.
    """
    if x.device.type == "cpu" and weight.shape[-1] > 1 and torch.is_grad_enabled() and weight.requires_grad:
        x = F.pad(x, (padding,) * 4) if padding else x
        return _Conv2d.apply(x, weight, bias, stride)
    return F.conv2d(x, weight, bias, stride, padding)


def upsample(x: Tensor, mode: str) -> Tensor:
    """Return (N, C, 2H, 2W), by "nearest" or "bilinear" interpolation (half-pixel centres)."""
    if mode == "bilinear" and x.device.type == "cpu" and torch.is_grad_enabled() and x.requires_grad:
        return _Bilinear.apply(x)
    return F.interpolate(x, scale_factor=2, mode=mode)


class _Conv2d(torch.autograd.Function):
    """A convolution without padding whose weights' gradient is summed over strips of rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, bias, stride)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (g,) = gradients
        x, weight = ctx.saved_tensors
        stride, kernel, channels = ctx.stride, weight.shape[-1], weight.shape[0]

        def backward(g: Tensor, x: Tensor, wanted: list[bool]) -> Any:
            geometry = ([stride] * 2, [0, 0], [1, 1], False, [0, 0], 1)
            return torch.ops.aten.convolution_backward(g, x, weight, [channels], *geometry, wanted)

        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        to_x = backward(g, x, [True, False, False])[0] if needs_x else None
        if not (needs_weight or needs_bias):
            return to_x, None, None, None
        # added up in float32 at least: a sum in bfloat16 would soon be too large for its parts to matter
        to_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        to_bias = to_weight.new_zeros(channels)
        rows = max(1, _STRIP // g.shape[3])
        for top in range(0, g.shape[2], rows):
            strip = g[:, :, top : top + rows]
            seen = x[:, :, top * stride : (top + strip.shape[2] - 1) * stride + kernel]
            _, part, part_of_bias = backward(strip, seen, [False, True, needs_bias])
            to_weight += part
            if needs_bias:
                to_bias += part_of_bias
        return to_x, to_weight.to(weight.dtype), to_bias.to(weight.dtype) if needs_bias else None, None


class _Bilinear(torch.autograd.Function):
    """Twofold bilinear upsampling, whose backward pass is a convolution of each channel with (1, 3, 3, 1) / 4."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (g,) = gradients
        number, channels, height, width = g.shape
        # What the interpolation takes from beyond the border it takes from the border pixel, so its gradient there is
        # that of the border pixel once more.
        padded = torch.empty(
            (number, channels, height + 2, width + 2), dtype=g.dtype, memory_format=torch.channels_last
        )
        padded[:, :, 1:-1, 1:-1] = g
        padded[:, :, 0, 1:-1], padded[:, :, -1, 1:-1] = g[:, :, 0], g[:, :, -1]
        padded[..., 0], padded[..., -1] = padded[..., 1], padded[..., -2]
        taps = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=g.dtype)
        kernel = torch.outer(taps, taps).expand(channels, 1, 4, 4)
        return F.conv2d(padded, kernel, stride=2, groups=channels)
