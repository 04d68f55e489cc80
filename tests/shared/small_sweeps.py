"""A sweep small enough to be stopped, broken and repeated many times."""

from pathlib import Path

import jaxfit as jf

T_U, T_C = jf.datasets.thermometer()
LOSS = jf.losses.mse(jf.models.line)
STARTS, RATES = [-2.0, 0.0, 1.0, 2.0, 3.0], [1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1]


def arguments(starts=STARTS, rates=RATES, **keywords):
    """35 lanes in 9 blocks."""
    start = {"w": jf.Axis("w0", starts), "b": 0.0}
    optimizer = jf.optimizers.sgd(jf.Axis("rate", rates))
    return {"loss": LOSS, "params": start, "data": (0.1 * T_U, T_C), "optimizer": optimizer} | (
        {"steps": 30, "slots": 4, "stop": jf.Stop(gradient_norm_below=50.0), "record": jf.Record(every=10)} | keywords
    )


def run(store=None, *, executor=None, rerun=None, rerun_of=None, **keywords):
    how = {"executor": executor, "rerun": rerun, "rerun_of": rerun_of}
    return jf.sweep(**arguments(**keywords), store=store, **{k: v for k, v in how.items() if v is not None})


def same(a, b):
    assert list(a.data_vars) == list(b.data_vars)
    for name in a.variables:
        x, y = a[name].values, b[name].values
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes(), name


def contents(folder) -> dict[str, bytes]:
    """The files of a store by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()
    }


def blocks(folder) -> list[Path]:
    return sorted(Path(folder, "blocks").glob("*.safetensors"))
