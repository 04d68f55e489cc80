"""The PyTorch peers: a client of `torch_loops.py`, which runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from benchmarks.timing import Seconds

LOOPS = Path(__file__).with_name("torch_loops.py")


class NoTorch(RuntimeError):
    """There is no torch to run; the message says so."""


class Torch:
    """A process that runs the loops: by the interpreter TORCH_PYTHON, or else by this one. Use it in a `with`."""

    def __init__(self):
        command = [os.environ.get("TORCH_PYTHON", sys.executable), LOOPS, jax.default_backend()]
        # Threads that soon go to sleep at a barrier; spinning on, they slow a busy machine's loops a hundredfold.
        environment = {"GOMP_SPINCOUNT": "10000"} | os.environ
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        self._process: Any = subprocess.Popen(
            command, env=environment, stdin=pipe, stdout=pipe, stderr=nowhere, text=True
        )
        try:
            self.version = self.ask("version")["result"]
        except (BrokenPipeError, ValueError):
            self._process.communicate()
            raise NoTorch("no torch here for this platform; TORCH_PYTHON may name an interpreter that has it") from None

    def ask(self, task: str, **arguments: Any) -> dict[str, Any]:
        """{"seconds": of the loop alone, "result": ...}; arrays go as nested lists."""
        print(json.dumps({"task": task, **arguments}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Torch:
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.communicate()


def scaled(torch: Torch, share: int, task: str, **arguments: Any) -> Seconds:
    """The seconds that `share` times the steps would take."""
    return Seconds(share * torch.ask(task, **arguments)["seconds"])
