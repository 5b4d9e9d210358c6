"""Runs the scripts of benchmarks/, each as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def run(script: str, *words: object) -> str:
    """Run a script with these words, and return what it prints."""
    command = [sys.executable, BENCHMARKS / script, *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
