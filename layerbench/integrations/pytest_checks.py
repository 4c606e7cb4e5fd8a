"""The fixture ``layerbench``: a model's time beside a record or another model, size and memory."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from layerbench.environment.extras import advice_if_lacking
from layerbench.environment.origins import leave_out_own_calls
from layerbench.errors import (
    ComparisonError,
    LayerbenchError,
    ModelRunError,
    OutputError,
    RecordError,
    UsageError,
    at_least,
    is_number,
)
from layerbench.integrations import pytest_settings
from layerbench.integrations.pytest_plugin import SKIPPED, is_measuring
from layerbench.integrations.pytest_summary import (
    Told,
    advice_if_unclear,
    complaint,
    figures_of,
    limit_row,
    told,
    verdict_of,
    why_unclear,
)
from layerbench.records.defaults import FEWEST_ROUNDS
from layerbench.units import parse_bytes, parse_count

if TYPE_CHECKING:
    from torch import nn

    from layerbench.integrations.pytest_measuring import Inputs, Model, Subject, Values
    from layerbench.records.comparison import Comparison
    from layerbench.records.timing import Profile

STRICT = "--layerbench-strict"
# In the name of a record: a file system may refuse others, and a name with two dots is no record's.
_REFUSED = re.compile(r"[^\w\-\[\]=,+@]")
_LONGEST = 100
# Kinds of records that hold times.
_WITH_TIMES = ("profile", "bundle")


@dataclass(frozen=True)
class Outcome:
    """What a check came to.

    Attributes:
        verdict: FASTER, SAME, UNCLEAR, UPDATED, or WITHIN where limits alone were checked.
        comparison: of the times; ``None`` where none were compared.
        record: of this model's time, where it was measured alone.
        values: what was limited, by name: parameters, FLOPs and peak bytes.
    """

    verdict: str
    comparison: Comparison | None = None
    record: Profile | None = None
    values: Mapping[str, int] | None = None


class LayerbenchFixture:
    """What the fixture ``layerbench`` gives to one test."""

    def __init__(self, item: pytest.Item, told_so_far: list[Told]) -> None:
        self._item = item
        self._told = told_so_far
        self._unnamed = 0

    def check(
        self,
        model: Model | Callable[[], nn.Module],
        inputs: Inputs = None,
        *,
        against: str | PathLike[str] | None = None,
        reference: Model | Callable[[], nn.Module] | None = None,
        threshold: str | float | None = None,
        iterations: int | None = None,
        warmup: int | None = None,
        threads: int | None = None,
        processes: int | None = None,
        device: str | None = None,
        same_model: bool = False,
        max_parameters: float | str | None = None,
        max_flops: float | str | None = None,
        max_peak_bytes: float | str | None = None,
    ) -> Outcome:
        """Fail the test if the model is slower than it was, slower than another, or too large.

        Limits are checked first, with and without ``--layerbench``. With limits alone nothing is
        timed. What measures time is skipped here unless pytest runs with ``--layerbench``.

        Args:
            model: a module, a model's name, or a function that makes a module.
            inputs: a tensor, a tuple of arguments, a dict of keyword arguments, or a shape such as
                ``"1x3x224x224"``, as `layerbench.profile` takes them.
            against: path of a record (.json), from pytest's root folder. Without it and without
                ``reference`` it is the record of this test on this kind of machine, in the folder
                that the ini file names.
            reference: another model, measured in turn with this one.
            threshold: changes up to this are none: ``"5%"`` or 0.05.
            iterations, warmup, threads, processes: as in `layerbench.profile`. What neither the
                call nor a marker nor the ini file says is as in the record, also where a new
                one takes its place.
            device: as in `layerbench.profile`.
            same_model: whether the record is of this model, though it goes by another name.
            max_parameters, max_flops: of the model, and of one forward: a number, or text such as
                ``"25.6 M"`` and ``"8.2 GFLOPs"``. A multiply-add is 2 FLOPs.
            max_peak_bytes: of all tensors at the peak of one forward, that is weights, inputs and
                activations: bytes, or text such as ``"120 MiB"``.

        Returns:
            what came out, unless the test fails or is skipped.
        """
        __tracebackhide__ = True
        given = {
            "threshold": threshold,
            "iterations": iterations,
            "warmup": warmup,
            "threads": threads,
            "processes": processes,
        }
        limits = {
            "parameters": max_parameters,
            "FLOPs": max_flops,
            "peak bytes": max_peak_bytes,
        }
        try:
            settings = pytest_settings.of_check(self._item, given)
            most = {name: _most(name, text) for name, text in limits.items() if text is not None}
            if against is not None and reference is not None:
                raise UsageError("layerbench.check takes against or reference, not both")
            timed = not most or against is not None or reference is not None
            if not (most or is_measuring(self._item.config)):
                pytest.skip(SKIPPED)  # before torch is loaded, or the model made

            from layerbench.integrations.pytest_measuring import Subject, made, values

            model = made(model)
            limited: dict[str, int] | None = None
            if most:
                found = values(model, inputs, device, {*most})
                limited = found.of
                self._judge_limits(found, most)
                if not timed:
                    return Outcome("WITHIN", values=limited)
            if not is_measuring(self._item.config):
                pytest.skip(SKIPPED)
            subject = Subject.of(model, inputs, device)
            if reference is None:
                outcome = self._beside_record(subject, against, same_model, settings)
            else:
                other = made(reference)
                outcome = self._beside_reference(subject, model, other, inputs, device, settings)
            return replace(outcome, values=limited)
        except ModelRunError as error:
            # What the model raised is of use.
            if not self._item.config.getoption("fulltrace"):
                leave_out_own_calls(error)
            raise error
        except OutputError as error:
            # Its own advice is for command lines.
            cause = error.__cause__
            reason = getattr(cause, "strerror", None) or str(cause)
            wrong = f"cannot write the record: {reason}; name another place with against="
        except (LayerbenchError, ModuleNotFoundError) as error:
            wrong = str(error) if isinstance(error, LayerbenchError) else advice_if_lacking(error)
            if not wrong:  # what the user's own code lacks
                raise
        pytest.fail(wrong)

    # --- limits -------------------------------------------------------------------------------

    def _judge_limits(self, found: Values, most: Mapping[str, int]) -> None:
        """Fail the test if a value is beyond its limit."""
        __tracebackhide__ = True
        rows = [limit_row(name, found.of[name], limit) for name, limit in most.items()]
        beyond = [row for row in rows if row[-1] == "EXCEEDED"]
        verdict = "EXCEEDED" if beyond else "WITHIN"
        self._tell(found.work, verdict, limits=rows, why=found.notes)
        if beyond:
            said = "; ".join(f"{what} {value}, at most {limit}" for what, value, limit, _ in beyond)
            pytest.fail(f"{found.work} is beyond its limit: {said}")

    # --- times --------------------------------------------------------------------------------

    def _beside_reference(
        self,
        subject: Subject,
        model: Model,
        reference: Model,
        inputs: Inputs,
        device: str | None,
        settings: dict[str, Any],
    ) -> Outcome:
        from layerbench.api.comparison import compare_live

        __tracebackhide__ = True
        if "iterations" in settings:
            at_least("iterations", settings["iterations"], FEWEST_ROUNDS)
        if model is reference:
            raise UsageError("the reference is the model itself: pass another one, or a copy of it")
        notes: list[str] = []
        with subject.to_itself(notes.append):
            comparison = compare_live(reference, model, inputs, device=device, **settings)
        beside = f"reference {comparison.baseline.name}"
        return self._judge(subject, comparison, beside, notes)

    def _beside_record(
        self,
        subject: Subject,
        against: str | PathLike[str] | None,
        same_model: bool,
        settings: dict[str, Any],
    ) -> Outcome:
        from layerbench.analysis.comparison import THRESHOLD, check_comparable, compare
        from layerbench.integrations.pytest_measuring import plan_as

        __tracebackhide__ = True
        threshold = settings.pop("threshold", THRESHOLD)
        path = self._place(against, subject)
        if self._item.config.getoption("layerbench_update"):
            return self._update(path, subject, settings)
        # Unlike Path.exists, it has an answer for a name that is too long.
        if not os.path.exists(path):
            self._no_record(path, subject, of_test=against is None)
        baseline = self._read(path)
        names = (self._shown(path), "now")
        other = subject.other_machine(baseline)
        if other:
            here = subject.this_machine()
            self._not_compared(subject, names[0], f"{names[0]} is of {other}, this is {here}")
        same_model = same_model or subject.is_of(baseline)
        try:
            check_comparable(baseline.workload, subject.workload, names, same_model=same_model)
        except ComparisonError as error:
            raise ComparisonError(f"{error}. {self._if_meant()}") from None
        notes: list[str] = []
        record = subject.as_in(baseline).measured(plan_as(baseline, settings), notes.append)
        comparison = compare(
            baseline, record, names=names, threshold=threshold, same_model=same_model
        )
        return self._judge(subject, comparison, names[0], notes, record)

    def _judge(
        self,
        subject: Subject,
        comparison: Comparison,
        beside: str,
        notes: list[str],
        record: Profile | None = None,
    ) -> Outcome:
        """Fail the test if anything is slower."""
        __tracebackhide__ = True
        verdict = verdict_of(comparison)
        why: list[str] = []
        if verdict == "UNCLEAR":
            why = why_unclear(comparison)
            notes += filter(None, [advice_if_unclear(comparison)])
        figures = figures_of(comparison)
        self._tell(subject.work, verdict, beside=beside, figures=figures, why=why, notes=notes)
        if verdict == "SLOWER":
            update = "" if record is None else self._if_meant()
            pytest.fail(complaint(comparison, beside, update))
        if comparison.disturbed and self._is_strict():
            pytest.fail(f"{STRICT}: {comparison.disturbed}")
        return Outcome(verdict, comparison, record)

    def _update(self, path: Path, subject: Subject, settings: dict[str, Any]) -> Outcome:
        """Measure as the record that was there was measured, and write the new one."""
        from layerbench import reporters
        from layerbench.integrations.pytest_measuring import plan_as
        from layerbench.store import writing

        self._check_replaceable(path)
        writing.check_writable(path.parent)
        before = _times_of(path)
        if before is not None and not subject.other_machine(before):
            subject = subject.as_in(before)
        else:
            before = None
        notes: list[str] = []
        record = subject.measured(plan_as(before, settings), notes.append)
        writing.write_text(path, reporters.render("json", record))
        why = [*record.environment.warnings]
        if record.environment.machine.too_busy:
            why.append("Comparisons with this record will be UNCLEAR: update it on a quiet machine")
        self._tell(subject.work, "UPDATED", written=self._shown(path), why=why, notes=notes)
        return Outcome("UPDATED", record=record)

    def _check_replaceable(self, path: Path) -> None:
        """Refuse to write over what is no record of times; a damaged file is written anew.

        Raises:
            UsageError: says what the file holds.
        """
        if holds := _holds_instead(path):
            raise UsageError(
                f"{self._shown(path)} {holds}, and is not written over: name another file with "
                "against="
            )

    def _read(self, path: Path) -> Profile:
        """The times in a record.

        Raises:
            RecordError: it cannot be read, or has none; the message says what replaces it.
        """
        from layerbench.records.bundle import times_in
        from layerbench.store.reading import with_times

        try:
            times = times_in(with_times(path))
        except RecordError as error:
            if isinstance(error.__cause__, OSError):
                raise
            if _holds_instead(path):
                raise RecordError(f"{error}: name another file with against=") from error
            raise RecordError(f"{error}. {self._update_command()} writes it anew.") from error
        assert times is not None  # or it would not have been read
        return times

    def _no_record(self, path: Path, subject: Subject, *, of_test: bool) -> NoReturn:
        """Fail the test, or skip it where only other machines have a record of it."""
        __tracebackhide__ = True
        if of_test:
            folder = self._folder()
            rest = path.relative_to(folder / subject.device.describe().slug)
            others = sorted(other.name for other in folder.glob("*") if (other / rest).exists())
            if others:
                here = f"its records are of {', '.join(others)}, this is {subject.this_machine()}"
                self._not_compared(subject, self._shown(path), here)
        pytest.fail(f"there is no record {self._shown(path)}: {self._update_command()} makes it")

    def _not_compared(self, subject: Subject, beside: str, why: str) -> NoReturn:
        __tracebackhide__ = True
        update = self._update_command()
        why = f"times of another machine are not compared: {why}; {update} measures here"
        self._tell(subject.work, "NOT COMPARED", beside=beside, why=[why])
        if self._is_strict():
            pytest.fail(f"{STRICT}: {why}")
        pytest.skip(why)

    def _update_command(self) -> str:
        """What writes the records of this test, and of no other."""
        _, *names = self._item.nodeid.split("::")
        test = "::".join((self._from_call(self._item.path), *names))
        return shlex.join(["pytest", "--layerbench-update", *self._root_options(), test])

    def _root_options(self) -> Iterator[str]:
        """What leads pytest to the same root folder and ini file, where a test alone does not."""
        config = self._item.config
        said = config.option.inifilename or config.option.rootdir
        if not said and self._item.path.is_relative_to(config.rootpath):
            return
        if config.inipath is not None:
            yield from ("-c", self._from_call(config.inipath))
        if config.inipath is None or config.inipath.parent != config.rootpath:
            yield from ("--rootdir", self._from_call(config.rootpath))

    def _from_call(self, path: Path) -> str:
        """A path as a command line has it: it begins where pytest was called."""
        return Path(os.path.relpath(path, self._item.config.invocation_params.dir)).as_posix()

    def _if_meant(self) -> str:
        """What a failing test says at last: how its record is replaced."""
        return f"If this is meant: {self._update_command()} writes a new record."

    def _is_strict(self) -> bool:
        return bool(self._item.config.getoption("layerbench_strict"))

    # --- places -------------------------------------------------------------------------------

    def _folder(self) -> Path:
        return self._from_root(str(self._item.config.getini("layerbench_folder")))

    def _from_root(self, path: str) -> Path:
        """One path for each file, however it is written."""
        return Path(os.path.normpath(self._item.config.rootpath / os.path.expanduser(path)))

    def _place(self, against: str | PathLike[str] | None, subject: Subject) -> Path:
        """Of the record: the one that the check names, or this test's own on such a machine."""
        if against is not None:
            named = os.fspath(against) if isinstance(against, (str, PathLike)) else ""
            if not isinstance(named, str) or "\0" in named or Path(named).suffix != ".json":
                raise UsageError(f"against names a record, a .json file, not {against!r}")
            return self._from_root(named)
        self._unnamed += 1
        number = f"-{self._unnamed}" if self._unnamed > 1 else ""
        names = [*self._names_of_file(), *_names_in_file(self._item)]
        *folders, name = map(_as_file, names)
        folder = self._folder() / subject.device.describe().slug
        return folder.joinpath(*folders, f"{name}{number}.json")

    def _names_of_file(self) -> Sequence[str]:
        """Of the test's file: its folders from the root folder, and itself.

        Of one elsewhere, as that of an installed package, those of its module: its node ID begins
        wherever the command line says.
        """
        path, root = self._item.path.with_suffix(""), self._item.config.rootpath
        if path.is_relative_to(root):
            return path.relative_to(root).parts
        module = getattr(self._item, "module", None)
        return path.name.split(".") if module is None else module.__name__.split(".")

    def _shown(self, path: Path) -> str:
        """The path from the root folder, where it is below that."""
        root = self._item.config.rootpath
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

    def _tell(self, model: str, verdict: str, **rest: Any) -> None:  # noqa: ANN401 - see `told`
        self._told.append(told(self._item.nodeid, model, verdict, **rest))


def _times_of(path: Path) -> Profile | None:
    """The times in a record; ``None`` where there is none that can be read."""
    from layerbench.records.bundle import times_in
    from layerbench.store.reading import with_times

    try:
        return times_in(with_times(path))
    except LayerbenchError:
        return None


def _holds_instead(path: Path) -> str:
    """What a file holds that is no record of times; empty for one that is, or is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    kind = content.get("record") if isinstance(content, dict) else None
    if kind in _WITH_TIMES:
        return ""
    return f"holds a {kind} record" if isinstance(kind, str) else "is no layerbench record"


def _names_in_file(item: pytest.Item) -> list[str]:
    """Of a test: its classes and itself. Parameters may hold what parts them in a node ID."""
    chain = item.listchain()
    files = [at for at, node in enumerate(chain) if isinstance(node, pytest.File)]
    return [node.name for node in chain[max(files, default=-1) + 1 :]]


def _as_file(name: str) -> str:
    """A name that any file system takes; one that had to be changed has a digest at its end."""
    safe = _REFUSED.sub("_", name)[:_LONGEST]
    return safe if safe == name else f"{safe}-{sha256(name.encode()).hexdigest()[:6]}"


def _most(name: str, limit: float | str) -> int:
    """A limit from a number or a text.

    Raises:
        UsageError: it is neither.
    """
    said = f"max_{name.replace(' ', '_').lower()} of layerbench.check"
    if not isinstance(limit, str):
        # 8.2e9 is a float, and so is 1.05 times what it was.
        if is_number(limit) and math.isfinite(limit):
            limit = math.floor(limit)
        return at_least(said, limit, 0)  # type: ignore[return-value]
    try:
        if name == "peak bytes":
            return parse_bytes(limit)
        return parse_count(limit, unit="FLOPs" if name == "FLOPs" else "")
    except UsageError as error:
        raise UsageError(f"{said}: {error}") from None
