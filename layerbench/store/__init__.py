"""Where a record lies, how it is written whole or not at all, and read back validated. No torch."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from layerbench import records
from layerbench.errors import OutputError, RecordError
from layerbench.records.workload import OWN_WEIGHTS, Frozen, Plan, Workload
from layerbench.text import one_line
from layerbench.units import bytes_

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from layerbench.records import (
        Comparison,
        DetectionEstimates,
        MemoryEstimate,
        MemoryReport,
        Profile,
        Structure,
        TrainingForecast,
        TrainingProfile,
    )

Record = TypeVar("Record")

AnyPath = str | os.PathLike[str]
"""What a caller may name a file or a folder with."""

# Beside a training run's record lies what was asked of it, under this name.
RECIPE = "recipe.json"

MOST_BYTES = 64 * 2**20
"""Of a record's file, which takes some eleven times as much memory: 20,000 rows with all times."""
MOST_VARIABLE = "LAYERBENCH_RECORD_MIB"
"""Of the environment: another limit, in MiB."""

# Characters of a damaged record that a message repeats.
MOST_SAID = 200

# A new kind of record is one more line: the value of its field ``record``, and its class's name in
# `layerbench.records`.
RECORDS: dict[str, str] = {
    "profile": "Profile",
    "structure": "Structure",
    "memory": "MemoryReport",
    "memory estimate": "MemoryEstimate",
    "comparison": "Comparison",
    "training profile": "TrainingProfile",
    "training run": "TrainingRun",
    "training forecast": "TrainingForecast",
    "sweep": "Sweep",
    "detection estimates": "DetectionEstimates",
    "detection run": "DetectionRun",
}


def record_class(kind: str) -> type[Frozen]:
    """The class of a kind of record in `RECORDS`."""
    found: type[Frozen] = getattr(records, RECORDS[kind])
    return found


# --- writing -----------------------------------------------------------------------------


def write_text(path: AnyPath, text: str) -> None:
    """Write a report whole, or leave the old one as it was; UTF-8, lines end in a line feed.

    Raises:
        OutputError: it cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: AnyPath, data: bytes) -> None:
    """Write a file whole, or leave the old one as it was.

    The data go to a temporary file beside it, to the disk, and under the final name in one
    step: a reader, or a process killed at any moment, sees the old file or the new one.
    Folders that are missing are made.

    Raises:
        OutputError: it cannot be written.
    """
    with replaced(path) as file:
        file.write(data)


def write_all(files: Sequence[tuple[AnyPath, bytes]]) -> None:
    """Write several files that belong together: all are there, or all are as they were.

    All lie on the disk beside their places before the first takes its own. Only where the file
    system then refuses a place that it has shown to be writable, some are new and others old.

    Raises:
        OutputError: they cannot be written; the message says which are old where not all are.
    """
    done: list[Path] = []
    paths = [Path(path) for path, _ in files]
    contents = [data for _, data in files]
    with contextlib.ExitStack() as waiting:
        try:
            temporaries = [
                waiting.enter_context(_written(path, data))
                for path, data in zip(paths, contents, strict=True)
            ]
            for temporary, path in zip(temporaries, paths, strict=True):
                os.replace(temporary, path)
                done.append(path)
        except OSError as error:
            raise _cannot_write(paths[len(done)], error, done) from error


@contextlib.contextmanager
def _written(path: Path, data: bytes) -> Iterator[Path]:
    """A file beside a place, whole and on the disk; gone at the end unless it took the place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced(path: AnyPath) -> Iterator[BinaryIO]:
    """As `write_bytes`, for what is written piece by piece: the file takes its place at the end.

    Raises:
        OutputError: it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(path) as file:
            yield file
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_arrays(path: AnyPath, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write arrays as one compressed ``.npz``, whole or not at all.

    Raises:
        OutputError: it cannot be written there.
    """
    write_bytes(path, arrays_file(arrays))


def arrays_file(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """What lies in a compressed ``.npz``."""
    import numpy as np  # readers of records need none

    buffer = io.BytesIO()
    # numpy's stub takes the arrays' names for its option allow_pickle
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        # Exclusive, so that nothing else is overwritten; `open`, so that the umask holds.
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def check_writable(directory: AnyPath) -> None:
    """Find out before a long run whether reports can be written below a folder.

    Makes the folder and a file in it, and takes away again what was not there before.

    Raises:
        OutputError: nothing can be written there.
    """
    directory = Path(directory)
    made: list[Path] = []
    try:
        for folder in _missing(directory):
            folder.mkdir()
            made.append(folder)
        _probe(directory)
    except OSError as error:
        raise _cannot_write(directory, error) from error
    finally:
        for folder in reversed(made):
            # Someone else may have begun to use it meanwhile: then it stays.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _missing(directory: Path) -> list[Path]:
    """The folders on the way to ``directory`` that do not exist, outermost first."""
    missing = []
    for folder in (directory, *directory.parents):
        if os.path.lexists(folder):
            break
        missing.append(folder)
    return missing[::-1]


def _probe(directory: Path) -> None:
    probe = directory / f".{secrets.token_hex(4)}.tmp"
    with probe.open("xb"):
        pass
    probe.unlink()


def _cannot_write(path: Path, error: OSError, new: Sequence[Path] = ()) -> OutputError:
    reason = error.strerror or str(error)
    rest = f"; only {', '.join(map(str, new))} are of this run" if new else ""
    return OutputError(f"cannot write {path}: {reason}{rest}; choose another folder with --out")


# --- reading -----------------------------------------------------------------------------


def read(path: AnyPath) -> Profile:
    """Read and validate a profile.

    Raises:
        RecordError: there is none, or it is damaged; the message names the place.
    """
    record = read_record(path)
    if not isinstance(record, records.Profile):
        kind = getattr(record, "record", type(record).__name__)
        raise RecordError(f"{path} holds a {kind} record, not a profile")
    return record


def read_record(path: AnyPath) -> Frozen:
    """Read and validate a record of any kind in `RECORDS`.

    Raises:
        RecordError: there is none, or it is damaged; the message names the place.
    """
    path = Path(path)
    data = _file_content(path)
    head = _head(path, data)
    kind = _kind(path, head.record)
    _check_version(path, kind, head.schema_version)
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise RecordError(f"{path} is no valid record: {_first_problem(error)}") from error


def read_all(places: Iterable[AnyPath]) -> list[tuple[Path, Profile]]:
    """All profiles in files and in folders, at any depth, sorted by path, each once.

    In a folder, records of other kinds are passed over; a damaged one is an error.

    Raises:
        RecordError: a place is not there, a file is damaged, or a file named as such is no
            profile.
    """
    found: list[tuple[Path, Profile]] = []
    for place in map(Path, places):
        if not place.is_dir():
            found.append((place, read(place)))
            continue
        read_here = ((path, read_record(path)) for path in _records_in(place))
        found += [
            (path, record) for path, record in read_here if isinstance(record, records.Profile)
        ]
    return _each_once(found)


def read_all_kinds(places: Iterable[AnyPath]) -> list[tuple[Path, Frozen]]:
    """All records of any kind in files and in folders, as `read_all`.

    Raises:
        RecordError: a place is not there, or a file is damaged.
    """
    found: list[tuple[Path, Frozen]] = []
    for place in map(Path, places):
        paths = _records_in(place) if place.is_dir() else [place]
        found += [(path, read_record(path)) for path in paths]
    return _each_once(found)


def _records_in(folder: Path) -> Iterator[Path]:
    """A record's name holds one dot; exports such as ``X.trace.json`` hold two.

    What a training run was asked is not a record of what it did.
    """
    return (
        path
        for path in folder.rglob("*.json")
        if path.name.count(".") == 1 and path.name != RECIPE and path.is_file()
    )


def _each_once(found: list[tuple[Path, Record]]) -> list[tuple[Path, Record]]:
    ordered = sorted(dict(found).items())
    by_file = {path.resolve(): (path, record) for path, record in reversed(ordered)}
    return list(reversed(by_file.values()))


def _file_content(path: Path) -> bytes:
    """What a file holds, up to the limit."""
    most = _most_bytes()
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise RecordError(f"there is no record {path}") from None
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # a name with a NUL
        raise RecordError(f"cannot read {path}: {error}") from error
    if len(data) > most:
        raise RecordError(
            f"{path} is larger than a record may be, {bytes_(most)}; a number of MiB in "
            f"{MOST_VARIABLE} lets larger ones be read"
        )
    return data


def _most_bytes() -> int:
    said = os.environ.get(MOST_VARIABLE, "")
    if not said:
        return MOST_BYTES
    if not (said.isascii() and said.isdigit() and 0 < len(said) < 8):
        raise RecordError(f"{MOST_VARIABLE} holds a number of MiB, not {one_line(said, MOST_SAID)}")
    return int(said) * 2**20


class _Head(BaseModel):
    """What says how the rest of a record is to be read."""

    record: Any = None
    schema_version: Any = None


def _head(path: Path, data: bytes) -> _Head:
    try:
        return _Head.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        if problem["type"] != "json_invalid":
            raise RecordError(f"{path} is JSON, but no layerbench record") from None
        raise RecordError(f"{path} {_wrong_json(data, problem['msg'])}") from error


def _wrong_json(data: bytes, message: str) -> str:
    """In the words of Python's reader, which says where; but for what it would accept."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is not JSON: byte {error.start} is not UTF-8 text"
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        ends_early = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        what = "is cut short" if ends_early else "is not JSON"
        return f"{what}: {error.msg} at line {error.lineno} column {error.colno}"
    except (ValueError, RecursionError) as error:
        message = str(error)
    return f"is not JSON that can be read: {one_line(message, MOST_SAID)}"


def _kind(path: Path, name: object) -> type[Frozen]:
    if not isinstance(name, str):
        raise RecordError(f"{path} is JSON, but no layerbench record")
    if name not in RECORDS:
        raise RecordError(
            f"{path} holds an unknown kind of record, {one_line(repr(name), MOST_SAID)}; "
            f"this layerbench reads {', '.join(RECORDS)}"
        )
    return record_class(name)


def _check_version(path: Path, kind: type[Frozen], version: object) -> None:
    readable = get_args(kind.model_fields["schema_version"].annotation)
    if version not in readable:
        raise RecordError(
            f"{path} has schema_version {one_line(repr(version), MOST_SAID)}; this layerbench "
            f"reads {', '.join(map(str, readable))}: measure again, or use the version that wrote "
            "it"
        )


def _first_problem(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False)
    place = one_line(".".join(map(str, first["loc"])), MOST_SAID) or "the record"
    more = f" (and {len(others)} more)" if others else ""
    return f"{place}: {one_line(first['msg'].removeprefix('Value error, '), MOST_SAID)}{more}"


# --- where a record lies -----------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Paths of a profile's two reports, without the ending of a format; they hold no dot.

    Attributes:
        whole: of the whole-model report.
        layers: of the report on every layer.
    """

    whole: Path
    layers: Path


def places(profile: Profile, out: AnyPath) -> Places:
    """``<out>/<device>/<base>`` for the whole model and ``<out>/<device>/layers/<base>``."""
    folder = Path(out) / profile.environment.device.slug
    base = base_name(profile)
    return Places(whole=folder / base, layers=folder / "layers" / base)


def place(
    record: Structure
    | MemoryReport
    | MemoryEstimate
    | Comparison
    | TrainingProfile
    | TrainingForecast
    | DetectionEstimates,
    out: AnyPath,
) -> Path:
    """``<out>/<base>``, without the ending of a format: these do not depend on the machine.

    A training profile, a forecast and estimates do, and lie in their device's folder.
    """
    out = Path(out)
    if record.record == "detection estimates":
        models = [row.model for row in record.rows] + [row.model for row in record.failures]
        what = (models or ["none"])[0] + (f"-and-{len(models) - 1}-more" if len(models) > 1 else "")
        size = "x".join(map(str, record.size))
        name = f"detection_{model_name(what)}_{record.data}_{size}_b{record.batch}"
        if record.min_size is not None:
            name += f"_min{record.min_size}"
        return out / record.environment.device.slug / name
    if record.record == "training profile":
        name = f"{work_name(record.workload)}_{record.optimizer}{_threads(record.plan)}"
        return out / record.environment.device.slug / name
    if record.record == "training forecast":
        recipe = record.recipe
        size = "x".join(map(str, recipe.size))
        name = f"training-time_{model_name(recipe.model)}_{recipe.data}_{size}_b{recipe.batch}"
        return out / record.environment.device.slug / name
    if record.record == "comparison":
        names = [work_name(side.workload) for side in (record.baseline, record.contender)]
        return out / f"comparison_{'_vs_'.join(dict.fromkeys(names))}"
    parts = [work_name(record.workload)]
    if record.record == "memory estimate":
        parts.append(record.device)
    if record.record != "structure" and record.optimizer is not None:
        parts.append(record.optimizer)
    if record.record == "memory" and record.environment.device.kind != "cpu":
        parts.append(record.environment.device.slug)
    return out / "_".join(parts)


def apart(path: AnyPath, record: Structure | MemoryReport | MemoryEstimate) -> Path:
    """The path from `place`, or one beside it where a report of another kind lies already.

    A structure and a measured memory of one workload would else have one name.
    """
    path, ours = Path(path), record.record == "structure"
    for ending in _SAY_THEIR_KIND:
        kind = _kind_of(path.with_name(f"{path.name}{ending}"))
        if kind is not None and (kind == "structure") != ours:
            return path.with_name(f"{path.name}_{'structure' if ours else 'memory'}")
    return path


_SAY_THEIR_KIND = (".json", ".txt", ".md", ".csv")
# Of a record, or at the end of a title.
_KIND = re.compile(r'(?:"record": ?"|: )(structure|memory)\b')


def _kind_of(file: Path) -> str | None:
    """``structure`` or ``memory``; ``None`` where there is no file, or one of something else."""
    try:
        with file.open(encoding="utf-8", errors="replace") as text:
            start = text.read(4096)
    except OSError:
        return None
    if file.suffix == ".csv":
        header = start.partition("\n")[0].split(",")
        return "structure" if "flops" in header else "memory" if "allocated" in header else None
    match = _KIND.search(start)
    return None if match is None else match[1]


def work_name(workload: Workload) -> str:
    """A workload as a file name: model, input, and every choice that is not the default."""
    return "_".join([model_name(workload.model), _input_name(workload), *_variants(workload)])


def base_name(profile: Profile) -> str:
    """A file name for a profile: the workload, and the threads where they were named.

    Two profiles of different work, or with different threads, have different names. What
    only says how thoroughly it was measured (iterations, granularity) is not in it.

    Example:
        ``mobilenet_v2_pascal``, ``resnet50_8x3x224x224_bfloat16_4-threads``
    """
    partial = "_partial" if profile.stop == "interrupted" else ""
    return work_name(profile.workload) + _threads(profile.plan) + partial


def _threads(plan: Plan) -> str:
    if plan.threads is None:
        return ""
    return f"_{plan.threads}-thread{'s' if plan.threads > 1 else ''}"


def model_name(model: str) -> str:
    """A model spec as part of a file name: ``timm:vit.a1`` is ``timm-vit-a1``.

    Of ``path/to/file.py:callable`` it keeps the relative folders, of an absolute path the file.
    """
    source, colon, name = model.rpartition(":")
    if not source.endswith(".py"):
        return _safe(model)
    path = PurePath(source[: -len(".py")])
    shown = path.name if path.is_absolute() else path.as_posix()
    return _safe(f"{shown}{colon}{name}")


def _input_name(workload: Workload) -> str:
    says_batch = workload.input == "x".join(map(str, workload.shape))
    batch = "" if says_batch or workload.batch == 1 else f"-b{workload.batch}"
    return _safe(workload.input) + batch


def _variants(workload: Workload) -> Iterator[str]:
    if workload.dtype != "float32":
        yield workload.dtype
    if workload.memory_format != "contiguous":
        yield _safe(workload.memory_format).replace("_", "-")
    if workload.mode != "eval":
        yield workload.mode
    if workload.compile:
        yield "compiled"
    if workload.weights not in (None, OWN_WEIGHTS):
        yield f"weights-{_safe(str(workload.weights)).lower()}"
    if workload.seed != 0:
        yield f"seed-{workload.seed}"


def _safe(text: str) -> str:
    # No dot either: `Path.with_suffix` would take the end of "resnet50.a1_in1k" for an ending.
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "unnamed"
