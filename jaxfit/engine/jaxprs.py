"""Programs as JAX writes them down, jaxprs: the only module that reads their equations and variables.

`operations` lists the equations of a program; `inline` makes it one flat list of rows, in which every value has a
number: a program that is called twice has numbers of its own for each call.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxfit.typing import PyTree

if TYPE_CHECKING:  # importing it would take 20 ms
    from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

JITS = ("jit", "pjit")
CALLS = (*JITS, "closed_call", "core_call", "checkpoint", "remat2")
RULES = ("custom_jvp_call", "custom_vjp_call")  # calls with a derivative of their own


class Closed(NamedTuple):
    """A jaxpr with the values of its constants, in the form that `jax.make_jaxpr` returns."""

    jaxpr: Jaxpr
    consts: Sequence[Any]


class Value(Protocol):
    """What is known of an operand or a result before anything runs."""

    shape: tuple[int, ...]
    dtype: np.dtype
    size: int


class Operation:
    """One equation of a program, as a function of its inputs: JAX may trace and differentiate the call."""

    __slots__ = ("_equation",)

    def __init__(self, equation: JaxprEqn):
        self._equation = equation

    @property
    def name(self) -> str:
        return self._equation.primitive.name

    @property
    def params(self) -> Mapping[str, Any]:
        return self._equation.params

    @property
    def operands(self) -> Sequence[Value]:
        return [v.aval for v in self._equation.invars]  # pyright: ignore[reportReturnType]

    @property
    def results(self) -> Sequence[Value]:
        return [v.aval for v in self._equation.outvars]  # pyright: ignore[reportReturnType]

    @property
    def literals(self) -> Sequence[ArrayLike | None]:
        """For each operand the number that is written into the program, or None."""
        return [v.val if is_literal(v) else None for v in self._equation.invars]

    @property
    def has_effects(self) -> bool:
        """Whether it does something beside computing its results."""
        return bool(self._equation.effects)

    @property
    def scopes(self) -> list[str]:
        """The named scopes that it was made in, the outermost first, without those of transformations."""
        stack = str(self._equation.source_info.name_stack)
        return [part for part in stack.split("/") if part and "()" not in part]

    @property
    def traceback(self) -> TracebackType | None:
        """Where the user's code made it."""
        trace = getattr(self._equation.source_info, "traceback", None)
        return None if trace is None else trace.as_python_traceback()

    def inner(self, kinds: Sequence[str] = (*CALLS, *RULES)) -> ClosedJaxpr | Closed | None:
        """Return the program that an operation of one of these kinds calls once, on its own inputs; else None."""
        if self.name not in kinds:
            return None
        inner = self.params.get("call_jaxpr", self.params.get("jaxpr"))
        return inner if inner is None or hasattr(inner, "jaxpr") else Closed(inner, ())

    def __call__(self, *inputs: ArrayLike) -> Sequence[Array]:
        inner, primitive = self.inner(JITS), self._equation.primitive
        if inner is not None and len(inner.consts):  # JAX 0.10.1 may run the call of another program with them
            return tuple(run(inner, *inputs))
        bound = primitive.get_bind_params(self._equation.params)
        functions, params = bound if isinstance(bound, tuple) else ((), bound)
        result = primitive.bind(*functions, *inputs, **params)
        return tuple(result) if primitive.multiple_results else (result,)


def is_literal(atom: Var | Literal) -> bool:
    """Return whether an input of an equation is a number written into it."""
    return hasattr(atom, "val")


def operations(program: ClosedJaxpr | Closed) -> list[Operation]:
    """Return the equations of a program, without those inside of calls."""
    return [Operation(equation) for equation in program.jaxpr.eqns]


def function_name(program: ClosedJaxpr | Closed) -> str | None:
    """Return the name of the function that a program was made from, if it is known."""
    return getattr(getattr(program.jaxpr, "debug_info", None), "func_name", None)


def run(program: ClosedJaxpr | Closed, *inputs: ArrayLike) -> Sequence[Array]:
    """Return the results of a program for flat inputs."""
    return jax.core.eval_jaxpr(program.jaxpr, program.consts, *inputs)


def enclosing_nothing(function: Callable, *arrays: Array) -> tuple[Callable, Sequence[Array], PyTree]:
    """Return a function of arrays and of those that the given one encloses, these, and the shape of the results."""
    program, like = jax.make_jaxpr(function, return_shape=True)(*arrays)
    tree, count = jax.tree.structure(like), len(arrays)

    def whole(*given):
        return jax.tree.unflatten(tree, run(Closed(program.jaxpr, given[count:]), *given[:count]))

    return whole, program.consts, like


Scope = TypeVar("Scope")


class ListedOperation(NamedTuple, Generic[Scope]):
    """An operation, with the numbers of the values that it reads and writes."""

    operation: Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scope: Scope | None  # as `scopes` returned it
    level: int  # which jaxpr it was written in


class Listing(NamedTuple, Generic[Scope]):
    """A program as rows in an order in which they can run."""

    rows: list[ListedOperation[Scope]]
    inputs: list[int]  # the numbers of the arguments
    constants: dict[int, Array]  # the value for each number; literals too
    results: list[int]


def _the_same(operations: Sequence[Operation], within: Scope | None) -> list[Scope | None]:
    return [within] * len(operations)


def inline(
    program: ClosedJaxpr | Closed,
    opens: Callable[[Operation, ClosedJaxpr | Closed, Scope | None], bool],
    scopes: Callable[[Sequence[Operation], Scope | None], Sequence[Scope | None]] = _the_same,
) -> Listing[Scope]:
    """Return the rows of a program; a call that is opened is replaced by the rows inside of it.

    Args:
      program: The program.
      opens: opens(operation, inner program, scope of the operation): whether to list what is inside of the call.
      scopes: scopes(operations, scope of the call or None): the scope of each of them.
    """
    numbers, levels = itertools.count(), itertools.count()
    rows: list[ListedOperation[Scope]] = []
    constants: dict[int, Array] = {}

    def constant(value: Array) -> int:
        number = next(numbers)
        constants[number] = value
        return number

    def read(jaxpr: Jaxpr, arguments: Sequence[int], within: Scope | None) -> list[int]:
        level, known = next(levels), dict(zip([*jaxpr.constvars, *jaxpr.invars], arguments, strict=True))

        def number(atom: Var | Literal) -> int:
            return constant(atom.val) if is_literal(atom) else known[atom]  # pyright: ignore

        here = [Operation(equation) for equation in jaxpr.eqns]
        for equation, operation, scope in zip(jaxpr.eqns, here, scopes(here, within), strict=True):
            inputs, inner = [number(v) for v in equation.invars], operation.inner()
            if inner is not None and opens(operation, inner, scope):
                outputs = read(inner.jaxpr, [constant(x) for x in inner.consts] + inputs, scope)
            else:
                outputs = [next(numbers) for _ in equation.outvars]
                rows.append(ListedOperation(operation, tuple(inputs), tuple(outputs), scope, level))
            known.update(zip(equation.outvars, outputs, strict=True))
        return [number(v) for v in jaxpr.outvars]

    given = [next(numbers) for _ in program.jaxpr.invars]
    results = read(program.jaxpr, [constant(x) for x in program.consts] + given, None)
    return Listing(rows, given, constants, results)


class ReadsAndWrites(Protocol):
    """A row, or anything else that reads and writes numbered values."""

    @property
    def inputs(self) -> Sequence[int]: ...

    @property
    def outputs(self) -> Sequence[int]: ...


_Rows = TypeVar("_Rows", bound=ReadsAndWrites)


def needed(rows: Sequence[_Rows], results: Sequence[int]) -> list[_Rows]:
    """Return the rows that the results depend on (dead-code elimination)."""
    wanted, kept = set(results), []
    for row in reversed(rows):
        if wanted.intersection(row.outputs):
            wanted.update(row.inputs)
            kept.append(row)
    return kept[::-1]


def depends(program: ClosedJaxpr | Closed, inputs: Sequence[bool] | None = None) -> list[bool]:
    """Return for each result whether it may depend on the chosen inputs (by default all), also through inner `jit`s."""
    jaxpr = program.jaxpr
    reached = {v for v, yes in zip(jaxpr.invars, inputs or [True] * len(jaxpr.invars), strict=True) if yes}
    for equation in jaxpr.eqns:
        chosen = [not is_literal(v) and v in reached for v in equation.invars]
        if not any(chosen):
            continue
        inner = Operation(equation).inner(JITS)
        outputs = [True] * len(equation.outvars) if inner is None else depends(inner, chosen)
        reached.update(v for v, yes in zip(equation.outvars, outputs, strict=True) if yes)
    return [not is_literal(v) and v in reached for v in jaxpr.outvars]


class Difference(NamedTuple):
    """The first operation in which two programs differ; None if that is known of the programs alone."""

    operation: Operation | None


def difference(one: ClosedJaxpr, other: ClosedJaxpr, same: Callable[[Array, Array], bool]) -> Difference | None:
    """Return where two programs differ, in what they do or in the values of their constants; None if nowhere."""
    pairs = zip(one.jaxpr.constvars, one.consts, other.consts, strict=False)
    changed = {v for v, a, b in pairs if not same(a, b)}
    if _text(one) == _text(other) and not changed:
        return None
    for a, b in itertools.zip_longest(one.jaxpr.eqns, other.jaxpr.eqns):
        uses = a is not None and not changed.isdisjoint(v for v in a.invars if not is_literal(v))
        if uses or a is None or b is None or _content(a) != _content(b):
            return Difference(Operation(a or b))  # pyright: ignore[reportArgumentType]
    return Difference(None)


def _content(equation: JaxprEqn) -> tuple[str, list[str], str]:
    """Return what two equations are compared by."""
    numbers = [str(v.val) for v in equation.invars if is_literal(v)]  # pyright: ignore[reportAttributeAccessIssue]
    return equation.primitive.name, numbers, _text(equation.params)


def _text(value: object) -> str:
    """Return how it prints, without addresses: a function that is made in a trace has another one in the next."""
    return re.sub("0x[0-9a-f]+", "", str(value))


# Functions that are affine in some of the numbers they are given

MOVES = (
    "copy", "squeeze", "reshape", "expand_dims", "broadcast_in_dim", "slice", "split", "stack", "unstack",
    "concatenate",
)  # fmt: skip
EACH = ("add", "sub", "mul", "div", "neg", "convert_element_type")  # element by element
SUMS = (  # linear in all inputs
    "add", "add_any", "sub", "neg", "reduce_sum", "cumsum", "transpose", "rev", "pad", "real", "imag",
)  # fmt: skip
PICKS = ("select_n", "dynamic_slice", "gather")  # linear but in what picks: the first input, or those after it
MOST_NUMBERS = 64  # of the input, and of an array each of whose elements is followed


class _Form(NamedTuple):
    """How an array depends on the numbers of the input; without the array's own axes, all of its elements together."""

    first: np.ndarray  # (..., k) bool: may depend on a number
    second: np.ndarray  # (..., k, k) bool: may have a second derivative by two numbers

    def together(self) -> _Form:
        k = self.first.shape[-1]
        either = np.logical_or.reduce
        return _Form(either(self.first.reshape(-1, k)), either(self.second.reshape(-1, k, k)))


def affine_inputs(function: Callable, *given: PyTree) -> tuple[int, ...]:
    """Return the places of the numbers in which a function is affine together, of its last argument (k,).

    A place is named only where this can be seen in the program. A number that changes no result is none of them; of two
    that are multiplied with each other one is chosen.
    """
    k = given[-1].size
    if k > MOST_NUMBERS:
        return ()
    program = jax.make_jaxpr(function)(*given)
    none = _Form(np.zeros(k, bool), np.zeros((k, k), bool))
    forms = [none] * (len(program.jaxpr.invars) - 1) + [_Form(np.eye(k, dtype=bool), np.zeros((k, k, k), bool))]
    forms = _forms(program, forms)
    first, second = (np.any(x, axis=0) for x in zip(*(form.together() for form in forms), strict=True))
    able = first & ~second.diagonal()
    chosen = np.zeros(k, bool)
    for i in sorted(np.flatnonzero(able), key=lambda i: (second[i] & able).sum()):
        chosen[i] = not (second[i] & chosen).any()
    return tuple(np.flatnonzero(chosen).tolist())


def _forms(program: ClosedJaxpr | Closed, given: Sequence[_Form]) -> list[_Form]:
    jaxpr, k = program.jaxpr, given[-1].first.shape[-1]
    none = _Form(np.zeros(k, bool), np.zeros((k, k), bool))
    known: dict[Any, _Form] = dict(zip(jaxpr.invars, given, strict=True))

    def form(atom: Var | Literal) -> _Form:
        return none if is_literal(atom) else known.get(atom, none)

    for equation in jaxpr.eqns:
        inputs = [form(v) for v in equation.invars]
        if not any(x.first.any() for x in inputs):
            continue
        operation = Operation(equation)
        inner = operation.inner()
        written = [v for v in equation.invars if hasattr(v.aval, "inner_aval")]  # arrays that it may change in place
        if inner is not None and len(inner.jaxpr.invars) == len(inputs) and not written:
            outputs = _forms(inner, inputs)
        else:
            outputs = _moved(operation, inputs) or [_computed(operation, inputs)] * len(equation.outvars)
        known.update(zip(equation.outvars, outputs, strict=True))
        known.update(dict.fromkeys(written, _computed(operation, inputs)) if written else {})
    return [form(v) for v in jaxpr.outvars]


def _computed(operation: Operation, inputs: Sequence[_Form]) -> _Form:
    """Return the form of each result of an operation that computes."""
    name = operation.name
    if name not in EACH:
        inputs = [x.together() for x in inputs]
    parts, seconds = [x.first for x in inputs], functools.reduce(np.logical_or, [x.second for x in inputs])
    first = functools.reduce(np.logical_or, parts)
    form = _Form(first, seconds)
    kinds = {jax.numpy.issubdtype(x.dtype, np.inexact) for x in (*operation.operands, *operation.results)}
    if name in SUMS or (name == "convert_element_type" and kinds == {True}):
        return form
    if name in PICKS and not any(x.any() for x in (parts[:1] if name == "select_n" else parts[1:])):
        return form
    if name in ("mul", "dot_general", "div"):
        a, b = parts
        pairs = _pairs(a, b) | _pairs(b, a)
        return _Form(first, seconds | (pairs | _pairs(b, b) if name == "div" else pairs))
    return _Form(first, _pairs(first, first))


def _pairs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one[..., :, None] & other[..., None, :]


def _moved(operation: Operation, inputs: Sequence[_Form]) -> list[_Form] | None:
    """Return the forms of the results of an operation that only moves elements, of small arrays; else None."""
    name, params = operation.name, operation.params
    if name not in MOVES:
        return None
    shapes = [x.shape for x in operation.results]
    if max(x.size for x in (*operation.operands, *operation.results)) > MOST_NUMBERS:
        form = _Form(*(np.any(x, axis=0) for x in zip(*(x.together() for x in inputs), strict=True)))
        return [form] * len(shapes)

    def moved(*arrays: np.ndarray) -> list[np.ndarray]:
        one, rest = arrays[0], arrays[0].shape[len(operation.operands[0].shape) :]
        if name in ("concatenate", "stack"):
            return [getattr(np, name)(arrays, axis=params.get("dimension", params.get("axis")))]
        if name == "split":
            return np.split(one, np.cumsum(params["sizes"])[:-1], axis=params["axis"])
        if name == "unstack":
            return list(np.moveaxis(one, params["axis"], 0))
        if name == "slice":
            steps = params["strides"] or (1,) * one.ndim
            return [one[tuple(map(slice, params["start_indices"], params["limit_indices"], steps))]]
        if name == "broadcast_in_dim":
            places, like = params["broadcast_dimensions"], [1] * len(shapes[0])
            for axis, size in zip(places, one.shape, strict=False):
                like[axis] = size
            return [np.broadcast_to(one.reshape(*like, *rest), (*shapes[0], *rest))]
        if name == "reshape" and params["dimensions"] is not None:
            one = one.transpose(*params["dimensions"], *range(-len(rest), 0))
        return [one.reshape(*shapes[0], *rest)]  # in the order that the elements have

    wide = [_Form(*(np.broadcast_to(x, (*v.shape, *x.shape[-n:])) for n, x in enumerate(form, 1)))
            for form, v in zip(inputs, operation.operands, strict=True)]  # fmt: skip
    return [_Form(*x) for x in zip(*(moved(*x) for x in zip(*wide, strict=True)), strict=True)]


# Bytes


def size_of(variable: Var | Literal) -> int:
    """Return the bytes of a variable or literal."""
    shape, dtype = getattr(variable.aval, "shape", ()), getattr(variable.aval, "dtype", None)
    return math.prod(shape) * getattr(dtype, "itemsize", 4)


def largest_bytes(program: ClosedJaxpr | Closed) -> int:
    """Return the bytes of the inputs and outputs of the largest operation, also inside of calls, loops and branches."""
    equations = program.jaxpr.eqns
    sizes = [sum(size_of(v) for v in (*equation.invars, *equation.outvars)) for equation in equations]
    inner = [e.params["jaxpr"] for e in equations if hasattr(e.params.get("jaxpr"), "jaxpr")]
    return max([0, *sizes, *map(largest_bytes, inner)])


def returned_bytes(program: ClosedJaxpr) -> int:
    """Return the bytes of what a program returns and was not given: each array once."""
    jaxpr = program.jaxpr
    returned = {v for v in jaxpr.outvars if not is_literal(v)}
    return sum(map(size_of, returned - {*jaxpr.invars, *jaxpr.constvars}))


def alive_bytes(program: ClosedJaxpr) -> int:
    """Return the most bytes of intermediate results alive at once: made in order, dropped after their last use."""

    def variables(atoms: Sequence[Var | Literal]) -> set[Var | Literal]:
        return {v for v in atoms if not is_literal(v)}

    equations = program.jaxpr.eqns
    outputs = {v for equation in equations for v in equation.outvars}
    last = {v: i for i, e in enumerate(equations) for v in (*e.outvars, *variables(e.invars))}
    last |= dict.fromkeys(variables(program.jaxpr.outvars), len(equations))
    alive = most = 0
    for i, equation in enumerate(equations):
        alive += sum(map(size_of, equation.outvars))
        most = max(most, alive)
        alive -= sum(size_of(v) for v in ({*equation.outvars} | variables(equation.invars)) & outputs if last[v] == i)
    return most
