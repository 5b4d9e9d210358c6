"""Settings as data: by task and name, the paper's experiments, and "fast".

A preset is a starting point; every value can be given anew in the call, or in a preset of one's own:
``preset=dataclasses.replace(dip.presets.get("denoise", "fast"), iters=400, lr=0.005)``. One thing differs from the
original code in all of them: the averaged output is returned (`average`), which the paper does for denoising only and
which raises the PSNR elsewhere too; ``average=0`` turns it off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from dip.codes import RENEWED, Autoencoding, Denoised, HeldOut, Meshgrid, Uniform
from dip.errors import shown, unknown


@dataclass(frozen=True)
class Preset:
    """The settings of a fit.

    Attributes
    ----------
    task : str
        "denoise", "inpaint", "super_resolve", "deblur", "dejpeg" or "reconstruct".
    name : str
        The name within the task.
    about : str
        What the setting is for, in a few words.
    iters : int
        Iterations.
    options : mapping
        Options of the network.
    code : object or None
        The code; None = it has to be given.
    jitter : float
        Standard deviation of the noise added to the code at each iteration.
    flips : int or "auto"
        After how many iterations code and output are mirrored, another way at each; 0 = never, "auto" = once the
        residual tells, which then also tells when to end.
    lr : float
        Learning rate.
    network : str
        The network's name.
    optimizer : str
        "adam" or "lbfgs".
    average : float
        Decay of the exponential average of the outputs.
    consistent : bool
        Whether the picture that is returned is corrected so that A x comes nearer to y, or, of a noisy one, for what
        clipping did to the mean of its noise.
    loss : str
        Name of the data loss.
    """

    task: str
    name: str
    about: str
    iters: int
    options: Mapping[str, Any] = field(hash=False)
    code: Any = field(default_factory=lambda: Uniform(32))
    jitter: float = 0.03
    flips: int | str = 0
    lr: float = 0.01
    network: str = "encoder-decoder"
    optimizer: str = "adam"
    average: float = 0.99
    consistent: bool = False
    loss: str = "mse"

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))


def _net(channels: tuple[int, ...], skip: tuple[int, ...], **options: Any) -> dict[str, Any]:
    return {"down": channels, "up": channels, "skip": skip, **options}


_FIVE = (128,) * 5
_PAPER = _net(_FIVE, (4,) * 5)
_GROWING = (16, 32, 64, 128, 128)
_THIN = _net((16, 32, 64, 64, 64), (16, 16, 4, 4, 4))

_SNAIL = _net((8, 16, 32, 64, 128), (0, 0, 0, 4, 4))

_PRESETS = (
    Preset("denoise", "paper", "Gaussian noise, sigma 25", 1800, _PAPER, jitter=1 / 30),
    Preset(
        "denoise",
        "fast",
        "Gaussian noise, in a small part of the time",
        750,
        _THIN,
        code=Denoised(),
        jitter=1 / 30,
        flips="auto",
        consistent=True,
    ),
    Preset("denoise", "paper-sigma50", "stronger noise, sigma 50", 1800, _PAPER, jitter=1 / 20),
    Preset(
        "denoise",
        "paper-jpeg",
        "JPEG artefacts, unknown degradation (the snail)",
        2400,
        _SNAIL,
        code=Uniform(3),
        jitter=1 / 30,
    ),
    Preset(
        "denoise",
        "deep-decoder",
        "Gaussian noise, by the few weights of Heckel and Hand's network",
        1900,
        {"channels": (128,) * 6},
        code=Uniform(128),
        jitter=0.0,
        network="deep-decoder",
    ),
    Preset(
        "denoise",
        "paper-flash",
        "picture taken without flash; its code is one taken with flash",
        601,
        _net(_FIVE, (4,) * 5, upsampling=("nearest", "nearest", "bilinear", "bilinear", "bilinear")),
        code=None,
        jitter=0.0,
        lr=0.1,
    ),
    Preset("inpaint", "paper", "text and scratches (kate)", 6001, _net(_FIVE, _FIVE, upsampling="nearest")),
    Preset(
        "inpaint",
        "paper-hole",
        "a hole in a picture (vase)",
        5001,
        _net(_FIVE, (0,) * 5, upsampling="nearest"),
        code=Meshgrid(),
    ),
    Preset(
        "inpaint",
        "paper-hole-large",
        "a large hole (library)",
        3001,
        _net(
            (*_GROWING, 128),
            (0,) * 6,
            kernel_down=5,
            upsampling="nearest",
            conv1x1_up=False,
        ),
        code=Uniform(1),
        jitter=0.0,
    ),
    Preset("inpaint", "paper-half", "half of the pixels missing at random (barbara)", 11000, _PAPER, lr=0.001),
    Preset(
        "inpaint",
        "fast",
        "single pixels missing at random, letters, scratches and small holes, in a small part of the time",
        300,
        {**_THIN, "sigmoid": False},
        code=HeldOut(),
        jitter=0.0,
        flips=1,
        lr=0.005,
    ),
    Preset(
        "inpaint",
        "fast-sparse",
        "the same, of a few thousand known pixels or fewer: small pictures, or nine tenths missing",
        1000,
        _THIN,
        code=Autoencoding(noise=0),
        jitter=0.1,
    ),
    Preset(
        "inpaint",
        "paper-sparse",
        "2 % of the pixels known (kate)",
        1000,
        _net(_GROWING, (0,) * 5, downsampling="average"),
        jitter=0.0,
    ),
    Preset("super_resolve", "paper", "factor 4", 2000, _PAPER),
    Preset(
        "super_resolve",
        "fast",
        "any factor, better and in a small part of the time; for small pictures without noise",
        1000,
        _THIN,
        code=Autoencoding(),
        jitter=0.3,
        consistent=True,
    ),
    Preset("super_resolve", "paper-x8", "factor 8", 4000, _PAPER, jitter=0.05),
    Preset("deblur", "paper", "a known blur", 2000, _PAPER),
    Preset(
        "deblur",
        "fast",
        "a known blur, better and in a small part of the time",
        800,
        _THIN,
        code=Autoencoding(scale=1.0),
        jitter=0.1,
        consistent=True,
        loss="back-projection",
    ),
    Preset(
        "dejpeg",
        "paper",
        "the network of the paper's snail, by the squared error",
        2400,
        _SNAIL,
        code=Uniform(3),
        jitter=1 / 30,
    ),
    Preset(
        "dejpeg",
        "fast",
        "a JPEG, by the intervals that it tells; the default",
        600,
        _THIN,
        code=Autoencoding(),
        jitter=0.1,
        consistent=True,
        loss="quantization",
    ),
    Preset("reconstruct", "paper", "any forward operator", 2000, _PAPER),
    Preset(
        "reconstruct",
        "fast",
        "any linear operator, in less time",
        2000,
        _net((64,) * 5, (4,) * 5),
        code=Autoencoding(scale=0.2, grown=1000),
    ),
)

_TASKS = tuple(dict.fromkeys(p.task for p in _PRESETS))


def names(task: str | None = None) -> list[str]:
    """Return the names of a task's presets, or of all tasks as "task/name"."""
    if task is None:
        return [f"{p.task}/{p.name}" for p in _PRESETS]
    task = _known(task)
    return [p.name for p in _PRESETS if p.task == task]


def task_names() -> list[str]:
    """Return the tasks, as the command line has them."""
    return [task.replace("_", "-") for task in _TASKS]


def _known(task: str) -> str:
    """Return a task's name as it is in Python; the command line's, with hyphens, will do."""
    found = str(task).replace("-", "_")
    if found not in _TASKS:
        raise unknown("task", task, _TASKS)
    return found


def get(task: str, name: str | Preset) -> Preset:
    """Return a preset.

    Parameters
    ----------
    task : str
        "denoise", "inpaint", "super_resolve", "deblur", "dejpeg" or "reconstruct".
    name : str or Preset
        One of ``names(task)``; or settings of one's own for it, which are returned.

    Raises
    ------
    ValueError
        There is none of that name for the task; the message has the nearest, or the tasks that have it.
    TypeError
        `name` is neither.
    """
    task = _known(task)
    if not isinstance(name, str | Preset):
        raise TypeError(f"preset={shown(name)}: give a name, such as 'paper' or 'fast', or a dip.presets.Preset")
    meant = [p for p in _PRESETS if p.name == name] if isinstance(name, str) else [name]
    for preset in meant:
        if preset.task == task:
            return preset
    if not meant:
        raise unknown(f"preset for {task}:", name, names(task))
    others = " and ".join(p.task.replace("_", "-") for p in meant)
    raise ValueError(f"preset {meant[0].name!r} is one for {others}; for {task}: {', '.join(names(task))}")


def for_factor(factor: int) -> str:
    """Return the super-resolution preset where none is named: "paper" up to a factor of 5, "paper-x8" above."""
    return "paper" if factor < 6 else "paper-x8"


def listing(task: str) -> str:
    """Return a task's presets with their settings, as lines for a terminal."""
    lines = []
    for p in _PRESETS:
        if p.task != task:
            continue
        further = dict(p.options)
        if p.network == "encoder-decoder":
            down, skip = further.pop("down"), further.pop("skip")
            made = f"down = up {_short(down)}, skip {_short(skip)}"
            del further["up"]
        else:
            made = f"network {p.network}"
        code = "a picture, to be given" if p.code is None else _brief(p.code)
        lines += [
            f"  {p.name:<16}  {p.about}",
            f"  {'':<16}  {p.iters} iterations, lr {p.lr:g}, jitter {p.jitter:.3g}"
            + f", flips {p.flips}" * bool(p.flips)
            + f", loss {p.loss}" * (p.loss != "mse")
            + ", consistent" * p.consistent
            + f", code {code}",
            f"  {'':<16}  {made}" + "".join(f", {k} {_short(v)}" for k, v in further.items()),
        ]
    return "\n".join(lines)


def _brief(code: Any) -> str:
    """Write a code, of one that is renewed what it has of its own."""
    if not isinstance(code, RENEWED):
        return repr(code)
    own = {f.name: getattr(code, f.name) for f in fields(code) if f.repr and getattr(code, f.name) != f.default}
    return f"{type(code).__name__}({', '.join(f'{name}={value!r}' for name, value in own.items())})"


def _short(value: Any) -> str:
    """Write (128, 128, 128, 128, 128) as 128x5."""
    if not isinstance(value, tuple):
        return str(value)
    if len(set(value)) == 1 and len(value) > 1:
        return f"{value[0]}x{len(value)}"
    return ",".join(map(str, value))
