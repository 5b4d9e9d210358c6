"""Checkpoints: the whole state of a fit in one file.

The format is safetensors (arrays and text, nothing that could be executed): the tensors of a nested state, and the rest
of it, with the fingerprint of the fit, as JSON in the header.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dip import storage
from dip.errors import positive_int, shown

FORMAT = 5
HASHED = "sha256 "
"""With which a text of a fingerprint begins that is the hash of one."""
# what is compared by a hash or by numbers that tell nobody anything
_CONTENTS = {
    "image": "another image (or mask, or weights)",
    "z": "another code",
    "response": "another forward operator",
    "digest": "other pictures",
}


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or belongs to another fit."""


class Saved:
    """What is kept by its own `save` and `load`, and not by a pickle, which would hold whatever the user gave."""

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled; write its state with fit.save(path), and read it "
            "into another that is made alike: dip.Fit(task, ...).load(path). What came of it is fit.image"
        )


def save(path: str | os.PathLike[str], state: dict[str, Any], fingerprint: dict[str, Any]) -> Path:
    """Write a checkpoint, whole or not at all.

    A process that is killed at any moment leaves the earlier checkpoint or the new one (`dip.storage.write_bytes`).

    Parameters
    ----------
    path : path
        The file; one that exists is replaced.
    state : dict
        Nested dicts and lists of tensors, numbers, strings, booleans and None.
    fingerprint : dict
        What `load` is to compare, of plain JSON types.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    from safetensors.torch import save as to_bytes

    tensors: dict[str, Tensor] = {}
    header = {"format": FORMAT, "fingerprint": fingerprint, "state": _pack(state, "", tensors)}
    header["content"] = _content(header, tensors)
    data = to_bytes(tensors, metadata={"dip": json.dumps(header)})
    return storage.write_bytes(path, data)


def load(
    path: str | os.PathLike[str],
    fingerprint: dict[str, Any],
    *,
    of: str = "fit",
    same: str = "image",
) -> dict[str, Any]:
    """Read a checkpoint back.

    Parameters
    ----------
    path : path
        The file.
    fingerprint : dict
        What the file's has to be equal to, but for the name of the preset.
    of, same : str
        What the messages call that which is resumed, and what it works on.

    Returns
    -------
    dict
        The state as it was saved, tensors on the CPU.

    Raises
    ------
    CheckpointError
        The file is damaged, no checkpoint, of another format version, or from a fit of another image, network, task or
        setting; the message says what differs.
    FileNotFoundError
        There is no such file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {str(path)!r}; without resume= a {of} starts anew")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if "dip" not in metadata:
            raise CheckpointError(f"{str(path)!r} is a safetensors file, but not a checkpoint of dip")
        header = json.loads(metadata["dip"])
        if header["format"] != FORMAT:
            raise CheckpointError(
                f"{str(path)!r} has checkpoint format {header['format']}, this version of dip reads {FORMAT}; resume "
                f"it with the version that wrote it (dip {header['fingerprint'].get('dip', 'unknown')})"
            )
        if header.pop("content") != _content(header, tensors):
            raise CheckpointError(f"{str(path)!r} is damaged: it is not what was written; take an earlier copy")
        saved = header["fingerprint"]
        state = _unpack(header["state"], tensors)
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{str(path)!r} is not a readable checkpoint ({str(error).splitlines()[0] if str(error) else error!r}); "
            "give the file that checkpoint= wrote"
        ) from error
    here = json.loads(json.dumps(fingerprint))
    presets = [part.pop("preset", None) for part in (saved, here)]  # whose values may be given one by one, too
    differences = list(_differences(saved, here))
    for what, *both in (("shape", saved.get("shape"), here.get("shape")), ("preset", *presets)):
        if differences and None not in both and both[0] != both[1]:
            differences = [_difference(what, *both)]  # which is behind most of them
            break
    if differences:
        raise CheckpointError(
            f"{str(path)!r} belongs to another {of}; " + "; ".join(differences) + ". "
            f"Resume with the same {same} and settings, or start anew without resume="
        )
    return state


def check_free(checkpoint: Any, resume: Any = None) -> None:
    """Refuse to write a checkpoint over a file that is not resumed from.

    Raises
    ------
    TypeError
        It is no path.
    FileExistsError
        The file exists.
    """
    if checkpoint is not None and _as_path(checkpoint).exists() and not storage.same(checkpoint, resume):
        raise FileExistsError(
            f"checkpoint={str(checkpoint)!r} exists and may be hours of work; give resume={str(checkpoint)!r} to go on "
            "from it, or another name, or delete it"
        )


def _as_path(checkpoint: Any) -> Path:
    if not isinstance(checkpoint, (str, os.PathLike)):
        raise TypeError(f"checkpoint={shown(checkpoint)}: give the path of a file")
    return Path(checkpoint)


def place(path: Any, every: Any) -> tuple[Path | None, int]:
    """Check where checkpoints are to be written, and after how many iterations; return both.

    Raises
    ------
    TypeError, ValueError
        They are no path and no count, or there is a count alone.
    OSError
        Nothing can be written there.
    """
    if path is None:
        if every is not None:
            raise ValueError("checkpoint_every= means nothing without checkpoint=FILE")
        return None, 100
    path = _as_path(path)
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"checkpoint={str(path)!r}: there is no folder {path.parent}; create it first")
    if path.is_dir():
        raise IsADirectoryError(f"checkpoint={str(path)!r} is a folder; give the name of a file")
    storage.check_place(path, f"checkpoint={str(path)!r}")
    return path, positive_int(100 if every is None else every, "checkpoint_every")


def digest(*parts: Tensor | str | None) -> str:
    """Return a short hash of tensors (values, shape and dtype) and strings."""
    hasher = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            hasher.update(f"{part.dtype}{tuple(part.shape)}".encode())
            hasher.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            hasher.update(repr(part).encode())
    return hasher.hexdigest()[:16]


def _content(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    return digest(json.dumps(header), *(part for name in sorted(tensors) for part in (name, tensors[name])))


def _agree(key: str, saved: Any, here: Any) -> bool:
    """Whether a part of two fingerprints is the same; an operator's response is computed, and so only about that."""
    if key == "response" and saved and here and len(saved) == len(here):
        return all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3) for a, b in zip(saved, here, strict=True))
    return bool(saved == here)


def _differences(saved: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    """Say of two fingerprints what differs; of the parts that are such themselves, what does in them."""
    for key in {**saved, **here}:
        one, other = saved.get(key), here.get(key)
        if key == "own":  # of which either side may have less (`dip.likeness`), and an earlier file nothing
            both = sorted({*(one or {})} & {*(other or {})})
            one, other = ({name: part[name] for name in both} for part in (one or {}, other or {}))
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other)
        elif not _agree(key, one, other):
            yield _CONTENTS[key] if key in _CONTENTS else _difference(key, one, other)


def _difference(key: str, saved: Any, here: Any) -> str:
    """Say what differs; of texts of many lines the first line that does."""
    if isinstance(saved, str) and isinstance(here, str):
        if HASHED in (saved[: len(HASHED)], here[: len(HASHED)]):
            return f"other {key}"
        lines = zip(saved.splitlines(), here.splitlines(), strict=False)
        saved, here = next(((a.strip(), b.strip()) for a, b in lines if a != b), (saved, here))
    return f"{key}: {_brief(saved)} in the file, {_brief(here)} here"


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else text[:157] + "..."


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Put the tensors of a nested state into `tensors` and return the rest, with their names in their places."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_pack(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__} (at {name})")


def _unpack(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in content}
    if kind == "list":
        return [_unpack(item, tensors) for item in content]
    return content
