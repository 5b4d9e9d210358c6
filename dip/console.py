"""What the command line says: results on stdout; warnings and errors on stderr, one line each."""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TextIO

from dip.settings import Options
from dip.trained import Recipe

__all__ = ["Console", "one_line"]

# Messages of the package name options as Python does; here they are those of the command line.
_OTHERS = ("iters", "resume", "data_range", "earliest", "kernel_sigma", "backend")
_NAMES = "|".join([*Options.__annotations__, *_OTHERS, *Recipe.__annotations__])
_CALL = r"[A-Za-z_]\w*\([^()]*\)"  # as in Denoised(noise=8): stays as it is
# Names of files may look the same: lr=0.01,width=4/metrics.json, seed=3.png.
_FILE = r"[^\s\"'()]*(?:[/\\]|\.(?:png|tiff?|jpe?g|npy|json|safetensors)\b)"
_OPTION = re.compile(rf"{_CALL}|(?<![\w/\\.,'-])({_NAMES})=(?!{_FILE})(?:\"([\w.:-]+)\"|'([\w.:-]+)'| )?")
_SWITCH = re.compile(r"(?<![\w/\\.,'-])(force|resume|clip|early_stopping)=True(?: \(--[a-z-]+\))?")
_RANGE = re.compile(r"data_range=\(([\w.-]+), ([\w.-]+)\)")
_CHANNELS = re.compile(r'network=\{"down": \[(\d+)\] \* (\d), "up": \[\d+\] \* \d\}')
_NETWORK = re.compile(r'network=\{"name": "([a-z-]+)", "channels": \[(\d+)\] \* (\d)\}')
_WORDS = {
    "code=dip.codes.Image(picture)": "--code-image FILE",
    "; raise max_pixels if you trust the file": "; make it smaller, or restore a crop of it",
    "(False) in the mask of dip.denoise or dip.inpaint": "(black) in the --mask",
    "dip.noise.PoissonGaussian(gain, sigma)": "--gain and --read-noise",
    'the file that it was read from (jpeg="in.jpg", which EXIF may say to turn), or say of which quality (jpeg=75)': (
        "the JPEG itself as IN, or say of which quality it was (--quality 75)"
    ),
    "take a smaller sigma": "take a smaller --psf-sigma",
}
_NUMBERS = re.compile(r"\d[\d.,e+%-]*")
_DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image"}


class Console:
    """Where the messages of one command go.

    Parameters
    ----------
    quiet : bool
        Say nothing but warnings and errors.
    traceback : bool
        Show the traceback of an error before its line.
    """

    def __init__(self, *, quiet: bool = False, traceback: bool = False) -> None:
        self.quiet = quiet
        self._traceback = traceback
        self._named: Callable[[str], str] = str
        self._warned: Counter[str] | None = None

    def say(self, text: str) -> None:
        """Print a result or a step, unless quiet."""
        if not self.quiet:
            _write(self._named(text), sys.stdout)

    def warn(self, text: object) -> None:
        """Print one line about something that went wrong and was dealt with."""
        line = self._named(one_line(text))
        if self._warned is not None:
            alike = _NUMBERS.sub("", line)
            self._warned[alike] += 1
            if self._warned[alike] > 1:
                return
        _write(f"dip: warning: {line}", sys.stderr)

    def error(self, error: object, *, about: str = "", trace: str = "") -> None:
        """Print one line about what could not be done; `about` says to which picture, `trace` where, in a worker."""
        if self._traceback and isinstance(error, BaseException):
            traceback.print_exception(error, file=sys.stderr)
        elif self._traceback and trace:
            sys.stderr.write(trace)
        line = f"{about}{': ' if about else ''}{one_line(error)}"
        _write(f"dip: error: {self._named(line)}", sys.stderr)

    @contextlib.contextmanager
    def alike(self, named: Callable[[str], str]) -> Iterator[None]:
        """Pass all lines through `named`, and of warnings that differ in numbers only show the first."""
        self._named, self._warned = named, Counter()
        try:
            yield
        finally:
            left = self._warned.total() - len(self._warned)
            self._named, self._warned = str, None
            if left:
                self.warn(f"{left} more like {'these' if left > 1 else 'this'}, of other pages, not shown")

    @contextlib.contextmanager
    def warnings(self) -> Iterator[None]:
        """Show warnings as lines, for as long as the command runs."""

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            self.warn(message)

        with warnings.catch_warnings():
            warnings.simplefilter("always", RuntimeWarning)
            warnings.showwarning = show
            yield


def one_line(message: object) -> str:
    """Return a message or an error on one line, in the words of the command line.

    Parameters
    ----------
    message : object
        Text, warning or exception.

    Returns
    -------
    str
        Without line breaks; options of `dip.fit` appear as those of the command.

    Examples
    --------
    >>> one_line(ValueError("take a lower learning rate (lr=...)"))
    'take a lower learning rate (--lr ...)'
    """
    if isinstance(message, ModuleNotFoundError) and message.name:
        name = message.name.partition(".")[0]
        return f"the package {name} is missing; pip install {_DISTRIBUTIONS.get(name, name)}"
    text = " ".join(str(message).split())
    if isinstance(message, OSError) and message.strerror and not message.filename2:
        text = f"{message.filename}: {message.strerror}" if message.filename else message.strerror
    if not text:
        text = type(message).__name__
    text = _SWITCH.sub(lambda found: f"--{found[1].replace('_', '-')}", text)
    text = _CHANNELS.sub(lambda found: f"--down {found[1]}x{found[2]}", text)
    text = _NETWORK.sub(lambda found: f"--network {found[1]} --channels {found[2]}x{found[3]}", text)
    text = _RANGE.sub(r"--data-range=\1,\2", text)
    for ours, theirs in _WORDS.items():
        text = text.replace(ours, theirs)
    return _OPTION.sub(_as_option, text).rstrip()


def _as_option(found: re.Match[str]) -> str:
    return found[0] if found[1] is None else f"--{found[1].replace('_', '-')} {found[2] or found[3] or ''}"


def _write(text: str, stream: TextIO) -> None:
    """Print above a progress bar, if there is one; characters that the stream lacks are escaped."""
    from tqdm import tqdm

    encoding = getattr(stream, "encoding", None) or "utf-8"
    tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)
    stream.flush()
