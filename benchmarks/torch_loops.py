"""What an expert writes by hand in PyTorch, run by an interpreter that has torch: `python torch_loops.py [gpu]`.

Answers one request a line with the seconds that a loop took and its result, both as JSON. The loop begins with tensors
on the device and ends with its result on the host. Nothing of jaxfit is imported: the two share no threads.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch  # pyright: ignore[reportMissingImports]


def line_eager(x: list, y: list, start: list, rate: float, steps: int) -> tuple[float, list]:
    """The usual loop: the losses of all steps are kept as tensors and read once at the end."""
    torch.set_num_threads(1)  # no operation here is large enough for a second
    x, y = torch.tensor(x), torch.tensor(y)
    w, b = (torch.tensor(v, requires_grad=True) for v in start)
    losses = []
    begin = time.perf_counter()
    for _ in range(steps):
        loss = ((w * x + b - y) ** 2).mean()
        dw, db = torch.autograd.grad(loss, (w, b))
        with torch.no_grad():
            w -= rate * dw
            b -= rate * db
        losses.append(loss.detach())
    kept = torch.stack(losses).cpu()
    return time.perf_counter() - begin, kept.tolist()


def line_vmap(x: list, y: list, w: list, b: list, rates: list, steps: int) -> tuple[float, list]:
    """torch.func.vmap over the lanes of a line."""
    x, y, rates = torch.tensor(x), torch.tensor(y), torch.tensor(rates)

    def loss(params, x, y):
        return ((params["w"] * x + params["b"] - y) ** 2).mean()

    return _descend_vmap(loss, {"w": torch.tensor(w), "b": torch.tensor(b)}, {"w": rates, "b": rates}, (x, y), steps)


def net_vmap(x: list, y: list, start: dict, rates: dict, steps: int) -> tuple[float, list]:
    """torch.func.vmap over the lanes of a two-layer tanh net without biases."""
    x, y = torch.tensor(x), torch.tensor(y)
    rates = {name: torch.tensor(value) for name, value in rates.items()}
    lanes = len(rates["hidden"])
    params = {name: torch.stack([torch.tensor(value)] * lanes) for name, value in start.items()}

    def loss(params, x, y):
        hidden = torch.tanh(2**0.5 * (x @ params["hidden"]) / x.shape[-1] ** 0.5)
        return ((hidden @ params["output"] / hidden.shape[-1] ** 0.5 - y) ** 2).mean()

    return _descend_vmap(loss, params, rates, (x, y), steps)


def _descend_vmap(loss: Any, params: dict, rates: dict, data: tuple, steps: int) -> tuple[float, list]:
    shared = (0,) + (None,) * len(data)
    slope = torch.func.vmap(torch.func.grad(loss), in_dims=shared)
    rates = {name: rate.reshape(-1, *[1] * (params[name].ndim - 1)) for name, rate in rates.items()}
    begin = time.perf_counter()
    with torch.no_grad():
        for _ in range(steps):
            grads = slope(params, *data)
            for name, value in params.items():
                value.sub_(rates[name] * grads[name])
        end = torch.func.vmap(loss, in_dims=shared)(params, *data).cpu()
    return time.perf_counter() - begin, end.tolist()


def version() -> tuple[float, str]:
    return 0.0, torch.__version__


TASKS = {task.__name__: task for task in (line_eager, line_vmap, net_vmap, version)}


def main() -> None:
    if "gpu" in sys.argv[1:]:
        torch.set_default_device("cuda")
    for request in sys.stdin:
        arguments = json.loads(request)
        seconds, result = TASKS[arguments.pop("task")](**arguments)
        print(json.dumps({"seconds": seconds, "result": result}), flush=True)


if __name__ == "__main__":
    main()
