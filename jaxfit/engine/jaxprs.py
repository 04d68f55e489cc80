"""Programs as JAX writes them down, jaxprs: the only module that reads equations and variables.

A closed jaxpr holds equations and the values of its constants. `inline` makes it a flat list of rows, in which every
value has a place, a number: a program that is called twice has places of its own for each call.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import jax

JITS = ("jit", "pjit")
CALLS = (*JITS, "closed_call", "core_call", "checkpoint", "remat2")
RULES = ("custom_jvp_call", "custom_vjp_call")  # calls with a derivative of their own


class Closed(NamedTuple):
    """A jaxpr with the values of its constants, as `jax.make_jaxpr` returns one."""

    jaxpr: Any
    consts: Sequence[Any]


def is_literal(atom: Any) -> bool:
    """Whether an input of an equation is a number written into it; importing JAX's own type would take 20 ms."""
    return hasattr(atom, "val")


def inner_call(equation: Any, kinds: Sequence[str] = (*CALLS, *RULES)) -> Any:
    """Return the closed jaxpr that an equation of one of these kinds calls once, on its own inputs; else None."""
    if equation.primitive.name not in kinds:
        return None
    inner = equation.params.get("call_jaxpr", equation.params.get("jaxpr"))
    return inner if inner is None or hasattr(inner, "jaxpr") else Closed(inner, ())


def scopes_of(equation: Any) -> list[str]:
    """Return the named scopes that an equation was made in, the outermost first, without those of transformations."""
    return [part for part in str(equation.source_info.name_stack).split("/") if part and "()" not in part]


def as_function(equation: Any) -> Callable[..., Sequence[Any]]:
    """Return an equation as a function of its inputs, which JAX may trace and differentiate."""
    inner = inner_call(equation, JITS)
    if inner is not None and len(inner.consts):  # JAX 0.10.1 may run the call of another program with these constants
        return lambda *inputs: tuple(jax.core.eval_jaxpr(inner.jaxpr, inner.consts, *inputs))

    def function(*inputs):
        bound = equation.primitive.get_bind_params(equation.params)
        functions, params = bound if isinstance(bound, tuple) else ((), bound)
        result = equation.primitive.bind(*functions, *inputs, **params)
        return tuple(result) if equation.primitive.multiple_results else (result,)

    return function


class Row(NamedTuple):
    """An equation, with the places of the values that it reads and writes."""

    equation: Any
    inputs: tuple[int, ...]  # as equation.invars
    outputs: tuple[int, ...]  # as equation.outvars
    scope: Any  # as `scopes` said
    level: int  # which jaxpr it stood in


class Listing(NamedTuple):
    """A program as rows in the order in which they can be run."""

    rows: list[Row]
    inputs: list[int]  # places of the arguments
    constants: dict[int, Any]  # by place; literals too
    results: list[int]


def inline(
    closed: Any,
    opens: Callable[[Any, Any, Any], bool],
    scopes: Callable[[Sequence[Any], Any], Sequence[Any]] = lambda equations, within: [within] * len(equations),
) -> Listing:
    """Return the rows of a program, with those of the calls that are opened in the place of the call.

    Args:
      closed: The program.
      opens: opens(equation, inner program, scope of the equation): whether to list what is inside of the call.
      scopes: scopes(equations, scope of the call or None): what to mark each of them with.
    """
    numbers, levels = itertools.count(), itertools.count()
    rows: list[Row] = []
    constants: dict[int, Any] = {}

    def constant(value: Any) -> int:
        place = next(numbers)
        constants[place] = value
        return place

    def read(jaxpr: Any, arguments: Sequence[int], within: Any) -> list[int]:
        level, at = next(levels), dict(zip([*jaxpr.constvars, *jaxpr.invars], arguments, strict=True))

        def place(atom: Any) -> int:
            return constant(atom.val) if is_literal(atom) else at[atom]

        for equation, scope in zip(jaxpr.eqns, scopes(jaxpr.eqns, within), strict=True):
            inputs, inner = [place(v) for v in equation.invars], inner_call(equation)
            if inner is not None and opens(equation, inner, scope):
                outputs = read(inner.jaxpr, [constant(x) for x in inner.consts] + inputs, scope)
            else:
                outputs = [next(numbers) for _ in equation.outvars]
                rows.append(Row(equation, tuple(inputs), tuple(outputs), scope, level))
            at.update(zip(equation.outvars, outputs, strict=True))
        return [place(v) for v in jaxpr.outvars]

    given = [next(numbers) for _ in closed.jaxpr.invars]
    results = read(closed.jaxpr, [constant(x) for x in closed.consts] + given, None)
    return Listing(rows, given, constants, results)


class ReadsAndWrites(Protocol):
    """A row, or anything else that reads and writes places."""

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


def depends(jaxpr: Any, inputs: Sequence[bool]) -> list[bool]:
    """Return for each output of a jaxpr whether it may depend on the chosen inputs, also through inner `jit`s."""
    reached = {v for v, yes in zip(jaxpr.invars, inputs, strict=True) if yes}
    for equation in jaxpr.eqns:
        chosen = [not is_literal(v) and v in reached for v in equation.invars]
        if not any(chosen):
            continue
        inner = inner_call(equation, JITS)
        outputs = [True] * len(equation.outvars) if inner is None else depends(inner.jaxpr, chosen)
        reached.update(v for v, yes in zip(equation.outvars, outputs, strict=True) if yes)
    return [not is_literal(v) and v in reached for v in jaxpr.outvars]


# Bytes


def size_of(variable: Any) -> int:
    """Return the bytes of a variable or literal."""
    shape, dtype = getattr(variable.aval, "shape", ()), getattr(variable.aval, "dtype", None)
    return math.prod(shape) * getattr(dtype, "itemsize", 4)


def largest_bytes(jaxpr: Any) -> int:
    """Return the bytes of the inputs and outputs of the largest operation, also inside of calls, loops and branches."""
    own = [sum(size_of(v) for v in (*equation.invars, *equation.outvars)) for equation in jaxpr.eqns]
    inner = [e.params["jaxpr"].jaxpr for e in jaxpr.eqns if hasattr(e.params.get("jaxpr"), "jaxpr")]
    return max([0, *own, *map(largest_bytes, inner)])


def returned_bytes(jaxpr: Any) -> int:
    """Return the bytes of what a program returns and was not given: each array once."""
    returned = {v for v in jaxpr.outvars if not is_literal(v)}
    return sum(map(size_of, returned - {*jaxpr.invars, *jaxpr.constvars}))


def alive_bytes(jaxpr: Any) -> int:
    """Return the most bytes of intermediate results alive at once: made in order, dropped after their last use."""

    def variables(atoms: Sequence[Any]) -> set[Any]:
        return {v for v in atoms if not is_literal(v)}

    equations = jaxpr.eqns
    made = {v for equation in equations for v in equation.outvars}
    last = {v: i for i, e in enumerate(equations) for v in (*e.outvars, *variables(e.invars))}
    last |= dict.fromkeys(variables(jaxpr.outvars), len(equations))
    alive = most = 0
    for i, equation in enumerate(equations):
        alive += sum(map(size_of, equation.outvars))
        most = max(most, alive)
        alive -= sum(size_of(v) for v in ({*equation.outvars} | variables(equation.invars)) & made if last[v] == i)
    return most
