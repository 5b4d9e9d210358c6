"""Trained weights on disk: one safetensors file with everything that was chosen, and the models that come with the
package.

A file holds the weights, the model's name and options, and how it was trained (as JSON in its head), and a SHA-256 of
all its bytes. Nothing in it can be executed. A file that is damaged, cut short, of another model or a pickle is
refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dip import storage
from dip.errors import shown, unknown
from dip.trained import architectures

__all__ = ["Weights", "listing", "packaged", "parse", "read", "read_bytes", "resolve", "write"]

FOLDER = Path(__file__).parent / "weights"
"""Where the weights of the package are."""
FORMAT = 1
_SUFFIX = ".safetensors"
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")
_LARGEST = 2**30  # bytes: far more than any of the models has
_BLANK = "0" * 64  # what stands for the SHA-256 while it is taken


class Weights(NamedTuple):
    """What a file of weights holds.

    Attributes
    ----------
    model : Model
        With the weights, in evaluation mode, on the CPU.
    name : str
        The model's name.
    info : dict
        What was written with it: "options" of the model, the "recipe" of its training, "data", "figures", ...
    """

    model: architectures.Model
    name: str
    info: dict[str, Any]


def write(
    path: str | os.PathLike[str], model: architectures.Model, name: str, options: dict[str, Any], info: dict[str, Any]
) -> Path:
    """Write weights, whole or not at all.

    Parameters
    ----------
    path : path
        The file; an existing one is replaced.
    model : Model
        Whose weights are written.
    name : str
        Its name (`dip.trained.names`).
    options : dict
        With which ``create(name, channels, **options)`` makes it again, without "channels".
    info : dict
        What else is to be kept, of JSON types.

    Raises
    ------
    OSError
        The file cannot be written.
    ValueError
        A weight is NaN or infinite.
    """
    from safetensors.torch import save as to_bytes

    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in _state(model).items()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ValueError("the model has weights that are NaN or infinite; such weights are not written")
    head = {**info, "format": FORMAT, "model": name, "channels": model.channels, "options": options}
    data = to_bytes(tensors, metadata={"dip-model": json.dumps(head), "sha256": _BLANK})
    data = data.replace(_BLANK.encode(), hashlib.sha256(data).hexdigest().encode(), 1)
    return storage.write_bytes(path, data)


def read(path: str | os.PathLike[str]) -> Weights:
    """Read weights.

    Parameters
    ----------
    path : path
        A file that `write` wrote.

    Returns
    -------
    Weights

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is damaged, cut short, a pickle, another kind of file, or does not have the weights of the model that it
        names.
    """
    return parse(read_bytes(path), path)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file of weights, for `parse`; raises as `read` does of what is none at first sight."""
    path = Path(path)
    try:
        is_file = path.is_file()
    except ValueError:  # a zero byte in the name
        is_file = False
    if not is_file:
        raise FileNotFoundError(f"{str(path)!r} is no file with weights; give a {_SUFFIX} file that dip train wrote")
    _refuse_pickle(path)
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{str(path)!r} is larger than any model here ({_LARGEST >> 20} MiB); give another file")
    return path.read_bytes()


def parse(data: bytes, path: str | os.PathLike[str]) -> Weights:
    """Read weights from the bytes of a file, wherever that is; raises ValueError as `read` does."""
    try:
        return _parse(data)
    except _Refusal as refusal:
        raise ValueError(f"{str(path)!r} {refusal}") from refusal.__cause__


def packaged() -> dict[str, Path]:
    """Return the files of the weights that come with the package, by the names of their models."""
    return {path.stem: path for path in sorted(FOLDER.glob(f"*{_SUFFIX}"))}


def resolve(model: str | os.PathLike[str]) -> Path:
    """Return the file that is meant by the name of a model, or by the name of a file.

    Parameters
    ----------
    model : str or path
        The name of a model that comes with the package, or a file of weights. A string that is the name of a model is
        never taken for a file; ``Path("cnn5")`` is.

    Raises
    ------
    FileNotFoundError
        A model without weights in this package, or a file that is not there.
    ValueError
        Neither.
    TypeError
        It is neither text nor a path.
    """
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model must be a name or a file, not {shown(model)}; pass one such as {'cnn5'!r}")
    here = packaged()
    if isinstance(model, str):
        if model in here:
            return here[model]
        if model in architectures.names():
            there = f"; weights are here of {', '.join(here)}" if here else ""
            raise FileNotFoundError(
                f"this version of the package has no weights of model {model!r}{there}; train it (dip train {model} "
                "--data ...) and give the file"
            )
        known = os.sep in model or "/" in model or Path(model).suffix.lower() in (_SUFFIX, *_PICKLES)
        if not known and not os.path.exists(model):
            raise unknown("trained model", model, [*here, f"a {_SUFFIX} file"])
    return Path(model)


def listing() -> dict[str, dict[str, Any]]:
    """Return the model cards of the weights that come with the package, by name; see `dip.trained.models`."""
    cards = {}
    for name, path in packaged().items():
        cards[name] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return cards


# ---------------------------------------------------------------------- reading


class _Refusal(Exception):
    """Why a file is refused; the message goes on from its name."""


def _refuse_pickle(path: Path) -> None:
    """Refuse what PyTorch's own format is made of, by name and by content."""
    with path.open("rb") as file:
        head = file.read(4)
    if path.suffix.lower() in _PICKLES or head[:2] == b"\x80\x02" or head == b"PK\x03\x04":
        raise ValueError(
            f"{str(path)!r} is a pickle (or has the extension of one), which can execute code when it is read; "
            f"only {_SUFFIX} files that dip train wrote are accepted"
        )


def _parse(data: bytes) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"] if 0 < length <= len(data) - 8 else {}
        written, stated = metadata["dip-model"], str(metadata["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _Refusal(
            "is damaged, cut short, or not a file of weights that dip train wrote; get an intact copy"
        ) from error
    blank = data.replace(stated.encode(), _BLANK.encode(), 1)
    if len(stated) != len(_BLANK) or hashlib.sha256(blank).hexdigest() != stated:
        raise _Refusal("is damaged or cut short: it is not what was written; get an intact copy")
    try:
        info = json.loads(written)
        if info["format"] != FORMAT:
            raise _Refusal(f"has format {shown(info['format'])}, this version of dip reads {FORMAT}; train it anew")
        name = info["model"]
        with torch.device("meta"):  # shapes only, until the file has been seen to have them
            expected = architectures.create(name, info["channels"], **info["options"])
        tensors = from_bytes(data)
    except _Refusal:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise _Refusal(f"does not describe a model of this version of dip ({reason}); give another file") from error
    _compare(tensors, _state(expected), name)
    model = architectures.create(name, info["channels"], generator=torch.Generator(), **info["options"])
    model.load_state_dict(tensors, strict=False)  # the counters of the normalisations are not kept
    return Weights(model.eval().requires_grad_(False), name, info)


def _compare(tensors: dict[str, Tensor], expected: dict[str, Tensor], name: str) -> None:
    """Refuse tensors that are not those of the model."""
    for key in [*expected, *tensors]:
        if key not in tensors or key not in expected:
            what = "lacks" if key in expected else "has"
            raise _Refusal(f"has weights of another architecture than {name!r}, which it names: it {what} {key}")
        here, there = tensors[key], expected[key]
        if here.shape != there.shape or here.dtype != there.dtype:
            raise _Refusal(
                f"has weights of another architecture than {name!r}, which it names: {key} is {here.dtype} "
                f"{tuple(here.shape)}, not {there.dtype} {tuple(there.shape)}"
            )
        if not bool(torch.isfinite(here).all()):
            raise _Refusal(f"has NaN or infinite weights ({key}); train the model anew")


def _state(model: architectures.Model) -> dict[str, Tensor]:
    """All weights and statistics, without the normalisations' counters of batches, which nothing depends on."""
    return {key: tensor for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")}
