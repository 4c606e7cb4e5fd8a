"""Records that somebody damaged, and everything that reads records.

`mutated` takes a record's JSON and a random generator and gives the bytes of another file: a field
of another kind, an extreme, two values exchanged, rows twice or in another order, a tree that is
none, names that are hostile, deep nesting, huge numbers and text, bytes missing or flipped.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from layerbench import plots, reporters
from layerbench.analysis.bundle import joined
from layerbench.analysis.comparison import compare
from layerbench.analysis.views import down_to, finest
from layerbench.api.devices import devices
from layerbench.errors import LayerbenchError
from layerbench.plots.canvas import Drawn
from layerbench.records import kinds
from layerbench.records.timing import Profile
from layerbench.reporters.html.document import bundled, of
from layerbench.reporters.result_table import FORMATS, SORTS, render_table
from layerbench.store import reading
from tests.support import (
    sample_comparisons,
    sample_detection,
    sample_devices,
    sample_profiles,
    sample_runs,
)
from tests.support.every_kind import RECORDS
from tests.support.paths import ROOT
from tests.support.sample_structures import graphed, structure

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 7, 255, 2**31, 2**31 - 1, -(2**31), 2**53 + 1, 2**63 - 1, 2**63, -(2**63)),
    *(10**25, 10**400, 0.0, -0.0, 0.5, 1e-9, 1e-12, 1e-13, 5e-324, 1e-300, 1e12, 1.1e12, 1e100),
    *(1.7e308, -1.7e308, -1e-9, -1e12, float("nan"), float("inf"), -float("inf")),
)
TEXTS: tuple[str, ...] = (
    *("", " ", ".", "..", "a..b", "a.b.c.d.e", "()", "add()", "\n", "a\nb", "\r", "\t", "\x00"),
    *("\x1b[2J\x1b]52;c;aGk=\x07", "\x9b31m", "\u202eabc", "\u2028", "\u200b", "é" * 50, "😀"),
    *("=1+1", "@SUM(1)", "-2+3", "|", "a|b", "`", "``` x", "<script>alert(1)</script>", "]](x)"),
    *("$\\frac{", "%", "\\", "{", "}", "{0}", "%s", "../../x", "/etc/passwd", "nan", "-", "1e999"),
    *("ﷺ" * 100, "🏳️‍🌈", "a" * 500, "x" * 5_000, "y" * 70_000, "." * 3_000, "a." * 2_000 + "a"),
    *("9" * 5_000, "٣", "²", "true", "None", "SLOWER", "forward", "module", "cpu"),
)
OTHERS: tuple[Any, ...] = (
    *(None, True, False, [], {}, [[]], [None], [0], ["a"], {"": 0}, {"a": {}}, [1] * 300),
    *([[1, 2]], [[0, 1], [-1, 5]], [[10**6, 1]], "1", "0.5"),
)


def originals() -> dict[str, dict[str, Any]]:
    """Records of every kind, by name: the tests' own ones, which are small."""
    made = {
        "profile": sample_profiles.layered(),
        "on a GPU": sample_profiles.on_gpu(),
        "kernels": sample_devices.launch_bound(),
        "in processes": sample_profiles.in_processes(),
        "whole": sample_profiles.whole(),
        "structure": graphed(),
        "comparison": sample_comparisons.one_slower(),
        "training run": sample_runs.run(),
        "sweep": sample_runs.sweep(),
        "forecast": sample_runs.forecast(),
        "detection estimates": sample_detection.estimates(),
        "detection run": sample_detection.run(),
        "detection on a GPU": sample_detection.on_gpu(),
    }
    made["cards"] = devices("t4")
    named = ("latency estimate", "latency comparison", "card estimates", "cluster nodes")
    for name in (*named, "device sweeps", "trace profile"):
        made[name] = RECORDS[name]()
    found = {name: json.loads(reporters.render("json", made[name])) for name in made}
    for name, place in COMMITTED.items():
        found[name] = _few_rows(json.loads((ROOT / place).read_text(encoding="utf-8")))
    found["memory estimate"] = _estimate(found["memory"])
    found["bundle"] = {
        **{"record": "bundle", "schema_version": 1},
        **{name: found[name] for name in ("profile", "structure", "memory", "comparison")},
        **{"training": found["training profile"], "absent": {"memory": "there is none"}},
    }
    return found


COMMITTED = {
    "memory": "memory_reports/resnet18_pascal.json",
    "training profile": "examples/training/amd-epyc-2c/resnet18_8x3x64x64_train_sgd.json",
}


def committed() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every record in the repository, as it is."""
    known = kinds.names()
    for path in sorted(ROOT.rglob("*.json")):
        hidden = any(part.startswith(".") for part in path.relative_to(ROOT).parts)
        if hidden or not reading.is_named_as_record(path.name):
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("record") in known:
            yield path, content


def _few_rows(content: dict[str, Any], most: int = 25) -> dict[str, Any]:
    content["rows"] = content["rows"][:most]
    for point in content.get("timeline", ()):
        point["owner"] = None if (point["owner"] or 0) >= most else point["owner"]
        point["changes"] = [c for c in point.get("changes", ()) if c[0] < most]
    return content


def _estimate(memory: dict[str, Any]) -> dict[str, Any]:
    size = memory["peak"]["bytes"]
    interval = {"low": size // 2, "high": size * 2}
    kept = ("workload", "training", "optimizer", "model_type", "rows", "timeline", "notes")
    return {
        "record": "memory estimate",
        "schema_version": 1,
        **{name: memory[name] for name in kept},
        **{"device": "cuda", "how": "fake", "torch": "2", "layerbench": "0"},
        **dict.fromkeys(("peak_bytes", "reserved_bytes", "total_bytes"), size),
        **dict.fromkeys(("peak_interval", "reserved_interval", "total_interval"), interval),
        **{"peak_owner": memory["peak"]["owner"], "peak_phase": "forward"},
        **{"peak_operator": "aten.relu", "by_category": memory["peak"]["by_category"]},
        "workspaces": [
            {"name": "context", "bytes": 5, "low": 1, "high": 9, "inside": False, "why": "it is"}
        ],
        "fit": {
            **{"memory_bytes": size, "fits": "unclear", "largest_batch": 2},
            "largest_batch_peak": size,
        },
    }


# --- mutations -------------------------------------------------------------------------------

Spot = tuple[Any, Any]


def mutated(content: dict[str, Any], draw: random.Random) -> bytes:
    """Another file made of a record."""
    content = copy.deepcopy(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        # What one change took away another may look for.
        with contextlib.suppress(LookupError, TypeError, AttributeError):
            draw.choice(_CHANGES)(content, draw)
    kind = draw.random()
    if kind < 0.03:
        return _nested(content, draw)
    data = json.dumps(content).encode()
    return _damaged(data, draw) if kind < 0.1 else data


def _spots(content: Any) -> list[Spot]:
    """Every place that a value stands in."""
    found: list[Spot] = []
    waiting = [content]
    while waiting:
        one = waiting.pop()
        keys = one if isinstance(one, dict) else range(len(one))
        for key in keys:
            found.append((one, key))
            if isinstance(one[key], dict | list):
                waiting.append(one[key])
    return found


def _a_spot(content: Any, draw: random.Random, *kinds: type) -> Spot | None:
    known = [
        (holder, key) for holder, key in _spots(content) if not kinds or type(holder[key]) in kinds
    ]
    return draw.choice(known) if known else None


def _replace(content: Any, draw: random.Random, values: tuple[Any, ...], *kinds: type) -> None:
    spot = _a_spot(content, draw, *kinds)
    if spot is not None:
        spot[0][spot[1]] = copy.deepcopy(draw.choice(values))


def _number(content: Any, draw: random.Random) -> None:
    _replace(content, draw, NUMBERS, int, float)


def _scaled(content: Any, draw: random.Random) -> None:
    spot = _a_spot(content, draw, int, float)
    if spot is not None:
        value = spot[0][spot[1]] * draw.choice((0, 2, 10, 1000, 10**9, -1, 0.5, 1e-6))
        spot[0][spot[1]] = int(value) if isinstance(spot[0][spot[1]], int) else value


def _text(content: Any, draw: random.Random) -> None:
    _replace(content, draw, TEXTS, str)


def _kind(content: Any, draw: random.Random) -> None:
    _replace(content, draw, OTHERS + NUMBERS[:8] + TEXTS[:8])


def _exchange(content: Any, draw: random.Random) -> None:
    """Two values of one kind change places: the file stays valid most often."""
    spot = _a_spot(content, draw, int, float, str)
    if spot is None:
        return
    other = _a_spot(content, draw, type(spot[0][spot[1]]))
    if other is not None:
        (one, key), (two, name) = spot, other
        one[key], two[name] = two[name], one[key]


def _remove(content: Any, draw: random.Random) -> None:
    spot = _a_spot(content, draw)
    if spot is not None:
        del spot[0][spot[1]]


def _add(content: Any, draw: random.Random) -> None:
    spot = _a_spot(content, draw, dict)
    if spot is not None:
        spot[0][spot[1]][draw.choice((*TEXTS, "note", "live", "rows"))] = draw.choice(OTHERS)


def _a_list(content: Any, draw: random.Random) -> list[Any] | None:
    spot = _a_spot(content, draw, list)
    return None if spot is None else spot[0][spot[1]]


def _empty(content: Any, draw: random.Random) -> None:
    spot = _a_spot(content, draw, list, dict)
    if spot is not None:
        spot[0][spot[1]].clear()


def _shuffle(content: Any, draw: random.Random) -> None:
    items = _a_list(content, draw)
    if items:
        draw.shuffle(items)


def _twice(content: Any, draw: random.Random) -> None:
    items = _a_list(content, draw)
    if items:
        items.insert(draw.randrange(len(items)), copy.deepcopy(draw.choice(items)))


def _many(content: Any, draw: random.Random) -> None:
    items = _a_list(content, draw)
    if items and len(items) < 100:
        items.extend(copy.deepcopy(items[-1]) for _ in range(draw.choice((10, 500))))


def _row(content: Any, draw: random.Random) -> None:
    """A row whose place in the tree is none, or is another one."""
    rows = content.get("rows") or content.get("layers") or []
    if not rows or "path" not in rows[0]:
        return
    row, path = draw.choice(rows), draw.choice((*TEXTS, draw.choice(rows)["path"], "a.b"))
    row["path"] = path
    row["depth"] = draw.choice((path.count(".") + bool(path), 0, 5, 2**31, 300))


def _chain(content: Any, draw: random.Random) -> None:
    """Rows nested one in the other."""
    rows = content.get("rows") or content.get("layers") or []
    if not rows or "path" not in rows[0]:
        return
    path = rows[-1]["path"]
    for depth in range(1, draw.choice((5, 60, 400))):
        below = f"{path}.x" if path else "x"
        rows.append({**copy.deepcopy(rows[-1]), "path": below, "depth": below.count(".") + 1})
        path = below
        assert depth


_CHANGES: tuple[Callable[[Any, random.Random], None], ...] = (
    *(_number, _number, _scaled, _scaled, _text, _text, _kind, _exchange, _exchange, _exchange),
    *(_remove, _add, _empty, _empty, _shuffle, _twice, _many, _row, _row, _chain),
)


def _nested(content: Any, draw: random.Random) -> bytes:
    """Deep nesting, or a number of many digits, where a value was."""
    spot = _a_spot(content, draw)
    mark = "MARK"
    if spot is not None:
        spot[0][spot[1]] = mark
    deep = draw.choice((100, 5_000, 100_000))
    put = draw.choice(("[" * deep + "]" * deep, '{"a":' * deep + "1" + "}" * deep, "9" * deep))
    return json.dumps(content).replace(f'"{mark}"', put, 1).encode()


def _damaged(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    kind = draw.randrange(4)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + draw.randbytes(draw.randrange(1, 9)) + data[at:]
    return data[:at] + data[at + draw.randrange(1, 50) :]


# --- readers ---------------------------------------------------------------------------------

PICTURES = ("icicle", "bars", "memory", "roofline")


def readers(record: Any, other: Any, pictures: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Everything that reads a record, by name; ``other`` is the same record before."""
    for name in reporters.names():
        yield name, partial(reporters.render, name, record)
    yield "report", partial(_page, record)
    for first, second in ((record, other), (other, record), (record, record)):
        if isinstance(first, Profile) and isinstance(second, Profile):
            yield "compare", partial(_compared, first, second)
            yield "report of two", partial(_two, first, second)
    for name in (*FORMATS, "csv"):
        yield f"table in {name}", partial(render_table, [record], SORTS[0], format=name)
    yield "table side by side", partial(render_table, [record, other], side_by_side=True)
    if isinstance(record, Profile):
        yield "finest", partial(_finest, record)
    elif hasattr(record, "rows") and hasattr(record, "workload"):
        yield "down to", partial(_down_to, record)
    for name in pictures:
        yield f"plot {name}", partial(_picture, name, record)


def _page(record: Any) -> None:
    bundle = bundled(record)
    if bundle is not None:
        of(bundle).model_dump_json()


def _compared(first: Profile, second: Profile) -> None:
    found = compare(first, second)
    for name in ("txt", "md", "csv", "json"):
        reporters.render(name, found)


def _two(first: Profile, second: Profile) -> None:
    of(joined([("a", first), ("b", second)])).model_dump_json()


def _finest(record: Profile) -> None:
    for name in ("md", "latex"):
        reporters.render(name, finest(record))


def _down_to(record: Any) -> None:
    if record.record in ("structure", "memory", "memory estimate"):
        reporters.render("txt", down_to(record, 1))


def _picture(name: str, record: Any) -> None:
    if name == "roofline":
        if isinstance(record, Profile):
            made_of = structure(workload=record.workload)
            plots.encoded(plots.roofline(record, made_of), "png")
        return
    if name == "memory":
        if record.record in ("memory", "memory estimate"):
            plots.encoded(plots.memory(record), "png")
    elif isinstance(record, Drawn):
        draw = plots.icicle if name == "icicle" else plots.bars
        plots.encoded(draw(record), "svg")


def read_all(place: Path, other: Any, pictures: tuple[str, ...] = ()) -> Iterator[str]:
    """Every reader on a file.

    Yields:
        the name of each that ran, ``read`` first where the file is a record.
    """
    try:
        record = reading.read(place)
    except LayerbenchError as error:
        check(str(error))
        return
    yield "read"
    for name, reader in readers(record, other, pictures):
        try:
            reader()
        except LayerbenchError as error:
            check(str(error))
        yield name


def check(message: str) -> None:
    """An error is one line that a terminal shows as it is."""
    assert message.isprintable(), message
    assert len(message) < 10_000, len(message)
