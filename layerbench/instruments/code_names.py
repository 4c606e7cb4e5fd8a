"""Whose code something is, and the globals that a function's code names."""

from __future__ import annotations

import opcode
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

# What these keep between calls is theirs: no state of a user's model. Each `assert` of a test's
# model names pytest, which knows all tests and what they hold.
_KEPT_APART = {"torch", "numpy", "layerbench", "pytest", "_pytest"}
_LIBRARIES = (sys.stdlib_module_names | _KEPT_APART) - {"__main__"}
_STORE_GLOBAL = opcode.opmap["STORE_GLOBAL"]

MISSING: Any = object()
"""In the place of a global that does not exist yet."""


def package_of(module: object) -> str:
    """The outermost package of a module's name."""
    return module.partition(".")[0] if isinstance(module, str) else ""


def is_users(module: object) -> bool:
    """Whether a class or function of a module with this name is of the user's making."""
    return package_of(module) not in _LIBRARIES


def globals_named(function: FunctionType) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """The globals that a function reads or writes: where they stand, name and value.

    One that the code would make has the value `MISSING`. Of a user's module that is named, those
    of its globals come too that the code may mean.
    """
    space = function.__globals__
    names, stored = _names(function.__code__)
    for name in names:
        value = space.get(name, MISSING)
        if value is MISSING:
            if name in stored:
                yield space, name, MISSING
            continue
        yield space, name, value
        if isinstance(value, ModuleType) and is_users(value.__name__):
            there = vars(value)
            for inner in names:
                if inner in there:
                    yield there, inner, there[inner]


def _names(code: CodeType) -> tuple[set[str], set[str]]:
    """Names in a function's code and in those inside it: all, and those assigned as globals."""
    names: set[str] = set()
    stored: set[str] = set()
    pending = [code]
    while pending:
        code = pending.pop()
        names.update(code.co_names)
        # Operator and argument alternate in the code's bytes.
        operators = code.co_code[::2]
        if _STORE_GLOBAL in operators:
            arguments = code.co_code[1::2]
            stored.update(
                code.co_names[argument]
                for operator, argument in zip(operators, arguments, strict=True)
                if operator == _STORE_GLOBAL and argument < len(code.co_names)
            )
        pending.extend(inner for inner in code.co_consts if isinstance(inner, CodeType))
    return names, stored
