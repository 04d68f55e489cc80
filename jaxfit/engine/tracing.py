"""Check a loss by tracing it, before anything compiles: its shape, purity, what it captured, which params cannot move.

Errors that JAX explains at length become one sentence about the user's own line.
"""

from __future__ import annotations

import inspect
import os
import re
import traceback
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.engine.jaxprs import depends, difference, operations, run
from jaxfit.losses import Loss, takes_key
from jaxfit.losses.base import is_stateful
from jaxfit.problems import Problem, Training, name_of
from jaxfit.problems.axes import is_key
from jaxfit.problems.enclosed import enclosed_in_precision
from jaxfit.problems.marks import carried_after, free, holds_carried, is_kept, is_marked, plain, put
from jaxfit.problems.messages import line_of, no_names_there, no_one_number, nothing_there, path_name, users_line, warn
from jaxfit.typing import PyTree

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr

Structure: TypeAlias = Hashable  # of a tree: jax.tree_util.PyTreeDef
ALIKE = ("add", "sub", "mul", "div", "max", "min")  # operations whose operands must have one dtype


def inspect_training(training: Training) -> bool:
    """Trace the loss of one lane; refuse one that cannot be trained, and warn of leaves that cannot move.

    Returns:
      Whether the loss captured a tracer of a trace that is still going on.

    Raises:
      TypeError: If the loss is not scalar, not floating, not pure, or cannot be traced (naming the line); or what is
        recorded is not scalar.
      ValueError: If shapes do not fit, or it captured a tracer of a trace that has ended.
    """
    problem, traits = training.problem, training.optimizer.traits
    _check_state(problem)
    captured = inspect_loss(problem, differentiated=traits.differentiates, forward=traits.residuals)
    params, users = _free_and_whole(problem.params)
    if training.validation is not None:
        key = problem.key if takes_key(problem.loss) else None
        call, numbers = _call_of(problem.loss, users)
        _check_signature(problem.loss, training.validation, "validation")
        _, result = traced(call, (params, training.validation, key, numbers), "validation")
        _check_scalar("validation: the loss", result)
    for item in filter(callable, training.record.what):
        name = f"record: {name_of(item)}"
        jaxpr, result = traced(lambda params, data, f=item: f(users(params), *data), (params, problem.data), name)
        _check_scalar(name, result, real=False)
        captured |= _captured(jaxpr, name)
    return captured


def _check_state(problem: Problem) -> None:
    """Refuse a state that no loss changes, and a loss that would change one where none is marked."""
    carries = holds_carried(problem.params)
    if carries and not is_stateful(problem.loss):
        raise TypeError(
            "params hold what is jf.Carried, but the loss returns no params after the step; let a function return "
            "(loss, params) and pass jf.losses.stateful(function), or hold the leaf with jf.Fixed"
        )
    if not carries and is_stateful(problem.loss):
        raise TypeError(
            f"{problem.loss} changes a state, but nothing in the params is marked as such; mark what it changes: "
            f"params | {{'stats': jf.Carried(stats)}}, or pass a function that returns its loss alone"
        )


def inspect_loss(problem: Problem, *, differentiated: bool = True, forward: bool = False) -> bool:
    """Trace the loss of one lane; refuse one that cannot be evaluated, and warn of leaves that cannot move.

    Args:
      problem: Of one lane.
      differentiated: Whether it will be; a loss that is only evaluated needs no gradient.
      forward: Whether only forward, so that a loop of unknown length will do.

    Returns:
      Whether the loss captured a tracer of a trace that is still going on.

    Raises:
      TypeError, ValueError: As `inspect_training`.
    """
    params, users = _free_and_whole(problem.params)
    key, loss = problem.key if takes_key(problem.loss) else None, problem.loss
    try:
        call, arguments, _, captured = inspect_value(loss, params, problem.data, key, users=users)
        if differentiated and is_stateful(loss):
            step = jax.tree_util.Partial(_of_step, loss, problem.params)
            call, arguments, _, more = inspect_value(step, params, problem.data, key, users=users)
            captured |= more
    except TypeError as error:
        if message := _no_number(error, problem.params):
            raise TypeError(message) from error
        raise
    if not captured and differentiated:
        _warn_unmoved(call, arguments, forward)
    return captured


def _of_step(loss: Loss, marked: PyTree, params: PyTree, *data: PyTree, key: Array | None = None) -> Array:
    """Return the loss of a step of a stateful loss, whose new state is checked."""
    value, after = loss.advance(params, *data, **({} if key is None else {"key": key}))
    carried_after(marked, after)
    return value


def _no_number(error: TypeError, marked: PyTree) -> str | None:
    """Return what the user's own line took for a number though it is none and so is kept."""
    cause = error.__cause__ or error
    for path, leaf in jax.tree_util.tree_leaves_with_path(marked, is_leaf=is_kept):
        if not is_kept(leaf) or isinstance(leaf.value, bool):
            continue
        text, kind = isinstance(leaf.value, str), "key<" if leaf.impl else f"{type(leaf.value).__name__}'"
        if kind in str(cause) or text and ("scalar index" in str(cause) or "number of a traced" in str(error)):
            what = "a PRNG key" if leaf.impl else f"the text {leaf.value!r}" if text else f"a {kind[:-1]}"
            return (
                f"{users_line(cause)} computes with {path_name('params', path)} as with a number, but it is {what}, "
                f"which stays as it is; give a number to fit, or leave it out of the arithmetic"
            )
    return None


def _free_and_whole(marked: PyTree) -> tuple[PyTree, Callable]:
    """Return the free params, and the function that makes the user's whole tree of them."""
    if not is_marked(marked):
        return marked, lambda params: params
    values, marks = jax.tree.flatten(marked)
    return free(marked), lambda params: plain(put(jax.tree.unflatten(marks, [_blank(x) for x in values]), params))


def inspect_value(
    loss: Callable,
    params: PyTree,
    data: tuple,
    key: Array | None,
    name: str = "data",
    users: Callable = lambda params: params,
) -> tuple[Callable, tuple, ClosedJaxpr, bool]:
    """Trace a loss; refuse one that is not a pure function with a scalar, floating result.

    `users` makes of params the tree that the loss takes.

    Returns:
      The loss as a function of (params, data, key, its own numbers), these arguments, its jaxpr, and whether it
      captured a tracer of a trace that is still going on.
    """
    call, numbers = _call_of(loss, users)
    arguments = (params, data, key, numbers)
    _check_signature(loss, data, name)
    jaxpr, result = traced(call, arguments, name)
    _check_scalar("the loss" if name == "data" else f"{name}: the loss", result)
    captured = _captured(jaxpr, "the loss")
    if not captured:
        _check_pure(call, arguments, jaxpr)
    return call, arguments, jaxpr, captured


def _call_of(loss: Callable, users: Callable) -> tuple[Callable, list]:
    """Return the loss as a function of (params, data, key, its own numbers), and these numbers."""
    numbers, program = jax.tree.flatten(loss)

    def call(params, data, key, numbers):
        return jax.tree.unflatten(program, numbers)(users(params), *data, **({} if key is None else {"key": key}))

    return call, numbers


def check_silent(jaxpr: ClosedJaxpr, verb: str) -> None:
    """Refuse a program that does something beside computing its result."""
    for operation in operations(jaxpr):
        if operation.has_effects:
            raise TypeError(
                f"{line_of(operation.traceback)} has a side effect ({operation.name}), which {verb} would run once "
                f"more for every look; take it out: every value stands on an edge of the graph"
            )


def _blank(x: Array) -> Array:
    return x if isinstance(x, jax.core.Tracer) else jnp.ones(x.shape, x.dtype)


def check_alive(problem: PyTree) -> None:
    """Refuse leaves that leaked out of a trace that has ended."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(problem):
        if isinstance(leaf, jax.core.Tracer):
            name = jax.tree_util.keystr(path).replace("..", ".").removeprefix(".")
            _check_alive(leaf, f"{name} is")


def trace(function: Callable, *args: PyTree) -> tuple[ClosedJaxpr, PyTree]:
    """Return the program of a function of pytrees, and the shape of its result.

    JAX keeps the structures of the arguments that it traces with: for a problem that is its loss and all that it closes
    over. So JAX gets to see leaves only.
    """
    leaves, structure = jax.tree.flatten(args)
    results = []

    def flat(leaves):
        result, tree = jax.tree.flatten(function(*jax.tree.unflatten(structure, leaves)))
        results.append(tree)
        return result

    try:
        with enclosed_in_precision(function, structure):
            jaxpr, shapes = jax.make_jaxpr(flat, return_shape=True)(leaves)
    except Exception as error:
        if isinstance(error, TypeError) and "to have the same dtypes" in str(error):
            raise TypeError(_mixed(users_line(error))) from error
        if why := undifferentiable(error):
            raise TypeError(why) from error
        raise
    return jaxpr, jax.tree.unflatten(results[-1], shapes)


def program_of(function: Callable, *args: PyTree) -> tuple[ClosedJaxpr, PyTree]:
    """Return a program and the shape of its result; enclosed arrays take the precision of the run."""
    with enclosed_in_precision(function, jax.tree.structure(args)):
        return jax.make_jaxpr(function, return_shape=True)(*args)


def program_of_steps(function: Callable, *args: PyTree) -> tuple[ClosedJaxpr, PyTree, bool]:
    """Return the program of a function that runs an optimizer, the shape of its result, whether it captured a tracer.

    Raises:
      TypeError: If the optimizer's factory decides by a number, which then has to be a part of the program.
      ValueError: If the optimizer, or what is recorded, captured a tracer of a trace that has ended.
    """
    try:
        jaxpr, shape = trace(function, *args)
    except jax.errors.TracerBoolConversionError as error:
        raise TypeError(
            f"the optimizer's factory decides by the value of a hyperparameter, whose floats are traced "
            f"({str(error).splitlines()[0]}); bind that one outside: "
            f"jf.optimizer(functools.partial(factory, name=value), ...)"
        ) from error
    except jax.errors.UnexpectedTracerError as error:
        raise ValueError(_leaked("the optimizer uses")) from error
    return jaxpr, shape, _captured(jaxpr, "the optimizer")


def _check_signature(loss: Callable, data: tuple, name: str) -> None:
    try:
        parameters = [p for p in inspect.signature(loss).parameters.values() if p.name != "key"]
    except (TypeError, ValueError):
        return
    takes = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    least = sum(p.default is p.empty for p in takes)
    most = np.inf if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(takes)
    if not least <= 1 + len(data) <= most:
        raise TypeError(
            f"the loss takes ({', '.join(p.name for p in takes)}), but {name} has {len(data)} "
            f"item{'s' * (len(data) != 1)}; {name} is the tuple handed to the loss after params (a model becomes a "
            f"loss by jf.losses.mse(model))"
        )


def traced(call: Callable, arguments: tuple, name: str = "data") -> tuple[ClosedJaxpr, PyTree]:
    """Return the program of a call and the shape of its result; `name` says in messages what the call is about."""
    try:
        jaxpr, result = program_of(call, *arguments)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            f"{users_line(error)} hands a traced value to NumPy, which cannot be differentiated or compiled; "
            f"use jax.numpy there (jnp.sin instead of np.sin)"
        ) from error
    except jax.errors.TracerBoolConversionError as error:
        raise TypeError(
            f"{users_line(error)} decides by a traced value, whose number is not known yet; "
            f"use jnp.where(condition, a, b) instead of `if`, `and`, `or`, `min` or `max`"
        ) from error
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError) as error:
        raise TypeError(_needs_number(users_line(error))) from error
    except jax.errors.UnexpectedTracerError as error:
        raise ValueError(_leaked(f"{users_line(error)} uses")) from error
    except KeyError as error:
        paths = jax.tree_util.tree_leaves_with_path(arguments[0], is_leaf=lambda x: x is None)
        names = [jax.tree_util.keystr(path, simple=True, separator=".") or "params" for path, _ in paths]
        raise ValueError(nothing_there(error, names)) from error
    except (TypeError, ValueError) as error:
        if "not a valid JAX type" in str(error):
            who = "the loss" if name == "data" else name
            what = str(error).partition(" returned ")[2].partition(", which is ")[0]
            what = re.sub(r"value of type <class '(.*?)'>", r"\1", re.sub(r" at output component \w*", " at ", what))
            what = what.removesuffix(" at ")
            raise TypeError(f"{who} returned what is no number or array: {what}") from error
        if "scalar index" in str(error):  # a traced float in range() or as an index
            raise TypeError(_needs_number(users_line(error))) from error
        data = jax.tree_util.tree_leaves_with_path(arguments[1:2])
        lengths = {path_name(name, path[1:]): x.shape for path, x in data if x.shape}
        if len({shape[0] for shape in lengths.values()}) > 1 and "shape" in str(error):
            raise ValueError(
                f"{name} differ in length, and the loss cannot combine them: "
                f"{', '.join(f'{label} has shape {shape}' for label, shape in lengths.items())}; give every array one "
                f"entry per data point ({str(error).splitlines()[0]})"
            ) from error
        if isinstance(error, TypeError) and (message := no_names_there(error, arguments[0])):
            raise TypeError(message) from error
        if isinstance(error, TypeError) and (message := no_one_number(error, arguments[0])):
            raise TypeError(message) from error
        frame = traceback.extract_tb(error.__traceback__)[-1].filename
        if "must be Tensor" in str(error) or f"{os.sep}torch{os.sep}" in frame:
            raise TypeError(
                f"{users_line(error)} hands a traced value to PyTorch, which JAX cannot differentiate or compile; "
                f"write it with jax.numpy (jnp.mean instead of torch.mean)"
            ) from error
        if name == "validation":
            raise (ValueError if isinstance(error, ValueError) else TypeError)(f"validation: {error}") from error
        raise
    except Exception as error:
        if "different trace level" in str(error):  # what Flax says of a state that is not the function's own
            raise TypeError(_keeps_state(error)) from error
        raise
    for operation in operations(jaxpr):
        if operation.name in ALIKE and len({value.dtype for value in operation.operands}) > 1:
            raise TypeError(_mixed(line_of(operation.traceback)))
    return jaxpr, result


def _mixed(where: str) -> str:
    return (
        f"{where} combines float32 with float64: one of them is an array from outside of its arguments, which cannot "
        f"be found in its closures and globals to be given the precision of the run; pass that array as data"
    )


BACKWARD = ("Reverse-mode differentiation does not work", "Transpose rule", "transpose rule")
FORWARD = ("apply forward-mode", "do not support JVP", "No JVP defined", "Differentiation rule")


def undifferentiable(error: Exception) -> str | None:
    """Return why a program has no derivative, and what to do, if an error of JAX says so; else None."""
    said = str(error)
    if any(words in said for words in BACKWARD):
        return (
            f"{users_line(error)} cannot be differentiated backward (a lax.while_loop, a fori_loop of unknown length, "
            f"or a solver made of one, such as diffrax with adjoint=diffrax.ForwardMode()); make the loop a "
            f"jax.lax.scan of a fixed number of steps, or, to fit residuals, use jf.optimizers.levenberg_marquardt(), "
            f"which differentiates forward, as jf.curve_fit does"
        )
    if any(words in said for words in FORWARD):
        return (
            f"{users_line(error)} cannot be differentiated forward, as Levenberg-Marquardt needs it, and refits by "
            f"it (a jax.custom_vjp, such as jax.experimental.ode.odeint and diffrax' default adjoint are, or a "
            f"callback): in diffrax pass adjoint=diffrax.ForwardMode(); else integrate with jax.lax.scan, write a "
            f"jax.custom_jvp, or fit by jf.optimizers.lbfgs(), which differentiates backward "
            f"(not through a callback: give that one a derivative by jax.custom_jvp)"
        )
    return None


def _keeps_state(error: Exception) -> str:
    return (
        f"the loss changes a state from outside of it ({str(error).splitlines()[0].partition(' (http')[0]}), and must "
        f"be pure; with Flax NNX copy it: graph, params, rest = nnx.split(model, nnx.Param, ...), and in the loss "
        f"model = nnx.merge(graph, params, rest, copy=True), then model.eval(), or for new randomness in every step "
        f"nnx.reseed(model, default=key) with an argument `key` of the loss; or let the module itself be the params, "
        f"and its batch statistics be carried by jf.losses.stateful"
    )


def _needs_number(where: str) -> str:
    return (
        f"{where} needs the number of a traced value, which is not known yet (float(), int(), range() or an index); "
        f"compute with jnp arrays instead"
    )


def _captured(jaxpr: ClosedJaxpr, who: str) -> bool:
    """Return whether a program holds tracers of a trace that is still going on; an error if it has ended."""
    tracers = [x for x in jaxpr.consts if isinstance(x, jax.core.Tracer)]
    for tracer in tracers:
        _check_alive(tracer, f"{who} uses")
    return bool(tracers)


def _leaked(who: str) -> str:
    return (
        f"{who} a value that leaked out of a jax.jit, jax.grad or jax.vmap that has ended (a tracer kept in a "
        f"list, a global or a closure); return such values from the transformed function, and pass them as data"
    )


def _check_alive(tracer: jax.core.Tracer, who: str) -> None:
    try:
        jax.random.key_data(tracer) if is_key(tracer) else jnp.add(tracer, 0)
    except jax.errors.UnexpectedTracerError as error:
        raise ValueError(_leaked(who)) from error


def _check_scalar(who: str, result: PyTree, *, real: bool = True) -> None:
    if not hasattr(result, "shape"):
        raise TypeError(
            f"{who} returned {'None' if result is None else 'a ' + type(result).__name__}, but it must return one "
            f"scalar; return the number alone"
            + " (what else there is to see, functions f(params, *data) -> scalar tell: jf.Record(what=('loss', f)); "
            "what the next step needs is a new state: jf.losses.stateful(loss))" * real
        )
    if result.shape != ():
        raise TypeError(
            f"{who} returned an array of shape {result.shape} and dtype {result.dtype}, but it must return a scalar; "
            f"reduce it, with jnp.mean for instance" + (" (a model becomes a loss by jf.losses.mse(model))" * real)
        )
    if real and not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(
            f"{who} returned a scalar of dtype {result.dtype}, but it must be a float, since nothing else has a "
            f"gradient; compute it without round, argmax or comparisons"
        )


def _check_pure(call: Callable, arguments: tuple, first: ClosedJaxpr) -> None:
    """Refuse a loss that is not pure: two traces of it are different programs, or have different constants."""
    again, _ = program_of(lambda *a: call(*a), *arguments)
    change = difference(first, again, _same)
    if change is None:
        return
    line = "the loss" if change.operation is None else line_of(change.operation.traceback)
    raise TypeError(
        f"the loss is not pure: two evaluations of the same input gave different programs, because of {line}; draw "
        f"random numbers with jax.random from an argument named `key`, and keep no state outside of the arguments"
    )


def _same(a: Array, b: Array) -> bool:
    if not hasattr(a, "dtype") or jnp.issubdtype(a.dtype, jax.dtypes.extended):
        return True
    return a is b or np.array_equal(np.asarray(a), np.asarray(b), equal_nan=a.dtype.kind == "f")


def _warn_unmoved(call: Callable, arguments: tuple, forward: bool) -> None:
    """Warn of leaves whose gradient is zero for any values: the gradient's program does not depend on its inputs there.

    Args:
      call: The loss as a function of params and more.
      arguments: Of it.
      forward: Whether it is differentiated forward only, so that a loop of unknown length will do.
    """
    try:
        jaxpr, _ = program_of(jax.grad(call), *arguments)
    except Exception as error:
        why = undifferentiable(error)
        if why and not forward:
            raise TypeError(why) from error
        if why:
            return
        raise
    moved = depends(jaxpr)
    if all(moved):
        return
    grads = run(jaxpr, *(_filler(x) for x in jax.tree.leaves(arguments)))
    names = [path_name("params", path) for path, _ in jax.tree_util.tree_leaves_with_path(arguments[0])]
    still = [n for n, yes, g in zip(names, moved, grads, strict=True) if not yes and not np.any(np.asarray(g))]
    if still:
        warn(
            f"the loss does not depend on {', '.join(still)} in a differentiable way: the gradient there is "
            f"identically zero, so {'it' if len(still) == 1 else 'they'} will not move (a leaf that is unused, or "
            f"used only through round, argmax, a comparison or stop_gradient)"
        )


def _filler(x: jax.ShapeDtypeStruct) -> Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.key(0) if not x.shape else jax.random.split(jax.random.key(0), x.shape)
    return jnp.ones(x.shape, x.dtype)
