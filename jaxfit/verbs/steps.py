"""A single update of a run: `step`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.engine.compiling import compiled
from jaxfit.engine.loops import method_of, objective_of, step_key
from jaxfit.engine.single import prepare
from jaxfit.engine.tracing import check_alive
from jaxfit.problems.axes import is_traced
from jaxfit.problems.checks.posing import as_params, pose, refuse_axes
from jaxfit.problems.enclosed import resolved
from jaxfit.problems.marks import free, put
from jaxfit.problems.messages import near_keywords, path_name
from jaxfit.problems.problems import Record, Stop, Training, chosen_precision, convert_all, precision_context
from jaxfit.typing import KeyLike, OptimizerLike, PyTree, Scalar
from jaxfit.verbs.fits import traced_precision


class Step(tuple):
    """The result of one update: `params, value, grads = step(...)`; `opt_state` is passed to the next call."""

    opt_state: PyTree

    def __new__(cls, params: PyTree, value: Scalar, grads: PyTree, opt_state: PyTree):
        new = super().__new__(cls, (params, value, grads))
        new.opt_state = opt_state
        return new

    params = property(lambda self: self[0])
    value = property(lambda self: self[1])
    grads = property(lambda self: self[2])


@near_keywords
def step(
    loss: Callable,
    params: PyTree,
    data: tuple = (),
    *,
    optimizer: OptimizerLike,
    opt_state: PyTree = None,
    key: KeyLike | None = None,
    precision: str | None = None,
) -> Step:
    """Make one update and return the new params, the loss and the gradient.

    Use it for teaching, in tests, and in training loops of your own.

    Args:
      loss, params, data, optimizer, key, precision: As for `fit`.
      opt_state: The optimizer's state from the step before (`step(...).opt_state`); None makes a new one.

    Returns:
      (params after the update, loss before it, gradient before it), with the attribute `.opt_state`. Marks such as
      `Fixed` stay in the params, ready for the next step; the gradient is by the free params.

    Raises:
      ValueError, TypeError: As `fit`; also for an `opt_state` of another tree or shape.

    Example:
      >>> params, value, grads = jf.step(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(0.25))
      >>> float(params), float(value), float(grads)
      (1.5, 9.0, 6.0)
    """
    precision = chosen_precision(precision, params, data, optimizer=optimizer)
    training = pose(
        loss, params, data, optimizer=optimizer, steps=1, stop=Stop(), record=Record(), batches=None, key=key,
        validation=None, precision=precision,
    )  # fmt: skip
    refuse_axes("step", training)
    if is_traced(jax.tree.leaves((training, opt_state))):
        check_alive(training)
        return Step(*_step(convert_all(training, traced_precision(precision)), opt_state))
    with precision_context(precision):
        training = training.at(as_params(resolved(training.problem.params, precision), precision=precision))
        programs, leaves = prepare(training, precision)
        if programs.captured:
            return Step(*_step(programs.training(leaves), opt_state))
        found = _step_program(programs.training)(leaves, opt_state)
        return Step(*jax.tree.map(np.asarray if precision == "float64" else lambda x: x, found))


@functools.lru_cache(maxsize=64)
def _step_program(ask: Callable) -> Callable:
    return compiled(lambda leaves, opt_state: _step(ask(leaves), opt_state))


def _step(training: Training, opt_state: PyTree) -> tuple[PyTree, Scalar, PyTree, PyTree]:
    problem, method = training.problem, method_of(training.optimizer)
    objective = objective_of(problem, problem.data, step_key(problem, jnp.int32(0)))
    params = free(problem.params)
    if opt_state is None:
        opt_state = method.init(objective, params)
    else:
        _check_opt_state(opt_state, jax.eval_shape(lambda p: method.init(objective, p), params))
    found = method.step(objective, params, opt_state)
    after = put(problem.params, found.params)
    return after, found.loss, found.grads, found.memory


def _check_opt_state(opt_state: PyTree, fresh: PyTree) -> None:
    if jax.tree.structure(opt_state) != jax.tree.structure(fresh):
        raise ValueError(
            f"opt_state has the leaves {_leaf_names(opt_state)}, but these params and this optimizer need "
            f"{_leaf_names(fresh)}; pass the .opt_state of the step before, or None to start afresh"
        )
    for (path, have), want in zip(jax.tree_util.tree_leaves_with_path(opt_state), jax.tree.leaves(fresh), strict=True):
        if jnp.shape(have) != want.shape:
            raise ValueError(
                f"{path_name('opt_state', path)} has shape {jnp.shape(have)}, but these params need {want.shape}; "
                f"pass the .opt_state of the step before, or None to start afresh"
            )


def _leaf_names(tree: PyTree) -> str:
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return ", ".join(names[:4] + ["..."] * (len(names) > 4)) or "of an empty tree"
