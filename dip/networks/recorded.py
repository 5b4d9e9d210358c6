"""What of an iteration is computed beside the rest in a recording: branches, and the gradients of weights.

A graph knows what waits for what, and a GPU has room for more than one small kernel. So the branch that joins the
decoder is recorded on a stream of its own, and so are the gradients of weights, for which nothing waits but the
optimiser. What is not recorded is done in its turn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dip import devices
from dip.networks import cuda

__all__ = [
    "Gradients",
    "Line",
    "Prepared",
    "beside",
    "cast",
    "deferrable",
    "forget",
    "matrix",
    "on_branch",
    "part",
    "parts",
    "read_later",
    "recorded",
    "unseen",
    "wait_for_branches",
]

Prepared = Mapping[Any, Any]
"""What of the weights was prepared for all layers at once, which takes fewer calls: those of convolutions in the dtype
of the pictures, where they are not so already (`cast`), and those of normalisations in parts (`parts`)."""

Line = tuple[Tensor, Tensor]  # scale and offset

# Of a convolution for whose weights' gradient a product of matrices is faster: inputs at most, outputs at least, pixels
# of its result at least; and the dtypes.
_INPUTS, _OUTPUTS, _PIXELS, _DTYPES = 32, 64, 2**14, (torch.bfloat16,)


def recorded(x: Tensor) -> bool:
    """Tell whether what is done with x in this thread is only recorded now."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def forks(x: Tensor) -> bool:
    """Tell whether what is done with x is recorded, and may be on other streams than that of the recording.

    Only where that is the package's stream for single fits. Recordings of several fits at a time would have the other
    streams in common, and with them the scratch memory that cuBLAS keeps for a stream.
    """
    if not recorded(x):
        return False
    current = torch.cuda.current_stream(x.device)
    return current in (devices.stream(x.device, 0), devices.stream(x.device, devices.BRANCH))


def beside(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return what some work makes of x. In a recording it is done beside what follows, until `wait_for_branches`.

    So is its backward pass: autograd takes the stream of the forward pass, and waits where one needs the other.
    """
    if not forks(x):
        return work(x)
    main, side = torch.cuda.current_stream(x.device), devices.stream(x.device, devices.BRANCH)
    side.wait_stream(main)
    with torch.cuda.stream(side):
        y = work(x)
    x.record_stream(side)
    y.record_stream(main)
    return y


def read_later(x: Tensor) -> None:
    """Keep the memory of x, which was made on the branch, until what is done beside the backward pass has read it."""
    if forks(x):
        x.record_stream(devices.stream(x.device, devices.BESIDE))


@contextlib.contextmanager
def on_branch(x: Tensor) -> Iterator[None]:
    """In a recording, do what is done with x in here beside what follows, where `beside` does its work."""
    if not forks(x) or _on_branch(x.device):
        yield
        return
    side = devices.stream(x.device, devices.BRANCH)
    side.wait_stream(torch.cuda.current_stream(x.device))
    x.record_stream(side)
    with torch.cuda.stream(side):
        yield


def wait_for_branches(x: Tensor) -> None:
    """Let what follows wait for what was done beside it; x tells where."""
    if forks(x):
        torch.cuda.current_stream(x.device).wait_stream(devices.stream(x.device, devices.BRANCH))


def cast(layers: Iterable[Any], dtype: torch.dtype) -> dict[Any, Tensor]:
    """Return the weights of layers in another dtype, all at once, which takes fewer calls."""
    others = [layer for layer in layers if layer.weight.dtype != dtype]
    trained = [layer for layer in others if layer.weight.requires_grad]
    found = {layer: layer.weight.to(dtype) for layer in others if not layer.weight.requires_grad}
    if trained:
        found.update(zip(trained, _Cast.apply(dtype, *(layer.weight for layer in trained)), strict=True))
    return found


def parts(norms: Mapping[Any, int]) -> dict[Any, tuple[Line, Line]]:
    """Return scale and offset of so many first channels of normalisations, and those of the others."""
    if not norms:
        return {}
    found = iter(_Parts.apply(tuple(norms.values()), *(t for norm in norms for t in (norm.weight, norm.bias))))
    made = {}
    for norm, (first, rest, first_offset, rest_offset) in zip(norms, zip(*[found] * 4, strict=True), strict=True):
        made[norm] = (first, first_offset), (rest, rest_offset)
    return made


def part(norm: Any, few: int, prepared: Prepared) -> tuple[Line, Line]:
    """Return what `parts` has for a normalisation, if it was asked."""
    if norm in prepared:
        found: tuple[Line, Line] = prepared[norm]
        return found
    scale, offset = (t.split([few, len(t) - few]) for t in (norm.weight, norm.bias))
    return (scale[0], offset[0]), (scale[1], offset[1])


def unseen(weight: Tensor) -> bool:
    """Tell whether autograd passes a gradient of a weight on without a look at it, which may be before it is there."""
    hooked = weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None)
    return not hooked and weight.is_contiguous(memory_format=torch.channels_last)


def deferrable(weight: Tensor, prepared: Prepared) -> bool:
    """Tell whether the gradient of a weight may be computed beside the rest: `_Cast` is there to wait for it."""
    return any(isinstance(one, Tensor) and one.requires_grad for one in prepared.values()) and unseen(weight)


def matrix(x: Tensor) -> Tensor:
    """Return a picture (N, C, H, W) as a matrix (pixels, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


class Gradients:
    """PyTorch's gradients of a convolution's input and weights.

    In a recording that of the weights, for which nothing waits, is computed beside what follows that of the input, if
    `later`: until `_Cast` needs it, which does so last.

    Parameters
    ----------
    g, z, weight : Tensor
        The gradient of the output, the input (padded already), the weights.
    stride : int
        Of the convolution.
    wanted : tuple of bool
        Whether the gradients of input and weights are.
    later : bool
        Whether they are cast.
    finish : callable, optional
        What is to be done with that of the weights at once.
    transposed : bool
        Whether the convolution is a transposed one, of a padding of 1.
    also : tuple of Tensor
        What else `finish` needs.
    """

    def __init__(
        self,
        g: Tensor,
        z: Tensor,
        weight: Tensor,
        stride: int,
        wanted: tuple[bool, bool],
        later: bool,
        finish: Callable[[Tensor], Tensor] = lambda gradient: gradient,
        transposed: bool = False,
        also: tuple[Tensor, ...] = (),
    ) -> None:
        self._transposed = transposed
        self._given = g.contiguous(memory_format=torch.channels_last), z, weight, stride
        self.to_input = self._one(True).contiguous(memory_format=torch.channels_last) if wanted[0] else None
        self.to_weight: Tensor | None = None
        if not wanted[1]:
            return
        if later and forks(g) and not _on_branch(g.device):
            side = _waiting.room_for((*self._given[:2], *also))
            with torch.cuda.stream(side):
                # held by nobody else: autograd would copy it, before it is there
                self.to_weight = finish(self._of_weight())
        else:
            self.to_weight = finish(self._of_weight())

    def _of_weight(self) -> Tensor:
        g, z, weight, stride = self._given
        outputs, channels, kernel, _ = weight.shape
        few = stride == 2 and kernel > 1 and outputs >= _OUTPUTS and channels <= _INPUTS and channels % 8 == 0
        if self._transposed or not few or g[:, :1].numel() < _PIXELS or z.dtype not in _DTYPES:
            return self._one(False)
        # of few inputs PyTorch's takes some three times as long as the product of matrices and what has to be laid out
        images, _, height, width = g.shape
        columns = z.new_empty(images * height * width, kernel**2 * channels)
        size = height, width, channels, *z.shape[2:], kernel, stride
        cuda.Picture(z).launch("unfold", images * height, z, columns, *size)
        made = matrix(g).T @ columns
        return made.view(outputs, kernel, kernel, channels).permute(0, 3, 1, 2)

    def _one(self, of_input: bool) -> Tensor:
        g, z, weight, stride = self._given
        geometry = [stride] * 2, [int(self._transposed)] * 2, [1, 1], self._transposed, [0, 0], 1
        both = torch.ops.aten.convolution_backward(g, z, weight, None, *geometry, (of_input, not of_input, False))
        found: Tensor = both[0 if of_input else 1]
        return found


def _on_branch(device: torch.device) -> bool:
    return torch.cuda.current_stream(device) == devices.stream(device, devices.BRANCH)


class _Waiting:
    """What the stream beside that of a recording works on: it has to stay until the latter has waited for it.

    One recording is made at a time.
    """

    def __init__(self) -> None:
        self._held: list[Tensor] = []
        self.begin()

    def begin(self) -> None:
        """Begin a recording."""
        self._forget()
        self._most = 0

    def _forget(self) -> None:
        self._held.clear()
        self._bytes, self._used = 0, False

    def room_for(self, tensors: tuple[Tensor, ...]) -> torch.cuda.Stream:
        """Return the stream, on which work on tensors may be queued; earlier ones are waited for if they are large."""
        device, needed = tensors[0].device, sum(t.nbytes for t in tensors)
        if self._bytes + needed > 3 * self._most // 2:
            self.join(device)
        self._most = max(self._most, needed)
        self._bytes += needed
        self._held += tensors
        self._used = True
        side = devices.stream(device, devices.BESIDE)
        side.wait_stream(torch.cuda.current_stream(device))
        return side

    def join(self, device: torch.device) -> None:
        """Let the current stream wait for all of it."""
        if self._used:
            torch.cuda.current_stream(device).wait_stream(devices.stream(device, devices.BESIDE))
        self._forget()


_waiting = _Waiting()


def forget() -> None:
    """Let go of what a recording that has failed was holding."""
    _waiting.begin()


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        made = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        cuda.cast(made, weights)
        ctx.dtypes = [weight.dtype for weight in weights]
        if recorded(made[0]):
            _waiting.begin()
        return tuple(made)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [g for g in gradients if g is not None]
        if there and recorded(there[0]):
            _waiting.join(there[0].device)
        pairs = zip(gradients, ctx.dtypes, strict=True)
        made = [None if g is None else torch.empty_like(g, dtype=dtype) for g, dtype in pairs]
        if there:
            cuda.cast([one for one in made if one is not None], there)
        return None, *made


class _Parts(torch.autograd.Function):
    """Pairs of vectors, each pair in two parts; their gradients are put together all at once."""

    @staticmethod
    def forward(ctx: Any, few: tuple[int, ...], *vectors: Tensor) -> tuple[Tensor, ...]:
        ctx.few = [count for count in few for _ in range(2)]
        return tuple(part for t, count in zip(vectors, ctx.few, strict=True) for part in (t[:count], t[count:]))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pairs = list(zip(gradients[::2], gradients[1::2], strict=True))
        made = [one.new_empty(len(one) + len(other)) for one, other in pairs]
        places = [place for t, count in zip(made, ctx.few, strict=True) for place in (t[:count], t[count:])]
        torch._foreach_copy_(places, list(gradients))
        return None, *made
