"""The program of a loss as a list of steps, one for each node, and the forward and backward pass through them.

Every value has a place, an integer; steps read and write places. A function that is called twice has other places for
each call.
"""

from __future__ import annotations

import collections
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from jaxfit.engine import jaxprs
from jaxfit.engine.jaxprs import Closed, ListedOperation, Listing, Operation
from jaxfit.typing import Array, ArrayLike, PyTree

Scope = tuple[str, int]  # a named scope, and which run of it

ELEMENTWISE = frozenset(
    "abs acos acosh add asin asinh atan atan2 atanh cbrt clamp convert_element_type copy cos cosh digamma div erf "
    "erf_inv erfc exp exp2 expm1 floor ceil integer_pow is_finite lgamma log log1p logistic max min mul neg nextafter "
    "pow reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh "
    "eq ne lt le gt ge and or not xor add_any".split()
)
MOVES = frozenset(
    "broadcast_in_dim concatenate dynamic_slice dynamic_update_slice expand_dims gather pad reshape rev slice split "
    "squeeze transpose".split()
)
REDUCES = frozenset("reduce_sum reduce_max reduce_min reduce_prod".split())
CONTRACTS = frozenset(["dot_general", "conv_general_dilated"])
SIGNS = {
    "mul": ("multiply", "×"), "add": ("add", "+"), "add_any": ("add", "+"), "sub": ("subtract", "−"),
    "div": ("divide", "÷"), "neg": ("negate", "negate"), "dot_general": ("matmul", "matmul"),
    "conv_general_dilated": ("convolve", "convolve"), "logistic": ("sigmoid", "sigmoid"),
    "reduce_max": ("largest", "largest"), "reduce_min": ("smallest", "smallest"), "reduce_prod": ("product", "product"),
    "select_n": ("where", "where"), "broadcast_in_dim": ("broadcast", "broadcast"),
    "lt": ("less", "<"), "le": ("less_equal", "≤"), "gt": ("greater", ">"), "ge": ("greater_equal", "≥"),
    "eq": ("equal", "="), "ne": ("unequal", "≠"),
}  # fmt: skip


class NodeStep(NamedTuple):
    """One operation, or several that are shown as one."""

    name: str  # a word
    label: str
    function: Callable[..., Sequence[Array]]  # of the inputs; several outputs
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: str  # "elementwise", "moves", "contracts", "reduces" or "", which decides how its local derivative is shown
    operations: int
    scope: Scope | None  # the folded scope it belongs to, and which run of it


class Program(NamedTuple):
    """The steps of a loss, in the order of computation."""

    steps: list[NodeStep]
    inputs: list[int]  # places of the arguments
    constants: dict[int, Array]
    result: int
    rules: list[str]  # names of opened calls that have a derivative rule of their own


def read(closed: ClosedJaxpr | Closed, opened: Callable[[str], bool], *, rules: bool = True) -> Program:
    """Return the program of a closed jaxpr with one result.

    Args:
      closed: The jaxpr.
      opened: Of the name of a call or scope, whether to show what is in it.
      rules: Whether calls with a derivative of their own may be opened.
    """
    with_rules: list[str] = []
    runs = itertools.count()

    def opens(operation: Operation, inner: ClosedJaxpr | Closed, scope: Scope | None) -> bool:
        name, has_rule, size = _named(operation)[0], operation.name in jaxprs.RULES, len(jaxprs.operations(inner))
        if size == 0 or not has_rule and size == 1:
            return True
        if scope is not None or not opened(name) or has_rule and not rules:
            return False
        with_rules.extend([name] * has_rule)
        return True

    def scopes(inside: Sequence[Operation], within: Scope | None) -> list[Scope | None]:
        """Return for each operation the outermost named scope that stays folded; separate runs of one scope differ."""
        if within is not None:
            return [within] * len(inside)
        outermost = [next((part for part in o.scopes if not opened(part)), None) for o in inside]
        numbered = [(name, next(runs), list(run)) for name, run in itertools.groupby(outermost)]
        return [None if name is None else (name, number) for name, number, run in numbered for _ in run]

    listing = jaxprs.inline(closed, opens, scopes)
    steps, constants, (result,) = _steps(listing)
    steps = jaxprs.needed(steps, [result])
    return Program(_in_scopes(steps, result, constants), listing.inputs, constants, result, with_rules)


def _steps(listing: Listing) -> tuple[list[NodeStep], dict[int, Array], list[int]]:
    """Return a step for each row that computes something, all constants, and the places of the results."""
    steps, constants, renamed = [], dict(listing.constants), {}
    uses = Counter(place for row in listing.rows for place in row.inputs) + Counter(listing.results)
    waiting = collections.deque(listing.rows)
    while waiting:
        row = waiting.popleft()
        if waiting and uses[row.outputs[0] if row.outputs else -1] == 1 and _is_mean(row, waiting[0], constants):
            steps.append(_mean(row, waiting.popleft(), constants, renamed))
            continue
        inputs = tuple(renamed.get(place, place) for place in row.inputs)
        operation = row.operation
        if operation.name == "convert_element_type" and operation.operands[0].dtype == operation.results[0].dtype:
            # only whether its type is a weak one changes
            renamed |= zip(row.outputs, inputs, strict=True)
        elif all(place in constants for place in inputs) and not operation.has_effects:
            values = operation(*(constants[place] for place in inputs))
            constants |= zip(row.outputs, values, strict=True)
        else:
            steps.append(_step(row, inputs))
    return steps, constants, [renamed.get(place, place) for place in listing.results]


def _step(row: ListedOperation, inputs: tuple[int, ...]) -> NodeStep:
    (name, label), inner = _named(row.operation), row.operation.inner()
    count = 1 if inner is None else max(1, len(jaxprs.operations(inner)))
    return NodeStep(name, label, row.operation, inputs, row.outputs, _kind(row.operation), count, row.scope)


def _is_mean(one: ListedOperation, other: ListedOperation, constants: Mapping[int, Array]) -> bool:
    """Return whether a sum and the operation after it are a mean."""
    names = one.operation.name, other.operation.name
    if names != ("reduce_sum", "div") or (one.level, one.scope) != (other.level, other.scope):
        return False
    divided, divisor = other.inputs
    count = one.operation.operands[0].size / max(one.operation.results[0].size, 1)
    known = constants.get(divisor)
    return divided == one.outputs[0] and known is not None and bool(np.all(np.asarray(known) == count))


def _mean(
    total: ListedOperation, division: ListedOperation, constants: Mapping[int, Array], renamed: Mapping[int, int]
) -> NodeStep:
    divisor, (source,) = constants[division.inputs[1]], total.inputs

    def mean(x):
        return division.operation(*total.operation(x), divisor)

    return NodeStep("mean", "mean", mean, (renamed.get(source, source),), division.outputs, "reduces", 2, total.scope)


def _named(operation: Operation) -> tuple[str, str]:
    """Return the name of an operation, and the text in its box."""
    primitive, params = operation.name, operation.params
    if primitive in SIGNS:
        return SIGNS[primitive]
    if primitive == "integer_pow":
        word = {2: "square", 3: "cube", -1: "reciprocal"}.get(params["y"], f"power {params['y']}")
        return word.replace(" ", "_"), word
    if primitive == "convert_element_type":
        word = f"to {np.dtype(params['new_dtype']).name}"
        return word.replace(" ", "_"), word
    if primitive in jaxprs.RULES or primitive in jaxprs.CALLS:
        inner = operation.inner()
        assert inner is not None  # of one of these kinds
        inside = [o.params["name"] for o in jaxprs.operations(inner) if o.name in jaxprs.CALLS and "name" in o.params]
        function = jaxprs.function_name(inner)
        word = (
            str(params.get("name") or function or (inside[0] if inside else "call")).strip("_").replace("<lambda>", "λ")
        )
        return word or primitive, word or primitive
    if primitive == "scan":
        return "scan", f"scan, {params['length']} turns"
    word = primitive.removeprefix("reduce_")
    return word, word.replace("_", " ")


def _kind(operation: Operation) -> str:
    """Return the kind of an operation's local derivative."""
    primitive = operation.name
    if primitive in CONTRACTS:
        return "contracts"
    if primitive in MOVES:
        return "moves"
    if primitive in REDUCES:
        return "reduces"
    if (inner := operation.inner()) is not None:
        return "elementwise" if all(_kind(o) == "elementwise" for o in jaxprs.operations(inner)) else ""
    if primitive not in ELEMENTWISE:
        return ""
    wide = operation.results[0].shape

    def spreads(shape: tuple[int, ...]) -> bool:  # to the result's, without a new leading axis
        return not shape or len(shape) == len(wide) and all(n in (1, m) for n, m in zip(shape, wide, strict=True))

    return "elementwise" if all(spreads(value.shape) for value in operation.operands) else ""


def _in_scopes(steps: Sequence[NodeStep], result: int, constants: dict[int, Array]) -> list[NodeStep]:
    """Return the steps with those of each folded scope merged into one."""
    folded = []
    for scope, run in itertools.groupby(steps, key=lambda step: step.scope):
        group = list(run)
        folded += group if scope is None else [_together(scope[0], group, steps, result, constants)]
    return folded


def _together(
    name: str, group: Sequence[NodeStep], steps: Sequence[NodeStep], result: int, constants: dict
) -> NodeStep:
    """Return consecutive steps as one step, with their constants inside."""
    written = [place for step in group for place in step.outputs]
    inside = {id(step) for step in group}
    fixed = {place: constants[place] for step in group for place in step.inputs if place in constants}
    inputs = tuple(dict.fromkeys(p for step in group for p in step.inputs if p not in fixed and p not in written))
    elsewhere = {place for step in steps if id(step) not in inside for place in step.inputs} | {result}
    outputs = tuple(place for place in written if place in elsewhere)

    def function(*values):
        known = fixed | dict(zip(inputs, values, strict=True))
        for step in group:
            known.update(zip(step.outputs, step.function(*(known[place] for place in step.inputs)), strict=True))
        return tuple(known[place] for place in outputs)

    kind = "elementwise" if all(step.kind == "elementwise" for step in group) else ""
    return NodeStep(name, name, function, inputs, outputs, kind, sum(step.operations for step in group), None)


def is_float(x: Array) -> bool:
    """Return whether a value is floating, also in half precision, and so has a gradient."""
    return jnp.issubdtype(x.dtype, jnp.floating)


SMALL = 64  # entries of a Jacobian that is written out


class Passage(NamedTuple):
    """The results of one forward and backward pass."""

    values: dict[int, Array]  # at every place
    gradients: list[list[PyTree]]  # for each step and each of its inputs; None for what is not a float
    locals: list[list[PyTree]]
    sums: dict[int, Array]  # at every place that holds floats: d loss / d value


def walk(program: Program, arguments: Sequence[ArrayLike], params: set[int], name_of: Callable[[int], str]) -> Passage:
    """Return the results of one forward and backward pass.

    Args:
      program: The steps.
      arguments: The values of its inputs.
      params: The places of the params.
      name_of: The name of a place, for the local derivative of a matrix product.

    Raises:
      TypeError: If a step between the params and the loss has no derivative.
    """
    values = dict(zip(program.inputs, map(jnp.asarray, arguments), strict=True))
    passage = _passage(program, values | {p: jnp.asarray(x) for p, x in program.constants.items()}, params)
    for step, slopes in zip(program.steps, passage.locals, strict=True):
        if step.kind == "contracts" and len(step.inputs) == 2:
            slopes[:] = [f"× {name_of(place)}" for place in reversed(step.inputs)]
    return passage


def _passage(program: Program, values: dict[int, Array], params: set[int]) -> Passage:
    pulls, moved = [], set(params)
    for step in program.steps:
        given = [values[place] for place in step.inputs]
        needed = not moved.isdisjoint(step.inputs)
        outputs, pull = _forward(step, given, needed=needed)
        moved.update(step.outputs if needed else ())
        values.update(zip(step.outputs, outputs, strict=True))
        pulls.append(pull)
    sums = {program.result: jnp.ones_like(values[program.result])}
    gradients, slopes = [], []
    for step, pull in zip(reversed(program.steps), reversed(pulls), strict=True):
        given = [values[place] for place in step.inputs]
        outputs = [values[place] for place in step.outputs]
        seeds = [sums.get(place, jnp.zeros_like(x)) for place, x in zip(step.outputs, outputs, strict=True)]
        found = pull(seeds)
        for place, gradient in zip(step.inputs, found, strict=True):
            if gradient is not None:
                sums[place] = sums[place] + gradient if place in sums else gradient
        gradients.append(found)
        slopes.append(_locals(step, given, outputs, pull))
    return Passage(values, gradients[::-1], slopes[::-1], sums)


def _forward(step: NodeStep, given: Sequence[Array], needed: bool) -> tuple[Sequence[Array], Callable]:
    """Return the outputs, and the function that maps their gradients to those of the inputs."""
    floats = [i for i, x in enumerate(given) if is_float(x)]

    def function(*numbers):
        inputs = list(given)
        for i, x in zip(floats, numbers, strict=True):
            inputs[i] = x
        return list(step.function(*inputs))

    def placed(found):
        every: list[Array | None] = [None] * len(given)
        for i, gradient in zip(floats, found, strict=True):
            every[i] = gradient
        return every

    numbers = [given[i] for i in floats]
    if not floats:
        return function(), lambda seeds: placed([])
    try:
        outputs, pull = jax.vjp(function, *numbers)
    except ValueError as error:
        return function(*numbers), _without_reverse(step, function, numbers, placed, needed, error)
    if not any(map(is_float, outputs)):  # a comparison stops the gradient
        return outputs, lambda seeds: placed([jnp.zeros_like(x) for x in numbers])

    def reverse(seeds):
        try:
            pairs = zip(outputs, seeds, strict=True)
            return placed(pull([s if is_float(x) else np.zeros(x.shape, jax.dtypes.float0) for x, s in pairs]))
        except ValueError as error:  # JAX transposes a `while` only now
            return _without_reverse(step, function, numbers, placed, needed, error)(seeds)

    return outputs, reverse


def _without_reverse(
    step: NodeStep, function: Callable, numbers: list, placed: Callable, needed: bool, error: Exception
):
    """Return the gradient function of a step without reverse mode, such as a `while`, from its Jacobian."""
    try:
        every = jax.jacfwd(lambda numbers: [x for x in function(*numbers) if is_float(x)])(numbers)
    except Exception:
        if needed:
            raise TypeError(
                f"the step {step.name!r} of the loss has no derivative ({str(error).splitlines()[0]}); give it one "
                f"with jax.custom_vjp, or compute it with jax.numpy"
            ) from error
        return lambda seeds: [None] * len(placed(numbers))

    def pull(seeds):
        seeds = [seed for seed in seeds if is_float(seed)]
        parts = [
            [jnp.tensordot(seed, row[i], seed.ndim) for seed, row in zip(seeds, every, strict=True)]
            for i in range(len(numbers))
        ]
        return placed([sum(part[1:], part[0]) for part in parts])

    return pull


def _locals(step: NodeStep, given: Sequence[Array], outputs: Sequence[Array], pull: Callable) -> list[PyTree]:
    """Return the local derivative of a step by each input, as `backprop` documents it; None where it is too large."""
    if len(outputs) != 1 or step.kind == "contracts":
        return [None] * len(given)
    (output,) = outputs
    if not is_float(output):
        return [jnp.zeros_like(x) if is_float(x) else None for x in given]
    if step.kind == "moves":
        return [jnp.ones((), x.dtype) if is_float(x) else None for x in given]
    if step.kind == "elementwise":
        if any(is_float(x) and x.shape != output.shape for x in given):
            given = [jnp.broadcast_to(x, output.shape) for x in given]
            pull = _forward(step, given, needed=False)[1]
        return pull([jnp.ones_like(output)])
    if output.shape == () or step.kind == "reduces":
        return pull([jnp.ones_like(output)])
    return _jacobians(given, output, pull)


def _jacobians(given: Sequence[Array], output: Array, pull: Callable) -> list[PyTree]:
    """Return the Jacobian (*output.shape, *input.shape) by each input where it has few entries, else None."""
    small = [is_float(x) and output.size * x.size <= SMALL for x in given]
    if not any(small):
        return [None] * len(given)
    rows = [pull([row]) for row in jnp.eye(output.size, dtype=output.dtype).reshape(-1, *output.shape)]
    return [
        jnp.stack([row[i] for row in rows]).reshape(*output.shape, *x.shape) if small[i] and rows[0][i] is not None
        else None
        for i, x in enumerate(given)
    ]  # fmt: skip
