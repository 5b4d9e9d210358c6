"""The options of a fit: what may be given, and what it comes to for a task.

`Options` is the one list of names; `resolve` checks the values, cheapest first, and fills in the preset's.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from dip import checkpoint as checkpoints
from dip import codes, crops, devices, flips, folds, likeness, losses, networks, optimizers, presets, replay, sizes
from dip.averaging import ExponentialAverage
from dip.callbacks import Callback
from dip.errors import callables, non_negative_int, positive_float, shown, unknown, yes_or_no
from dip.problem import Correcting, Holding, Particular, Problem, Unbiased
from dip.stopping import Rule
from dip.stretch import Stretching, unitless

if TYPE_CHECKING:
    from dip.solver import Fit


class Options(TypedDict, total=False):
    """The options of `dip.fit` and of every task function; each that is missing or None has the preset's value.

    Attributes
    ----------
    preset : str or Preset
        The settings, by name (`dip.presets.names`), or one's own (`dip.presets`); "paper" by default, where the task
        does not know better.
    network : dict, str or Module
        A dict changes options of the preset's network, as in ``network={"down": [64] * 5, "up": [64] * 5}``; a
        name takes another network (`dip.networks.names`), as does "name" in a dict, with options of its own: ``{"name":
        "unet", "channels": [32] * 5}``; a module that maps a code of `code.channels` to the image's channels is used as
        it is, with the weights it has, and is fitted in place. If not every size suits it, give it a method
        ``padded_size(height, width)``, which returns the next size up that does: the fit is cut back to the image's.
        If its code is smaller than the image, give it an attribute ``magnification``, how many times.
    code : str or Code
        The code z (`dip.codes`).
    jitter : float
        Standard deviation of the noise added to the code at each iteration.
    flips : int or "auto"
        After how many iterations (of each tile) code and output are mirrored, another way at each, so that the noise is
        not fitted; 0 = never, "auto" = once the residual tells that it begins to be (`dip.flips`); with no `stop` the
        fit then ends once the residual tells that noise alone is left to learn.
    optimize_code : bool
        Whether the code is optimised together with the weights; False by default.
    loss : str or callable
        "mse", "l1", "huber", "poisson", for `dip.Deblur` "back-projection", for `dip.Dejpeg` "quantization", or
        ``loss(prediction, y)``, with ``weight=`` for weighted observations (`dip.losses`).
    penalty : callable or sequence of callables
        Added to the loss, each called with x (1, C, H, W), such as ``dip.losses.TotalVariation(1e-3)``.
    optimizer : {"adam", "lbfgs"}
        LBFGS (strong Wolfe line search) is for fits without jitter, and has none unless it is given.
    lr : float
        Learning rate; where LBFGS is taken in place of a preset's Adam it is 1 by default. With `tile`, and with
        `dip.codes.HeldOut` ("fast" for missing pixels), it falls to the end of each run: two runs are not one of both.
    average : float
        Decay of the exponential average of the outputs that is returned; 0 returns the last output.
    consistent : bool
        Correct the picture that is returned so that A x comes nearer to y than it does after a fit, by one step of
        `dip.operators.Downsample.consistent`: for `dip.SuperResolve`, and small pictures that have little noise. Of
        `dip.Deblur` by a regularised deconvolution of what is left of y, of `dip.Reconstruct` by a step of least
        squares, of `dip.Dejpeg` by bringing it together with what the file says. Of `dip.Denoise` what the fit has left
        of y that is more than noise is given back (`dip.noise.more_than_noise`), and what becomes of the mean of noise
        where it was clipped at black or white is undone, if it seems to have been (`dip.noise.Clipped`).
    stop : Rule
        When to stop before the count of iterations is reached (`dip.stopping`).
    tile : int
        For pictures too large for the memory: at each iteration the network sees only a random crop of this many pixels
        a side, and a last pass makes the whole (`dip.crops`). The preset's iterations are then meant for each tile: a
        picture of 16 tiles takes 16 times as many. The learning rate is 0.3 of the preset's, if none is given; it falls
        towards the end of a run, and there is no `average`. With `dip.codes.HeldOut` ("fast" for missing pixels)
        all crops are the same one, and nothing else is changed; a picture of more than 1024 x 512 pixels has 512.
    seed : int
        Everything random is drawn from it: weights, code, jitter; 0 by default. PyTorch's global generator is not
        touched.
    device : str or torch.device
        "auto" (the default) takes CUDA, else Apple's MPS, else the CPU.
    precision : {"auto", "float32", "bfloat16"}
        What the network computes in; "auto" (the default) is bfloat16 where the device multiplies it natively.
    engine : {"auto", "graph", "plain"}
        On CUDA "auto" (the default) records an iteration as a CUDA graph and replays it, where all code in it is of
        this package or of PyTorch; "graph" does so with an operator, loss or network of your own too, which then has to
        do the same every time; "plain" never does (`dip.replay`).
    init : Fit
        An earlier fit of a similar image, whose weights, Adam's moments, and code (where the size is the same and it is
        not made of pictures) this one starts from.
    reference : array
        The clean image; adds "psnr" and "psnr_output" to the history and nothing else.
    callbacks : sequence of callables
        Called with the fit (`dip.callbacks`).
    progress : bool
        Whether to show a progress bar; by default in a terminal and in a notebook only.
    checkpoint : path
        File that takes the whole state at every `checkpoint_every`-th iteration and at the end.
    checkpoint_every : int
        Iterations between checkpoints; 100 by default.
    """

    preset: str | presets.Preset | None
    network: dict[str, Any] | str | nn.Module | None
    code: Any
    jitter: float | None
    flips: int | str | None
    optimize_code: bool
    loss: Any
    penalty: Callable[..., Tensor] | Sequence[Callable[..., Tensor]] | None
    optimizer: str | None
    lr: float | None
    average: float | None
    consistent: bool | None
    stop: Rule | None
    tile: int | None
    seed: int
    device: str | torch.device
    precision: str
    engine: str
    init: Fit | None
    reference: Any
    callbacks: Iterable[Callback]
    progress: bool | None
    checkpoint: str | os.PathLike[str] | None
    checkpoint_every: int | None


@dataclass(frozen=True)
class Settings:
    """What the options come to for one task: every value known, checked and, where it is a thing, made.

    `memory` is what the fit will take at its peak, in bytes, as far as that can be foretold; None where it cannot.
    `own` is what is compared of functions and objects of the user's own when the fit is resumed.
    """

    preset: presets.Preset
    network: nn.Module
    code: codes.Code
    frame: codes.Frame
    code_frame: codes.Frame
    jitter: float
    flips: int | str
    optimize_code: bool
    loss: losses.Loss
    penalties: tuple[Callable[..., Tensor], ...]
    optimizer: str
    lr: float
    average: float
    consistent: bool
    stop: Rule | None
    tile: int | None
    seed: int
    code_seed: int
    jitter_seed: int
    crop_seed: int
    device: torch.device
    dtype: torch.dtype
    engine: str
    callbacks: list[Callback]
    progress: bool | None
    checkpoint: Path | None
    checkpoint_every: int
    memory: int | None
    own: likeness.Likeness

    @property
    def tiles(self) -> int:
        """How many tiles the network is fitted to: 1 where it sees the picture in one piece, or learns of one part."""
        return 1 if isinstance(self.code, codes.HeldOut) else crops.tiles_in(self.tile, self.frame)

    @property
    def iters(self) -> int:
        """The iterations to do if nothing else is said: the preset's, for each tile."""
        return self.preset.iters * self.tiles

    @property
    def precision(self) -> str:
        """The name of `dtype`: "float32" or "bfloat16"."""
        return str(self.dtype).removeprefix("torch.")

    def fingerprint(self) -> dict[str, Any]:
        """Return what has to agree between a checkpoint and the fit that resumes it, in JSON types."""
        weights = sum(p.numel() for p in self.network.parameters())
        shapes = [f"{name} {list(tensor.shape)}" for name, tensor in self.network.state_dict().items()]
        return {
            "parameters": weights,
            "network": "\n".join([likeness.name(self.network), *shapes]),
            "code": likeness.name(self.code),
            "optimize_code": self.optimize_code,
            "seed": self.seed,
            "loss": likeness.name(self.loss),
            "penalty": [likeness.name(penalty) for penalty in self.penalties],
            "optimizer": self.optimizer,
            "lr": self.lr,
            "jitter": self.jitter,
            "flips": self.flips,
            "average": self.average,
            "precision": self.precision,
            "stop": likeness.name(self.stop),
            "tile": self.tile,
            "own": self.own.lasting(),
        }


def check_names(options: dict[str, Any], also: Iterable[str] = ()) -> None:
    """Refuse names that are no options of a fit.

    Raises
    ------
    TypeError
        A name is unknown; the message has the nearest.
    """
    allowed = sorted({*Options.__annotations__, *also})
    for name in options:
        if name in ("iters", "resume") and name not in allowed:
            raise TypeError(f"{name} is for dip.fit; of a dip.Fit, call run(iters) and load(path)")
        if name not in allowed:
            raise TypeError(str(unknown("option", name, allowed)))


def resolve(task: Problem, options: Options) -> Settings:
    """Check options and fill in the preset's: names and numbers first, then shapes and memory.

    The data are not touched.

    Raises
    ------
    ValueError, TypeError
        An option is not what it should be.
    MemoryError
        The fit would not find room.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    check_names(given)
    if isinstance(task, type) or not hasattr(task, "task"):
        raise TypeError(f"task={shown(task)}: give a task, such as dip.Denoise(image)")
    preset = presets.get(task.task, given.get("preset", task.default_preset))
    seed = non_negative_int(given.get("seed", 0), "seed")
    seeds = np.random.SeedSequence(seed).generate_state(4, np.uint64).tolist()
    weights_seed, code_seed, jitter_seed, crop_seed = seeds
    device = devices.resolve(given.get("device", "auto"), hint=task.device)
    dtype = devices.precision(given.get("precision", "auto"), device)
    loss = losses.create(given.get("loss", preset.loss))
    loss = loss.of(task) if isinstance(loss, losses.OF_TASKS) else loss
    penalties = callables(given.get("penalty", ()), "penalty", "a function of x: dip.losses.TotalVariation(1e-3)")
    callbacks = callables(given.get("callbacks", ()), "callbacks", "functions that take the fit, such as [print]")
    optimizer = optimizers.check(given.get("optimizer", preset.optimizer))
    lr = positive_float(given.get("lr", preset.lr if optimizer == preset.optimizer else optimizers.LR[optimizer]), "lr")
    average = ExponentialAverage(given.get("average", preset.average)).decay  # which checks it
    stop = _stop(given.get("stop"), loss, average, task.task)
    checkpoint, every = checkpoints.place(given.get("checkpoint"), given.get("checkpoint_every"))
    code = given.get("code", preset.code)
    if code is None:
        raise ValueError(
            f"preset {preset.name!r} needs a picture as its code: {preset.about}; give code=dip.codes.Image(picture)"
        )
    channels, height, width = task.shape
    code = codes.of_image(codes.create(code), channels, task.factor if task.task == "super_resolve" else 1)
    if isinstance(code, codes.Denoised) and task.task != "denoise":
        raise ValueError(f"code={code!r} is made from a noisy picture: it is for dip.Denoise, not for {task.task}")
    goes = isinstance(loss, losses.MSE) or not isinstance(task, Unbiased)  # others come to no mean
    consistent = yes_or_no(given.get("consistent", preset.consistent and goes), "consistent")
    # (what is known of missing pixels comes back as it is anyway)
    if consistent and (not isinstance(task, Correcting | Unbiased) or isinstance(task, Holding)):
        raise ValueError(f"consistent=True is for tasks that can correct a picture, all but {task.task}")
    if isinstance(code, codes.Autoencoding) and not isinstance(task, Correcting):
        raise ValueError(f"code={code!r} is for tasks that can correct a picture, all but {task.task}")
    folds.check(given, task, code)
    if isinstance(task, Particular):
        task.check_options(loss, stop, corrected=consistent or isinstance(code, codes.Autoencoding))
    if isinstance(task, Stretching):
        task.stretches = unitless(given.get("network"), loss, penalties, stop, code)
    usual = preset.jitter
    if isinstance(preset.code, codes.Autoencoding | codes.HeldOut) and type(code) is not type(preset.code):
        usual = 0.03  # the preset's is for a picture as the code, and would drown another, or leave it bare
    if optimizer == "lbfgs" != preset.optimizer:
        usual = 0.0  # it searches along a line, where each look has to be at the same function
    jitter = positive_float(given.get("jitter", usual), "jitter", zero_ok=True)
    mirrored = flips.check(given.get("flips"), preset.flips, task.task, code)
    network = _network(given.get("network"), preset, code.channels, channels, weights_seed)
    if not getattr(network, "follows_dtype", False):
        # Only a network that says so computes in the dtype of its code.
        if given.get("precision") == "bfloat16":
            raise ValueError(
                f'precision="bfloat16": a {type(network).__name__} does not say (follows_dtype = True) that it casts '
                'its weights to the dtype of its code; take precision="float32"'
            )
        dtype = torch.float32
    frame, times = sizes.framed(network, height, width), sizes.magnification(network)
    of_code = frame.reduced(times)
    if times > 1:
        _check_small_code(network, code, mirrored, given, preset)
    optimize_code = yes_or_no(given.get("optimize_code", False), "optimize_code")
    if not optimize_code and not any(p.requires_grad for p in network.parameters()):
        raise ValueError("the network has no weights that could be fitted: every one has requires_grad=False")
    tile = crops.check(given, task, network, frame) if "tile" in given else folds.usual_tile(code, network, frame)
    engine = replay.check(given.get("engine", "auto"), device, optimizer, tile)
    if tile is not None and "lr" not in given and not isinstance(code, codes.HeldOut):
        lr *= crops.SLOWER
    # Code and image alone tell that a size is out of the question, some of which PyTorch cannot even count.
    values = max(code.channels * of_code.height * of_code.width, channels * frame.height * frame.width)
    narrower = getattr(network, "narrower", None)
    advised = partial(devices.check_memory, padded=(frame.height, frame.width), narrower=narrower)
    advised(3 * 4 * values, device, task.shape[1:])
    seen = sizes.seen(of_code, tile)
    found = sizes.dry_run(network, code.channels, seen, device, dtype, optimizer, optimize_code=optimize_code)
    needed = None
    if found is not None:  # else it is a module that needs real data: its first iteration will tell
        needed = sizes.needed(found, network, code, channels, frame, tile, device, dtype)
        sizes.check_shape(found.shape, (1, channels, *sizes.seen(frame, tile)), (1, code.channels, *seen))
        in_crops = tile is None and task.support is not None and crops.joins(network)
        way_out = crops.needed(crops.USUAL, frame) if in_crops else None
        advised(needed, device, task.shape[1:], tile=way_out)
    owned = {
        "the loss": loss,
        "the stopping rule": stop,
        **{f"penalty {i}": p for i, p in enumerate(penalties, start=1)},
    }
    return Settings(
        preset=preset,
        network=network,
        code=code,
        frame=frame,
        code_frame=of_code,
        jitter=jitter,
        flips=mirrored,
        optimize_code=optimize_code,
        loss=loss,
        penalties=penalties,
        optimizer=optimizer,
        lr=lr,
        average=average,
        consistent=consistent,
        stop=stop,
        tile=tile,
        seed=seed,
        code_seed=code_seed,
        jitter_seed=jitter_seed,
        crop_seed=crop_seed,
        device=device,
        dtype=dtype,
        engine=engine,
        callbacks=list(callbacks),
        progress=given.get("progress"),
        checkpoint=checkpoint,
        checkpoint_every=every,
        memory=needed,
        own=likeness.Likeness(owned),
    )


def memory(
    preset: presets.Preset, shape: tuple[int, int, int], device: torch.device, tile: int | None = None
) -> int | None:
    """Return the bytes that a fit of an image of `shape` (C, H, W) with a preset takes at its peak.

    It is the estimate by which a fit is refused that would not find room (`dip.sizes.dry_run`); None for crops
    (`tile`) where the preset's network is not fitted in them.
    """
    # a picture as the code has the image's channels
    code = codes.Uniform(shape[0]) if preset.code is None else codes.of_image(preset.code, shape[0])
    network = _network(None, preset, code.channels, shape[0], seed=0)
    if tile is not None and not crops.joins(network):
        return None
    frame = sizes.framed(network, *shape[1:])
    tile = folds.usual_tile(code, network, frame) if tile is None else crops.needed(tile, frame)
    seen = sizes.seen(frame.reduced(sizes.magnification(network)), tile)
    dtype = devices.precision("auto", device)
    found = sizes.dry_run(network, code.channels, seen, device, dtype, preset.optimizer)
    assert found is not None, "a preset's network runs on the meta device"
    return sizes.needed(found, network, code, shape[0], frame, tile, device, dtype)


def _check_small_code(
    network: nn.Module, code: codes.Code, flips: int | str, given: dict[str, Any], preset: presets.Preset
) -> None:
    """Refuse what needs a code of the image's size, for a network that makes the image of a smaller one."""
    tile, ours = given.get("tile"), "code" not in given
    whose = f"preset {preset.name!r} has a code that" if ours else f"code={code!r}"
    other = 'take preset="paper"' if ours else "give code=dip.codes.Uniform(128)"
    for wrong, why, advice in (
        (isinstance(code, codes.OF_PICTURES), f"{whose} has the image's size", other),
        (bool(flips), f"flips={flips!r} mirrors code and image alike", "leave it out"),
        (tile is not None, f"tile={tile} takes crops of code and image alike", "leave it out"),
    ):
        if wrong:
            raise ValueError(
                f"{why}, and a {type(network).__name__} makes the image of a smaller code; {advice}, or take another "
                'network, such as "encoder-decoder"'
            )


def _stop(stop: Any, loss: losses.Loss, average: float, task: str) -> Rule | None:
    if stop is None:
        return None
    if not isinstance(stop, Rule):
        raise TypeError(f"stop={shown(stop)}: give a rule such as dip.stopping.WindowedVariance(), or iters=")
    if (type(stop).measure, type(stop).update) == (Rule.measure, Rule.update):
        raise TypeError(
            f"stop={shown(stop)}: a {type(stop).__name__} has no measure(output, loss), which returns the number that "
            "is to be minimal at the right moment (or None); define it, or take a rule of dip.stopping"
        )
    stop.check(loss, average, task)
    # A rule remembers what it has seen; the caller's stays fresh for the next fit.
    return copy.deepcopy(stop)


def _network(network: Any, preset: presets.Preset, inputs: int, outputs: int, seed: int) -> nn.Module:
    if isinstance(network, nn.Module):
        wrong = {p.dtype for p in network.parameters()} & {torch.float64, torch.float16, torch.bfloat16}
        if wrong:
            raise TypeError(f"the network's weights are in {wrong.pop()}; a fit is in float32: pass network.float()")
        if any(map(nn.parameter.is_lazy, [*network.parameters(), *network.buffers()])):
            raise ValueError("the network has lazy layers without weights: call it once, with a code as it takes it")
        return network
    options = network_options(network, preset)
    generator = torch.Generator().manual_seed(seed)
    made = networks.create(options.pop("name"), inputs, outputs, generator=generator, **options)
    return made.float()  # whatever the default dtype


def network_options(network: Any, preset: presets.Preset) -> dict[str, Any]:
    """Return the name and the options of the network that the option `network`, but for a module, comes to.

    Raises
    ------
    TypeError
        It is something else, or says what follows from the code, the image or the seed.
    """
    given = {"name": network} if isinstance(network, str) else {} if network is None else network
    if not isinstance(given, dict):
        raise TypeError(
            f"network={shown(network)}: give a dict of options, a name ({', '.join(networks.names())}) or a module"
        )
    for option, comes_from in (("in_channels", "code"), ("out_channels", "image"), ("generator", "seed")):
        if option in given:
            raise TypeError(f"network={{{option!r}: ...}}: that follows from the {comes_from}; leave it out")
    usual = {"name": preset.network, **preset.options}
    return {**usual, **given} if given.get("name", preset.network) == preset.network else dict(given)
