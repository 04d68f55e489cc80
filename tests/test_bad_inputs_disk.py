"""Disk, processes and the environment: an error before the hours of computing, and the same results everywhere."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np, jaxfit as jf
x = np.linspace(0, 1, 8)
data = x, 2 * x + 1
loss = jf.losses.mse(jf.models.line) + jf.losses.l2(1e-3)
found = jf.fit(loss, {"w": 1.0, "b": 0.0}, data, optimizer=jf.optimizers.adam(0.1), steps=20,
               batches=jf.Batches(size=3), key=1, precision="float64")
grid = jf.sweep(loss, {"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0}, data, steps=20,
                optimizer=jf.Axis("opt", [jf.optimizers.sgd(0.1), jf.optimizers.adam(0.1)], ["sgd", "adam"]))
print(found)
print(found.params["w"].tobytes().hex(), grid.results.loss.values.tobytes().hex(), grid.results.status.dims)
"""


@pytest.mark.soak
def test_results_do_not_depend_on_flags_hash_seed_locale_display_or_matplotlib(capsys):
    exec(PROGRAM, {})
    expected = capsys.readouterr().out
    without = "import sys; sys.modules['matplotlib'] = None"
    known = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")}
    odd = {"PYTHONHASHSEED": "12345", "LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Kathmandu"}
    command = [sys.executable, "-W", "error", "-O", "-c", without + PROGRAM]
    done = subprocess.run(command, env=known | odd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected and "float64" in expected
