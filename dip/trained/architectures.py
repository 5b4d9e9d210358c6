"""The denoisers that are trained on data, by name, with the layer lists of the reports that they come from.

Where a report is silent the reading taken here is said in the class. Every model maps noisy pictures (N, C, H, W) in
[0, 1] to pictures of the same shape; what sizes it takes, its total stride and how far one pixel of its output sees are
read off its layers (`Reach`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dip.errors import positive_int, shown, unknown, yes_or_no
from dip.trained.reach import Reach, reach_of

__all__ = ["Autoencoder", "Hourglass", "Model", "Plain", "create", "default_channels", "names"]

_WIDEST, _DEEPEST = 1024, 64  # a file may ask for any model: none so large that making it takes the machine down


class _Conv(nn.Conv2d):
    """A convolution whose weights its model draws."""

    def reset_parameters(self) -> None:
        """Draw nothing: PyTorch would from its global generator."""


class _Transposed(nn.ConvTranspose2d):
    """A transposed convolution whose weights its model draws."""

    def reset_parameters(self) -> None:
        """Draw nothing: PyTorch would from its global generator."""


class _Sigmoid(nn.Sigmoid):
    """A sigmoid in float32: bfloat16 rounds all above 0.998 to 1, of which cross-entropy takes the logarithm of 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x.float())


class Model(nn.Module):
    """What all models have in common; a subclass sets `path`.

    Attributes
    ----------
    channels : int
        Of its pictures.
    bounded : bool
        Whether the output lies in [0, 1] by its last layer, as binary cross-entropy needs.
    path : list of Module
        The layers on the longest way from input to output, in order; what branches off joins it again and sees less.
    least, remainder : int
        The sizes that the model returns as they are: `least` at least, and `remainder` beyond a multiple of its total
        stride.
    """

    least = 1
    remainder = 0
    bounded = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = _count(channels, "channels", _WIDEST)
        self.path: list[nn.Module] = []

    @property
    def reach(self) -> Reach:
        """How far an output pixel sees, and the total stride."""
        return reach_of(self.path)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the next size up that the model returns as it is.

        Parameters
        ----------
        height, width : int
            In pixels, at least 1.
        """
        return self._padded(height), self._padded(width)

    def _padded(self, size: int) -> int:
        stride = self.reach.stride
        size = max(size, self.least)
        return size + (self.remainder - size) % stride

    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """Draw all weights and biases as PyTorch would, from U(-b, b) with b = 1 / sqrt(inputs of a product)."""
        for module in self.modules():
            if isinstance(module, _Conv | _Transposed):
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -bound, bound, generator=generator)


class Plain(Model):
    """Convolutions 3 x 3 in a row, at full resolution: the five-layer models and DnCNN.

    in -> [convolution, normalisation, ReLU] x (layers - 1) -> convolution to the channels of the input. The padding is
    with zeros. For `cnn5` and its relatives the report gives this list; our readings: the convolutions have biases,
    also before a normalisation, and the last one has nothing behind it.

    DnCNN (Zhang et al., "Beyond a Gaussian Denoiser", IEEE TIP 26(7), 2017): 17 layers, the first without
    normalisation, those with one without bias; it predicts the noise, which is taken from the input (here it is added:
    the sign is learned).

    Parameters
    ----------
    channels : int
        Of the pictures.
    width : int
        Channels inside.
    layers : int
        Convolutions, at least 2.
    residual : bool
        Whether the (noisy) input is added to what the last convolution gives.
    norm : {"none", "all", "inner"}
        Batch normalisation before no ReLU, before each, or before each but the first ("inner", as DnCNN, without biases
        there).
    generator : torch.Generator, optional
        Where the first weights are drawn from.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        width: int = 64,
        layers: int = 5,
        residual: bool = False,
        norm: str = "none",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(channels)
        width, layers = _count(width, "width", _WIDEST), _count(layers, "layers", _DEEPEST, least=2)
        if norm not in ("none", "all", "inner"):
            raise unknown("norm", norm, ("none", "all", "inner"))
        self.residual = yes_or_no(residual, "residual")
        parts: list[nn.Module] = []
        inputs = self.channels
        for i in range(layers - 1):
            normed = norm == "all" or (norm == "inner" and i > 0)
            parts.append(_Conv(inputs, width, 3, padding=1, bias=not (normed and norm == "inner")))
            if normed:
                parts.append(nn.BatchNorm2d(width))
            parts.append(nn.ReLU(inplace=True))
            inputs = width
        parts.append(_Conv(inputs, self.channels, 3, padding=1))
        self.body = nn.Sequential(*parts)
        self.path = parts
        self.reset_parameters(generator)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return x + found if self.residual else found


class Hourglass(Model):
    """The hourglass of the noise-to-noise report, and its variants.

    Convolution 3 x 3, stride 1, normalisation, ReLU (skip out); convolution 5 x 5, stride 2, normalisation, ReLU; (skip
    in and out around a normalisation); transposed convolution 5 x 5, stride 2, normalisation, ReLU, skip in; transposed
    convolution 3 x 3, stride 1; sigmoid. The report gives neither widths nor sizes for its skips. Our reading: 48
    channels; the first skip is added at full resolution before the last transposed convolution; the second is a
    residual around the inner normalisation; ``output_padding=1``. That is 118,323 parameters in colour.

    Parameters
    ----------
    channels : int
        Of the pictures.
    width : int
        Channels inside.
    convolutions : {4, 6}
        Transposed ones included. With 6 (our reading) there is a second pair of stride 2 inside the first, and a skip
        at half resolution beside the one at full resolution.
    kernel : {3, 5}
        Of the convolutions with a stride.
    end : {"sigmoid", "relu"}
        The last layer.
    linear : bool
        A linear layer in the bottleneck, behind the inner normalisation. Our reading: across the channels, the same at
        each pixel; one over all pixels would tie the model to one size (and have 151 million weights at 32 x 32).
    generator : torch.Generator, optional
        Where the first weights are drawn from.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        width: int = 48,
        convolutions: int = 4,
        kernel: int = 5,
        end: str = "sigmoid",
        linear: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(channels)
        width = _count(width, "width", _WIDEST)
        for name, value, allowed in (("convolutions", convolutions, (4, 6)), ("kernel", kernel, (3, 5))):
            if isinstance(value, bool) or value not in allowed:
                raise ValueError(f"{name} must be {allowed[0]} or {allowed[1]}, not {shown(value)}")
        if end not in ("sigmoid", "relu"):
            raise unknown("end", end, ("sigmoid", "relu"))
        self.bounded = end == "sigmoid"
        scales = (convolutions - 2) // 2

        def normed(conv: nn.Module) -> nn.Sequential:
            return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))

        pad = kernel // 2
        self.first = normed(_Conv(self.channels, width, 3, padding=1))
        self.down = nn.ModuleList(normed(_Conv(width, width, kernel, 2, pad)) for _ in range(scales))
        self.inner = nn.BatchNorm2d(width)
        self.linear = _Conv(width, width, 1) if yes_or_no(linear, "linear") else nn.Identity()
        self.up = nn.ModuleList(
            normed(_Transposed(width, width, kernel, 2, pad, output_padding=1)) for _ in range(scales)
        )
        self.last = _Transposed(width, self.channels, 3, padding=1)
        self.end = _Sigmoid() if self.bounded else nn.ReLU()
        blocks = [self.first, *self.down, self.linear, *self.up, self.last]
        self.path = [layer for block in blocks for layer in (block if isinstance(block, nn.Sequential) else [block])]
        self.reset_parameters(generator)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skips = []
        for stage in self.down:
            skips.append(x)
            x = stage(x)
        x = self.linear(x + self.inner(x))
        for stage in self.up:
            x = stage(x) + skips.pop()
        found: Tensor = self.end(self.last(x))
        return found


class Autoencoder(Model):
    """The convolutional autoencoder of the MNIST report.

    Encoder: convolution 16, pool, 8, pool, 8, pool ("same" padding, 28 -> 14 -> 7 -> 4). Decoder: convolution 8, up, 8,
    up, 16 (no padding), up, 1, sigmoid (4 -> 8 -> 16 -> 14 -> 28). Kernels 3 x 3, ReLU behind each convolution but the
    last, maximum pooling by 2, upsampling by repetition: 4,385 parameters in gray. The first weights are Glorot's and
    the biases 0 (our reading): so narrow a net learns faster from there than from PyTorch's.

    It is convolutional, and so takes 28, 36, 44, ... pixels a side; `dip.trained.Denoiser` pads other sizes and crops.

    Parameters
    ----------
    channels : int
        Of the pictures.
    generator : torch.Generator, optional
        Where the first weights are drawn from.
    """

    least = 28
    remainder = 4
    bounded = True

    def __init__(self, channels: int = 1, *, generator: torch.Generator | None = None) -> None:
        super().__init__(channels)

        def conv(inputs: int, outputs: int, padding: int = 1) -> list[nn.Module]:
            return [_Conv(inputs, outputs, 3, padding=padding), nn.ReLU(inplace=True)]

        def pool() -> nn.Module:
            return nn.MaxPool2d(2, ceil_mode=True)

        def up() -> nn.Module:
            return nn.Upsample(scale_factor=2)

        encoder = [*conv(self.channels, 16), pool(), *conv(16, 8), pool(), *conv(8, 8), pool()]
        decoder = [*conv(8, 8), up(), *conv(8, 8), up(), *conv(8, 16, padding=0), up()]
        decoder += [_Conv(16, self.channels, 3, padding=1), _Sigmoid()]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
        self.path = [*encoder, *decoder]
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """Draw all weights from U(-b, b) with b = sqrt(6 / (inputs + outputs of a product)); biases are 0."""
        for module in self.modules():
            if isinstance(module, _Conv):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes of pictures.

        Parameters
        ----------
        x : Tensor
            (N, C, H, W) in [0, 1], of a size that the model takes (28 x 28).

        Returns
        -------
        Tensor
            (N, 8, h, w), 0 or above; 8 x 4 x 4 for 28 x 28.

        Raises
        ------
        ValueError
            The size is another.
        """
        size = (int(x.shape[-2]), int(x.shape[-1]))
        if self.padded_size(*size) != size:
            raise ValueError(f"pictures of {size[0]} x {size[1]} pixels; the autoencoder takes 28, 36, 44, ... a side")
        found: Tensor = self.encoder(x)
        return found

    def decode(self, code: Tensor) -> Tensor:
        """Return the pictures (N, C, 8 h - 4, 8 w - 4) of codes (N, 8, h, w)."""
        found: Tensor = self.decoder(code)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


# ---------------------------------------------------------------------- by name


@dataclass(frozen=True)
class _Entry:
    """A model by name: its class, the options that the name stands for, and those that may still be chosen."""

    build: Callable[..., Model]
    fixed: dict[str, Any] = field(default_factory=dict)
    free: tuple[str, ...] = ("width",)
    channels: int = 3


_MODELS = {
    "cnn5": _Entry(Plain),
    "cnn5-residual": _Entry(Plain, {"residual": True}),
    "cnn5-residual-bn": _Entry(Plain, {"residual": True, "norm": "all"}),
    "hourglass": _Entry(Hourglass),
    "hourglass-a": _Entry(Hourglass, {"kernel": 3, "end": "relu"}),
    "hourglass-b": _Entry(Hourglass, {"kernel": 3}),
    "hourglass-c": _Entry(Hourglass, {"kernel": 5}),
    "hourglass-d": _Entry(Hourglass, {"convolutions": 6}),
    "hourglass-e": _Entry(Hourglass, {"linear": True}),
    "autoencoder": _Entry(Autoencoder, free=(), channels=1),
    "dncnn": _Entry(Plain, {"layers": 17, "residual": True, "norm": "inner"}),
    "dncnn-small": _Entry(Plain, {"layers": 8, "width": 48, "residual": True, "norm": "inner"}, free=()),
}


def names() -> list[str]:
    """Return the names of the models that can be trained."""
    return list(_MODELS)


def fixed(option: str) -> list[str]:
    """Return the names of the models that have no choice of an option, such as "width"."""
    return [name for name, entry in _MODELS.items() if option not in entry.free]


def default_channels(name: str) -> int:
    """Return the channels that a model has unless it is told otherwise: 1 (gray) or 3 (colour).

    Raises
    ------
    ValueError
        There is no such model.
    """
    return _entry(name).channels


def create(
    name: str, channels: int | None = None, *, generator: torch.Generator | None = None, **options: Any
) -> Model:
    """Create a model by name, with weights that have seen nothing.

    Parameters
    ----------
    name : str
        One of `names()`: the five-layer models "cnn5", "cnn5-residual" and "cnn5-residual-bn"; "hourglass" and its
        variants "hourglass-a" to "hourglass-e"; "autoencoder"; "dncnn" and "dncnn-small".
    channels : int, optional
        Of its pictures; by default 3, and 1 for the autoencoder.
    generator : torch.Generator, optional
        Where the first weights are drawn from, on the CPU.
    **options
        ``width=`` (channels inside), where the model has a choice.

    Returns
    -------
    Model

    Raises
    ------
    ValueError, TypeError
        The name or an option is unknown, or a number is out of bounds.

    Examples
    --------
    >>> model = create("cnn5")
    >>> sum(p.numel() for p in model.parameters()), model.reach.field
    (114307, 11)
    """
    entry = _entry(name)
    for option in options:
        if option not in entry.free and any(option in other.free for other in _MODELS.values()):
            raise ValueError(f"{option} is not for model {name!r}, whose {option} is fixed; leave it out")
        if option not in entry.free:
            raise unknown(f"option of model {name!r}:", option, ("channels", *entry.free))
    chosen = entry.channels if channels is None else channels
    return entry.build(chosen, **entry.fixed, **options, generator=generator).float()  # whatever the default dtype


def _entry(name: str) -> _Entry:
    if not isinstance(name, str) or name not in _MODELS:
        raise unknown("model", name, _MODELS)
    return _MODELS[name]


def _count(value: Any, name: str, most: int, *, least: int = 1) -> int:
    number = positive_int(value, name)
    if not least <= number <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {number}")
    return number
