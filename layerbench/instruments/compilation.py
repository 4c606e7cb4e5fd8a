"""A model under `torch.compile`, whose kernels are known and can be timed one by one.

Inductor writes a Python function for each graph, which calls the kernels one after the other. Its
code is exchanged for one that reads the clock around each kernel, or puts a range of the profiler
around it, for a forward, and put back. So
kernels, their order and all else is what runs unobserved. A kernel's time has what the code does
for it, as a layer's has in Python: it allocates the result, and frees what was read last
(docs/decisions/0039).
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch
from torch import nn
from torch._C._profiler import _RecordFunctionFast as RecordFunction

from layerbench.environment.notices import variables_kept
from layerbench.errors import first_line
from layerbench.instruments.kernels import RANGE
from layerbench.instruments.modules import named_instances
from layerbench.instruments.provenance import Part, Places, Spot, parts_of

NO_PROVENANCE = "this release of PyTorch does not tell from which layers a kernel was made"
NOT_PYTHON = "torch.compile wrote no Python code whose kernels could be timed"

_HANDLE = re.compile(r"# \[Provenance debug handles\] (\S+):(\d+)\s*$")
_TELLS = "set_kernel_post_grad_provenance_tracing"
_WRITES = "compile_to_module"
_NOW, _NOTE, _RANGES = "_layerbench_now", "_layerbench_note", "_layerbench_ranges"
# Statements that call these are no kernels: they allocate, check, or look at memory in another way.
_CHECKS = "assert_"
_GLUE = ("empty_strided", _CHECKS, "reinterpret_tensor", "get_raw_stream", "alloc_from_pool")
_OF_A_LIBRARY = ("extern_kernels.", "torch.ops.", "aten.", "cpp_fused", ".run(")
_OPTIONS = {"trace.provenance_tracking_level": 1, "fx_graph_cache": False}


@dataclass(frozen=True)
class CompiledKernel:
    """One call of a kernel in a graph's code.

    Attributes:
        name: Inductor's, or the library's function.
        parts: the layers in it; empty where nobody knows.
    """

    name: str
    parts: tuple[Part, ...] = ()


Replaced = tuple[FunctionType, CodeType, CodeType]
"""A function of Inductor's, its own code, and the code that takes its place."""


@dataclass
class CompiledGraph:
    """One graph: the code that runs its kernels.

    Attributes:
        kernels: in the order of the code.
        entries: of the forward that runs: start, end and the kernel's number, one after the other.
    """

    kernels: list[CompiledKernel]
    entries: list[int] = field(default_factory=list)
    _module: ModuleType | None = None
    _codes: list[Replaced] = field(default_factory=list)
    _ranged: list[Replaced] = field(default_factory=list)

    @classmethod
    def of(cls, module: ModuleType, made: Mapping[int, CompiledKernel]) -> CompiledGraph:
        """The graph whose code is a module that Inductor wrote.

        Args:
            module: of Inductor's cache of code.
            made: kernels by the number that the code's comments have.
        """
        kernels, codes = _rewritten(module, made, _between_readings)
        return cls(kernels, _module=module, _codes=codes)

    def attach(self) -> None:
        """Read the clock around each kernel from now on."""
        self.entries.clear()
        names = {_NOW: time.perf_counter_ns, _NOTE: self.entries.append}
        self._exchange(self._codes, names)

    def attach_ranges(self, first: int) -> None:
        """Put one of the profiler's ranges around each kernel from now on.

        Args:
            first: the number in the name of the first kernel's range; others follow.
        """
        if self._module is None:
            return
        if not self._ranged:
            _, self._ranged = _rewritten(self._module, {}, _within_range)
        ranges = [RecordFunction(f"{RANGE}{first + at}") for at in range(len(self.kernels))]
        self._exchange(self._ranged, {_RANGES: ranges})

    def _exchange(self, codes: Sequence[Replaced], names: Mapping[str, object]) -> None:
        if self._module is None:
            return
        self._module.__dict__.update(names)
        for function, _, new in codes:
            function.__code__ = new

    def detach(self) -> None:
        """Run the code as Inductor wrote it."""
        if self._module is None:
            return
        for function, old, _ in self._codes:
            function.__code__ = old
        for name in (_NOW, _NOTE, _RANGES):
            self._module.__dict__.pop(name, None)

    def times_ns(self) -> dict[int, tuple[int, int]]:
        """Of the forward that ran: calls and nanoseconds by a kernel's number."""
        times: dict[int, tuple[int, int]] = {}
        for start, end, number in zip(*(self.entries[at::3] for at in range(3)), strict=True):
            calls, taken = times.get(number, (0, 0))
            times[number] = calls + 1, taken + end - start
        return times


class Compilation:
    """A model compiled by Inductor for a measurement, apart from what its owner compiled of it.

    Nothing is taken from PyTorch's caches of graphs, which do not hold what is asked; compiled C++
    is. Nothing is compiled before the first call.

    Args:
        model: not compiled yet.
        mode: of `torch.compile`.

    Attributes:
        runs: takes the place of the model.
        graphs: those that were compiled so far, in this order.
        traced: graphs that Dynamo handed over, those without a kernel included.
        tells: whether this release tells of graphs at all.
        failed: why a graph's kernels are not known; empty where they are.
    """

    def __init__(self, model: nn.Module, mode: str) -> None:
        self._model = model
        self._paths = {id(one): path for path, one in named_instances(model).items()}
        self.graphs: list[CompiledGraph] = []
        self.traced = 0
        self.failed = ""
        self.runs: Callable[..., Any]
        self.tells = not why_unknown()
        if not self.tells:  # nor has such a release the options that would tell
            self.runs = torch.compile(model, mode=mode)
        else:
            backend = _backend(mode, self._watched)
            self.runs = torch.compile(model, backend=backend, **_apart())

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Note what Inductor makes of a graph, while it does."""
        from torch._inductor import debug
        from torch._inductor.graph import GraphLowering

        self.traced += 1
        places = Places(self._model, self._paths, _locals_of_frame())
        made: dict[int, CompiledKernel] = {}
        asks, writes = getattr(debug, _TELLS), getattr(GraphLowering, _WRITES)

        def asked(kernel: Any, name: str, is_extern: bool = False) -> int | None:  # noqa: ANN401
            number: int | None = asks(kernel, name, is_extern)
            if number is not None:
                made[number] = CompiledKernel(name, self._parts(kernel, places))
            return number

        def written(lowering: Any) -> Any:  # noqa: ANN401 - Inductor's
            module = writes(lowering)
            self._add(module, made)
            return module

        places_of_it = [
            module
            for name, module in list(sys.modules.items())
            if name.startswith("torch._inductor") and module.__dict__.get(_TELLS) is asks
        ]
        try:
            for module in places_of_it:
                setattr(module, _TELLS, asked)
            setattr(GraphLowering, _WRITES, written)
            with variables_kept("_TORCHINDUCTOR_"):  # an address, for the C++ that it loads
                yield
        finally:
            setattr(GraphLowering, _WRITES, writes)
            for module in places_of_it:
                setattr(module, _TELLS, asks)

    def _parts(self, kernel: Any, places: Places) -> tuple[Part, ...]:  # noqa: ANN401
        try:
            return parts_of(kernel, places)
        except Exception as error:
            # What is Inductor's own may change with each release.
            self.failed = f"{NO_PROVENANCE}: {first_line(error)}"
            return ()

    def _add(self, module: Any, made: Mapping[int, CompiledKernel]) -> None:  # noqa: ANN401
        try:
            self.graphs.append(CompiledGraph.of(module, made))
        except Exception as error:
            self.failed = f"{NOT_PYTHON}: {first_line(error)}"

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Time the kernels of the forward that runs in the ``with`` block."""
        try:
            for graph in self.graphs:
                graph.attach()
            yield
        finally:
            for graph in self.graphs:
                graph.detach()

    @contextmanager
    def ranged(self) -> Iterator[None]:
        """Put the profiler's ranges around the kernels that run in the ``with`` block.

        The range of kernel ``at`` of `numbers` has the number ``at + 1``: 0 is the model's own.
        """
        first = 1
        try:
            for graph in self.graphs:
                graph.attach_ranges(first)
                first += len(graph.kernels)
            yield
        finally:
            for graph in self.graphs:
                graph.detach()

    def numbers(self) -> list[tuple[int, int]]:
        """Every kernel: its graph's number, and its own in the order of the graph's code."""
        return [
            (number, kernel)
            for number, graph in enumerate(self.graphs)
            for kernel in range(len(graph.kernels))
        ]

    def kernel(self, number: tuple[int, int]) -> CompiledKernel:
        """The kernel with one of `numbers`."""
        graph, kernel = number
        return self.graphs[graph].kernels[kernel]

    def forget(self) -> None:
        """Throw away the times so far, in the midst of `attached`."""
        for graph in self.graphs:
            graph.entries.clear()

    def times_ns(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Of the last forward that was timed, by graph and kernel: calls and nanoseconds."""
        return {
            (number, kernel): times
            for number, graph in enumerate(self.graphs)
            for kernel, times in graph.times_ns().items()
        }


def why_unknown() -> str:
    """Why the layers in a kernel are not to be known; empty where they are."""
    try:
        from torch._inductor import config, debug
        from torch._inductor.graph import GraphLowering

        known = hasattr(debug, _TELLS) and hasattr(GraphLowering, _WRITES)
        return "" if known and hasattr(config.trace, "provenance_tracking_level") else NO_PROVENANCE
    except ImportError as error:
        return f"{NO_PROVENANCE}: {first_line(error)}"


def _apart() -> dict[str, Any]:
    """The option that counts recompilations of this measurement alone, where a release has it.

    Dynamo gives up a function that it has compiled eight times, and counts what was compiled of
    other models of one class: the ninth measurement in a process would run uncompiled.
    """
    known = "isolate_recompiles" in inspect.signature(torch.compile).parameters
    return {"isolate_recompiles": True} if known else {}


def _backend(mode: str, watched: Callable[[], Any]) -> Any:  # noqa: ANN401 - of `torch.compile`
    """Inductor as ``torch.compile(mode=...)`` runs it, watched.

    Dynamo reuses what was compiled with an equal backend: this one equals no other.
    """
    from torch import _TorchCompileInductorWrapper
    from torch._functorch import config

    class Watched(_TorchCompileInductorWrapper):
        __name__ = "inductor"

        def __eq__(self, other: object) -> bool:
            return self is other

        def __hash__(self) -> int:
            return id(self)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            with watched(), config.patch(enable_autograd_cache=False):
                return super().__call__(*args, **kwargs)

    return Watched(mode, dict(_OPTIONS), None)


def _locals_of_frame() -> Mapping[str, Any]:
    """The variables of the frame that Dynamo traces: what sources of modules begin with."""
    try:
        from torch._dynamo.symbolic_convert import InstructionTranslator

        return dict(InstructionTranslator.current_tx().f_locals)
    except (ImportError, AttributeError):
        return {}


# --- the code that Inductor wrote ----------------------------------------------------------


Around = Callable[[Sequence[ast.stmt], int], list[ast.stmt]]
"""Puts something around the statements of a kernel, whose number it is told."""


def _rewritten(
    module: ModuleType, made: Mapping[int, CompiledKernel], around: Around
) -> tuple[list[CompiledKernel], list[Replaced]]:
    """The kernels of a module that Inductor wrote, and its functions with something around them."""
    with open(str(module.__file__), encoding="utf-8") as file:
        source = file.read()
    marked = _Marked(source, made, around)
    tree = marked.visit(ast.parse(source))
    whole = compile(ast.fix_missing_locations(tree), str(module.__file__), "exec")
    news = {(code.co_name, code.co_firstlineno): code for code in _codes_in(whole)}
    replaced = []
    for function in _functions(module):
        old = function.__code__
        new = news.get((old.co_name, old.co_firstlineno))
        if new is not None and old.co_name in marked.changed:
            replaced.append((function, old, new))
    return marked.kernels, replaced


def _between_readings(statements: Sequence[ast.stmt], number: int) -> list[ast.stmt]:
    now = f"{_NOTE}({_NOW}())"
    before, *behind = (_parsed(text) for text in (now, now, f"{_NOTE}({number})"))
    return [before, *statements, *behind]


def _within_range(statements: Sequence[ast.stmt], number: int) -> list[ast.stmt]:
    range_ = ast.parse(f"{_RANGES}[{number}]", mode="eval").body
    return [ast.With([ast.withitem(range_)], list(statements))]


class _Marked(ast.NodeTransformer):
    """Puts something around each kernel.

    Attributes:
        kernels: those found.
        changed: names of the functions that call them.
    """

    def __init__(self, source: str, made: Mapping[int, CompiledKernel], around: Around) -> None:
        self.kernels: list[CompiledKernel] = []
        self.changed: set[str] = set()
        self._made = made
        self._around = around
        self._source = source
        lines = source.splitlines()
        found = ((at, _HANDLE.search(line)) for at, line in enumerate(lines, 1))
        self._handles = [(at, match[1], int(match[2])) for at, match in found if match]
        self._function = ""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Only what runs a graph calls kernels."""
        if node.name != "call" and not node.name.startswith("partition_"):
            return node
        self._function = node.name
        self._handles_left = [one for one in self._handles if one[0] >= node.lineno]
        node.body = self._statements(node.body)
        return node

    def _statements(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        result: list[ast.stmt] = []
        rest = list(body)
        while rest:
            one = rest.pop(0)
            inner = getattr(one, "body", None)
            if isinstance(inner, list):
                one.body = self._statements(inner)  # type: ignore[attr-defined]
                if orelse := getattr(one, "orelse", None):
                    one.orelse = self._statements(orelse)  # type: ignore[attr-defined]
            kernel = None if isinstance(inner, list) else self._kernel(one)
            if kernel is None:
                result.append(one)
                continue
            before, after = _taken_last(result, _makes_room), _taken_first(rest, _tidies_up)
            result += self._timed([*before, one, *after], kernel)
        return result

    def _kernel(self, statement: ast.stmt) -> CompiledKernel | None:
        """The kernel that a statement calls; ``None`` for a statement that calls none."""
        if not any(isinstance(one, ast.Call) for one in ast.walk(statement)):
            return None
        text = ast.get_source_segment(self._source, statement) or ""
        waiting = [one for one in self._handles_left if one[0] < statement.lineno]
        for handle in waiting:
            _, name, number = handle
            if f"{name}(" in text or f"{name}.run(" in text or not _is_glue(text):
                self._handles_left.remove(handle)
                return self._made.get(number, CompiledKernel(name))
        if not _is_glue(text) and any(word in text for word in _OF_A_LIBRARY):
            return CompiledKernel(text.rpartition("= ")[2].partition("(")[0].strip())
        return None

    def _timed(self, statements: Sequence[ast.stmt], kernel: CompiledKernel) -> list[ast.stmt]:
        self.changed.add(self._function)
        self.kernels.append(kernel)
        result = self._around(statements, len(self.kernels) - 1)
        for one in result:
            if one not in statements:
                ast.copy_location(one, statements[0])
        return result


def _makes_room(statement: ast.stmt) -> bool:
    """Whether a statement before a kernel allocates its result, or reuses what is there."""
    if isinstance(statement, ast.Delete):
        return True
    return isinstance(statement, ast.Assign) and (
        isinstance(statement.value, ast.Name) or _is_glue(ast.unparse(statement))
    )


def _tidies_up(statement: ast.stmt) -> bool:
    """Whether a statement behind a kernel checks its result, or frees what it read."""
    return isinstance(statement, ast.Delete) or (
        isinstance(statement, ast.Expr) and ast.unparse(statement).startswith(_CHECKS)
    )


def _taken_last(statements: list[ast.stmt], belongs: Callable[[ast.stmt], bool]) -> list[ast.stmt]:
    taken: list[ast.stmt] = []
    while statements and belongs(statements[-1]):
        taken.insert(0, statements.pop())
    return taken


def _taken_first(statements: list[ast.stmt], belongs: Callable[[ast.stmt], bool]) -> list[ast.stmt]:
    taken: list[ast.stmt] = []
    while statements and belongs(statements[0]):
        taken.append(statements.pop(0))
    return taken


def _is_glue(text: str) -> bool:
    return text.rpartition("= ")[2].lstrip().startswith(_GLUE)


def _parsed(text: str) -> ast.stmt:
    return ast.parse(text).body[0]


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes_in(constant)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """The functions of a module and of its classes, each once."""
    classes = [one for one in vars(module).values() if isinstance(one, type)]
    own = [one for one in classes if one.__module__ == module.__name__]
    for holder in (module, *own):
        for one in list(vars(holder).values()):
            if isinstance(one, FunctionType) and one.__module__ == module.__name__:
                yield one


__all__ = ["NO_PROVENANCE", "Compilation", "CompiledGraph", "CompiledKernel", "Spot", "why_unknown"]
