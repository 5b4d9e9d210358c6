"""A forward operator is tried before the first iteration: what is wrong with it is said in words."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dip.errors import shown
from dip.operators.basic import Operator

__all__ = ["response", "try_out"]

_TORCH_ONLY = (
    "write it with torch operations (dip.operators has Radon, Blur, Fourier, Warp and Downsample; a matrix or a SciPy "
    "LinearOperator A is given as it is, forward=A), and do not detach x: that hides the gradient that the fit needs"
)
_WITHOUT_GRADIENT = {"astra", "cv2", "numpy", "odl", "pywt", "scipy", "skimage"}  # libraries that do not know PyTorch


def try_out(operator: Operator, shape: tuple[int, ...], y: Tensor) -> None:
    """Apply an operator to a gray image, and check that what comes out can be compared with y.

    Parameters
    ----------
    operator : callable
        A.
    shape : tuple of int
        (1, C, H, W) of x.
    y : Tensor
        The observation, on the device of the fit.

    Raises
    ------
    TypeError, ValueError
        A fails on x, leaves PyTorch's gradient behind, has one that is 0 everywhere (of a noise image, too), or
        returns no tensor, another shape than y's, complex values for real ones or the other way round, NaN or infinity.
    """
    start = torch.zeros(shape, device=y.device, requires_grad=True)
    with torch.enable_grad():
        x = torch.sigmoid(start)  # gray, and like a network's output no leaf
        prediction = _translated(lambda: operator(x), x)
    if not isinstance(prediction, Tensor):
        raise TypeError(f"forward returned {shown(prediction)}; a tensor is needed")
    if prediction.shape != y.shape:
        made, given = tuple(prediction.shape), tuple(y.shape)
        advice = "change shape= or the operator until they agree"
        if [n for n in made if n > 1] == [n for n in given if n > 1]:
            advice = f"give y.reshape({', '.join(map(str, made))}), or let forward end with .reshape({list(given)})"
        raise ValueError(f"forward turned an image of shape {shape} into {made}, but y has shape {given}; {advice}")
    if prediction.is_complex() != y.is_complex():
        raise ValueError(f"forward returned {prediction.dtype}, but y is {y.dtype}; let both be complex or both real")
    if not prediction.requires_grad:
        raise _undifferentiated()
    if not torch.isfinite(prediction).all():
        raise ValueError("forward returned NaN or infinity for a gray image; check the operator")
    if _gradient(prediction, start, torch.sgn(prediction.detach())).any():
        return
    # A gray image alone may be where A happens to be flat: all differences of neighbours are 0 there.
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(shape, generator=generator).to(y.device).requires_grad_()
    with torch.enable_grad():
        prediction = _translated(lambda: operator(start * 1), start)
    direction = torch.randn(y.shape, generator=generator).to(prediction)
    if not _gradient(prediction, start, direction).any():
        raise ValueError(
            "forward has a gradient that is 0 everywhere, of a gray image and of noise, so that nothing would be "
            "fitted; leave out the step in it that rounds, compares, makes integers or multiplies by 0, or put a "
            "smooth one in its place"
        )


def _gradient(prediction: Tensor, start: Tensor, direction: Tensor) -> Tensor:
    """Return the gradient of the prediction along a direction; refuse one that does not lead back to x."""
    grad = torch.autograd.grad
    (found,) = _translated(lambda: grad(prediction, start, direction, allow_unused=True), start, backward=True)
    if found is None:
        raise _undifferentiated()
    return found


def _undifferentiated() -> ValueError:
    return ValueError(
        "forward returned a tensor without a gradient of x: between x and its result there is a step that PyTorch "
        f"cannot differentiate (NumPy, .detach(), .item(), no_grad); {_TORCH_ONLY}"
    )


def _translated(action: Callable[[], Any], x: Tensor, *, backward: bool = False) -> Any:
    """Do it, and say what goes wrong in words that name the operator, or its gradient."""
    try:
        return action()
    except Exception as error:
        said = _in_words(error, x, backward)
        if said is None:
            raise
        raise said from error


def _in_words(error: Exception, x: Tensor, backward: bool) -> Exception | None:
    """Return an error that names the operator; None where the error says all, or is none of the operator's."""
    text, image = str(error), f"an image of shape {tuple(x.shape)}, {x.dtype}, on {x.device}"
    of_torch = isinstance(error, RuntimeError)
    if text.startswith("forward ") or isinstance(error, MemoryError) or (of_torch and "memory" in text):
        return None
    if of_torch and ("in-place" in text or "inplace" in text):
        return ValueError(
            "forward changes x, or what PyTorch needs to differentiate it, in place; write x * 2 for x.mul_(2)"
        )
    if backward:
        return _alike(
            error,
            f"the gradient of forward fails, for {image}: {text}; a backward of your own has to return a torch tensor "
            "of that shape and dtype, on that device",
        )
    if of_torch and "numpy() on Tensor" in text:
        return TypeError(f"forward hands x to NumPy or SciPy, whose steps PyTorch cannot differentiate; {_TORCH_ONLY}")
    if isinstance(error, TypeError) and "Tensor" in text:
        return TypeError(f"forward fails on x, a torch tensor: {text}; {_TORCH_ONLY}")
    if of_torch:
        return _alike(
            error, f"forward fails on {image}: {text}; its own arrays have to suit that shape, dtype and device"
        )
    through = _libraries(error)
    library = next((name for name in through if name in _WITHOUT_GRADIENT), None)
    advice = "; check the function for a torch tensor (1, C, H, W)"
    if "dip" in through[-1:]:
        advice = ""  # an operator of this package says what to change
    elif library is not None:
        advice = f"; PyTorch cannot differentiate {library}: {_TORCH_ONLY}"
    return _alike(error, f"forward fails on {image}: {type(error).__name__}: {text}{advice}")


def _alike(error: Exception, text: str) -> Exception:
    """Return an error of the same kind with another text: a ValueError for PyTorch's, RuntimeError for odd kinds."""
    if isinstance(error, RuntimeError):
        return ValueError(text)
    try:
        made = type(error)(text)
    except Exception:  # its own arguments are of another number or kind
        return RuntimeError(text)
    return made if text in str(made) else RuntimeError(text)


def _libraries(error: Exception) -> list[str]:
    """Return the packages that an error went through."""
    frames = traceback.walk_tb(error.__traceback__)
    return [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame, _ in frames]


def response(operator: Operator, shape: tuple[int, ...], device: torch.device) -> list[float]:
    """Return a few numbers that tell an operator from another: what it makes of a certain noise image.

    They are sums over A x, weighted at random and divided by the size of A x, and that size. They agree to about three
    digits where the same operator is computed in another order of additions.

    Parameters
    ----------
    operator : callable
        A.
    shape : tuple of int
        (1, C, H, W) of x.
    device : torch.device
        Where A computes.

    Returns
    -------
    list of float
        Empty for an operator that is itself random, which does not do the same twice.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator).to(device)
    with torch.no_grad():
        first, again = operator(x.clone()), operator(x.clone())
    if not torch.equal(first, again):
        return []
    values = (torch.view_as_real(first) if first.is_complex() else first).flatten().cpu().double()
    size = float(values.norm())
    weights = torch.randn(2, values.numel(), generator=generator, dtype=torch.float64)
    return [size, *(weights @ values / max(size, 1e-30)).tolist()]
