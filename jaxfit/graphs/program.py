"""A jaxpr as a list of steps, each of which becomes one node: calls folded or opened, means recognized.

A step reads and writes places, which are numbers: one inner program called twice has its places apart.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxfit.tracing import as_function

CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2")
RULES = ("custom_jvp_call", "custom_vjp_call")
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
    "reduce_sum": ("sum", "sum"), "reduce_max": ("largest", "largest"), "reduce_min": ("smallest", "smallest"),
    "reduce_prod": ("product", "product"), "select_n": ("where", "where"),
    "max": ("max", "max"), "min": ("min", "min"), "broadcast_in_dim": ("broadcast", "broadcast"),
    "lt": ("less", "<"), "le": ("less_equal", "≤"), "gt": ("greater", ">"), "ge": ("greater_equal", "≥"),
    "eq": ("equal", "="), "ne": ("unequal", "≠"), "and": ("and", "and"), "or": ("or", "or"), "not": ("not", "not"),
    "exp2": ("exp2", "exp2"), "transpose": ("transpose", "transpose"),
}  # fmt: skip


class Step(NamedTuple):
    """One operation, or several folded into one."""

    name: str  # a word
    label: str
    function: Callable[..., Sequence[Any]]  # of the inputs; several outputs
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: str  # "elementwise", "moves", "contracts", "reduces" or "": what its local derivative looks like
    operations: int
    scope: tuple[str, int] | None  # the folded scope it belongs to, and which run of it


class Program(NamedTuple):
    steps: list[Step]
    inputs: list[int]  # places of the arguments
    constants: dict[int, Any]
    result: int
    rules: list[str]  # calls with a rule of their own that were opened


def read(closed: Any, opened: Callable[[str], bool], *, rules: bool = True) -> Program:
    """The program of a closed jaxpr with one result.

    Args:
      closed: The jaxpr.
      opened: Of the name of a call or scope, whether to show what is in it.
      rules: Whether calls with a derivative of their own may be opened.
    """
    reader = _Reader(opened, rules)
    inputs = [reader.place() for _ in closed.jaxpr.invars]
    consts = [reader.constant(value) for value in closed.consts]
    (result,) = reader.read(closed.jaxpr, consts + inputs, None)
    steps = _needed(reader.steps, result)
    return Program(_in_scopes(steps, result, reader.constants), inputs, reader.constants, result, reader.rules)


class _Reader:
    """Collects steps and constants while it goes through a jaxpr and those inside of it."""

    def __init__(self, opened: Callable[[str], bool], rules: bool):
        self.opened, self.may_open_rules = opened, rules
        self.steps: list[Step] = []
        self.constants: dict[int, Any] = {}
        self.rules: list[str] = []
        self.places, self.runs = itertools.count(), itertools.count()

    def place(self) -> int:
        return next(self.places)

    def constant(self, value: Any) -> int:
        place = self.place()
        self.constants[place] = value
        return place

    def read(self, jaxpr: Any, arguments: Sequence[int], scope: Any) -> list[int]:
        """The places of the results."""
        places = dict(zip([*jaxpr.constvars, *jaxpr.invars], arguments, strict=True))

        def at(atom: Any) -> int:
            return self.constant(atom.val) if _is_literal(atom) else places[atom]

        uses = Counter(v for e in jaxpr.eqns for v in e.invars if not _is_literal(v))
        uses.update(v for v in jaxpr.outvars if not _is_literal(v))
        scopes = self._scopes(jaxpr.eqns) if scope is None else [scope] * len(jaxpr.eqns)
        waiting = list(zip(jaxpr.eqns, scopes, strict=True))
        while waiting:
            equation, here = waiting.pop(0)
            after = waiting[0] if waiting else None
            if after is not None and after[1] == here and self._is_mean(equation, after[0], uses, at):
                waiting.pop(0)
                outputs = self._mean(equation, after[0], at, here)
                places.update(zip(after[0].outvars, outputs, strict=True))
                continue
            outputs = self._equation(equation, [at(v) for v in equation.invars], here)
            places.update(zip(equation.outvars, outputs, strict=True))
        return [at(v) for v in jaxpr.outvars]

    def _scopes(self, equations: Sequence[Any]) -> list[tuple[str, int] | None]:
        """For each equation the outermost named scope that stays folded; runs of one scope are told apart."""
        found = []
        for equation in equations:
            path = [part for part in str(equation.source_info.name_stack).split("/") if part and "()" not in part]
            found.append(next((part for part in path if not self.opened(part)), None))
        runs = []
        for name, run in itertools.groupby(found):
            number = next(self.runs)
            runs += [None if name is None else (name, number) for _ in run]
        return runs

    def _is_mean(self, one: Any, other: Any, uses: Counter, at: Callable) -> bool:
        """Whether a sum and a division are a mean, and nothing else uses the sum."""
        if (one.primitive.name, other.primitive.name) != ("reduce_sum", "div") or other.invars[0] is not one.outvars[0]:
            return False
        if uses[one.outvars[0]] != 1:
            return False
        divisor = self.constants.get(at(other.invars[1]))
        count = one.invars[0].aval.size / max(one.outvars[0].aval.size, 1)
        return divisor is not None and bool(np.all(np.asarray(divisor) == count))

    def _mean(self, total: Any, division: Any, at: Callable, scope: Any) -> list[int]:
        divisor = self.constants[at(division.invars[1])]

        def mean(x):
            return as_function(division)(*as_function(total)(x), divisor)

        step = Step("mean", "mean", mean, (at(total.invars[0]),), (self.place(),), "reduces", 2, scope)
        self.steps.append(step)
        return list(step.outputs)

    def _equation(self, equation: Any, inputs: list[int], scope: Any) -> list[int]:
        """Adds the steps of one equation; returns the places of its results."""
        primitive = equation.primitive.name
        inner = _inner(equation)
        name, label = _named(equation)
        if inner is not None and (primitive in CALLS or primitive in RULES):
            single = primitive in CALLS and len(inner.jaxpr.eqns) == 1
            if single or not inner.jaxpr.eqns or scope is None and self._opens(primitive, name):
                consts = [self.constant(value) for value in inner.consts]
                return self.read(inner.jaxpr, consts + inputs, scope)
        source = equation.invars[0].aval if len(equation.invars) == 1 else None
        if primitive == "convert_element_type" and source.dtype == equation.outvars[0].aval.dtype:
            return inputs  # only whether its type is a weak one changes
        function = as_function(equation)
        if all(place in self.constants for place in inputs) and not equation.effects:
            return [self.constant(value) for value in function(*(self.constants[place] for place in inputs))]
        outputs = tuple(self.place() for _ in equation.outvars)
        count = 1 if inner is None else max(1, len(inner.jaxpr.eqns))
        self.steps.append(Step(name, label, function, tuple(inputs), outputs, _kind(equation), count, scope))
        return list(outputs)

    def _opens(self, primitive: str, name: str) -> bool:
        if not self.opened(name) or primitive in RULES and not self.may_open_rules:
            return False
        if primitive in RULES:
            self.rules.append(name)
        return True


def _is_literal(atom: Any) -> bool:
    return hasattr(atom, "val")


def _inner(equation: Any) -> Any:
    """The closed jaxpr that an equation calls, or None."""
    inner = equation.params.get("call_jaxpr", equation.params.get("jaxpr"))
    if inner is None or equation.primitive.name not in (*CALLS, *RULES):
        return None
    return inner if hasattr(inner, "jaxpr") else _Closed(inner, ())


class _Closed(NamedTuple):
    jaxpr: Any
    consts: Sequence[Any]


def _named(equation: Any) -> tuple[str, str]:
    """A word for an operation, and what its box says."""
    primitive, params = equation.primitive.name, equation.params
    if primitive in SIGNS:
        return SIGNS[primitive]
    if primitive == "integer_pow":
        word = {2: "square", 3: "cube", -1: "reciprocal"}.get(params["y"], f"power {params['y']}")
        return word.replace(" ", "_"), word
    if primitive == "convert_element_type":
        word = f"to {np.dtype(params['new_dtype']).name}"
        return word.replace(" ", "_"), word
    if primitive in RULES or primitive in CALLS:
        inner: Any = _inner(equation)
        inside = [e.params["name"] for e in inner.jaxpr.eqns if e.primitive.name in CALLS and "name" in e.params]
        told = getattr(getattr(inner.jaxpr, "debug_info", None), "func_name", None)
        word = str(params.get("name") or told or (inside[0] if inside else "call")).strip("_").replace("<lambda>", "λ")
        return word or primitive, word or primitive
    if primitive == "scan":
        return "scan", f"scan, {params['length']} turns"
    word = primitive.removeprefix("reduce_")
    return word, word.replace("_", " ")


def _kind(equation: Any) -> str:
    """What the local derivative of an equation looks like."""
    primitive = equation.primitive.name
    if primitive in CONTRACTS:
        return "contracts"
    if primitive in MOVES:
        return "moves"
    if primitive in REDUCES:
        return "reduces"
    inner = _inner(equation)
    if inner is not None and primitive in (*CALLS, *RULES):
        return "elementwise" if all(_kind(e) == "elementwise" for e in inner.jaxpr.eqns) else ""
    if primitive not in ELEMENTWISE:
        return ""
    return "elementwise" if all(_spreads(v.aval.shape, equation.outvars[0].aval.shape) for v in equation.invars) else ""


def _spreads(shape: tuple[int, ...], wide: tuple[int, ...]) -> bool:
    """Whether each entry of an array meets entries at its own place only, once single ones are repeated."""
    return not shape or len(shape) == len(wide) and all(n in (1, m) for n, m in zip(shape, wide, strict=True))


def _needed(steps: Sequence[Step], result: int) -> list[Step]:
    """Those that the result depends on."""
    wanted, kept = {result}, []
    for step in reversed(steps):
        if wanted.intersection(step.outputs):
            wanted.update(step.inputs)
            kept.append(step)
    return kept[::-1]


def _in_scopes(steps: Sequence[Step], result: int, constants: dict[int, Any]) -> list[Step]:
    """The steps of each folded scope as one."""
    folded = []
    for scope, run in itertools.groupby(steps, key=lambda step: step.scope):
        group = list(run)
        folded += group if scope is None else [_together(scope[0], group, steps, result, constants)]
    return folded


def _together(name: str, group: Sequence[Step], steps: Sequence[Step], result: int, constants: dict) -> Step:
    """Steps that follow each other as one, constants inside of it."""
    made = [place for step in group for place in step.outputs]
    inside = {id(step) for step in group}
    fixed = {place: constants[place] for step in group for place in step.inputs if place in constants}
    inputs = tuple(dict.fromkeys(p for step in group for p in step.inputs if p not in fixed and p not in made))
    elsewhere = {place for step in steps if id(step) not in inside for place in step.inputs} | {result}
    outputs = tuple(place for place in made if place in elsewhere)

    def function(*values):
        known = run(group, fixed | dict(zip(inputs, values, strict=True)))
        return tuple(known[place] for place in outputs)

    kind = "elementwise" if all(step.kind == "elementwise" for step in group) else ""
    return Step(name, name, function, inputs, outputs, kind, sum(step.operations for step in group), None)


def run(steps: Sequence[Step], known: dict[int, Any]) -> dict[int, Any]:
    """The values at all places."""
    known = dict(known)
    for step in steps:
        known.update(zip(step.outputs, step.function(*(known[place] for place in step.inputs)), strict=True))
    return known


def is_float(x: Any) -> bool:
    """Whether it has a gradient: half precision counts, integers, booleans and keys do not."""
    return jnp.issubdtype(x.dtype, jnp.floating)
