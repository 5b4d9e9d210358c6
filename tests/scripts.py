"""Runs the scripts of benchmarks/."""

from __future__ import annotations

import contextlib
import io
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def run(script: str, *words: object) -> str:
    """Run a script with these words in this process, which has PyTorch already, and return what it prints."""
    arguments = [str(BENCHMARKS / script), *map(str, words)]
    with (
        mock.patch.object(sys, "argv", arguments),
        mock.patch.object(sys, "path", [str(BENCHMARKS), *sys.path]),
        contextlib.redirect_stdout(io.StringIO()) as printed,
    ):
        runpy.run_path(arguments[0], run_name="__main__")
    return printed.getvalue()


def run_apart(script: str, *words: object) -> str:
    """Run one that measures the memory of its process, in one of its own, and return what it prints."""
    command = [sys.executable, BENCHMARKS / script, *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
