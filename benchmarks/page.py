"""How fast the page is, in a real browser: rows, sizes, choosing.

rows      a report of about 10,000 rows opened from disk: when it first paints and when its rows are
          there, the row elements in the page, and how long expanding all, sorting and searching
          take, from the event until the next frame has been shown.
sizes     bytes of reports, with and without their data.
choosing  from choosing a model on the page of a warm server until its whole tree is there.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tabulate import tabulate

from layerbench import reporters
from layerbench.records.bundle import Bundle
from layerbench.reporters.html.document import bundled, of
from tests.support.browser import full_bundle, launched
from tests.support.sample_profiles import deep
from tests.support.service_process import server, until

SIZE = {"width": 1400, "height": 900}
QUERY = "b7.conv3"
ACTIONS = {
    "expand all": "const s = document.querySelector('.depth'); s.value = 'all'; "
    "s.dispatchEvent(new Event('change', {bubbles: true}));",
    "sort": "document.querySelectorAll('[role=columnheader] button')[1].click();",
    "search": f"const s = document.querySelector('.search'); s.value = '{QUERY}'; "
    "s.dispatchEvent(new Event('input', {bubbles: true}));",
}
TIMED = """async () => {
    const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    await frame();
    const begins = performance.now();
    {action}
    await frame();
    return performance.now() - begins;
}"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
COUNT = "document.querySelectorAll('[role=row]').length"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*BENCHMARKS, []], default=[])
    parser.add_argument("--repeats", type=int, default=10, help="each in a page of its own")
    given = parser.parse_args()
    for what in given.what or BENCHMARKS:
        BENCHMARKS[what](given)


def print_table(rows: list[list[Any]], columns: list[str]) -> None:
    print(tabulate(rows, columns, disable_numparse=True), end="\n\n", flush=True)


def told(values: list[float], unit: str = "ms") -> list[str]:
    return [f"{statistics.median(values):.0f} {unit}", f"{max(values):.0f} {unit}"]


# --- ten thousand rows ---------------------------------------------------------------------


def rows(given: argparse.Namespace) -> None:
    found: dict[str, list[float]] = {}
    record = deep()
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        path = Path(folder) / "report.html"
        path.write_text(reporters.render("html", record), encoding="utf-8")
        for _ in range(given.repeats):
            with opened(browser, path.as_uri()) as page:
                ready = float(page.evaluate("document.documentElement.dataset.ready"))
                until(lambda page=page: page.evaluate(PAINT) is not None)
                found.setdefault("first paint", []).append(page.evaluate(PAINT))
                found.setdefault("rows are there", []).append(ready)
                for name, action in ACTIONS.items():
                    found.setdefault(name, []).append(
                        page.evaluate(TIMED.replace("{action}", action))
                    )
                    found.setdefault("row elements", []).append(page.evaluate(COUNT))
    counts = found.pop("row elements")
    table = [[name, *told(values)] for name, values in found.items()]
    table.append(["row elements", "", str(max(map(int, counts)))])
    print_table(table, [f"{len(record.layers):,} rows", "median", "most"])


@contextmanager
def opened(browser: Any, address: str) -> Iterator[Any]:
    page = browser.new_page(viewport=SIZE)
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    yield page
    page.close()


# --- sizes ---------------------------------------------------------------------------------


def sizes(_: argparse.Namespace) -> None:
    bundles = {
        "MobileNet-V2, times": Bundle(profile=full_bundle().profile),
        "MobileNet-V2, times, structure and memory": full_bundle(),
        "10,000 rows": bundled(deep()),
    }
    table = []
    for name, bundle in bundles.items():
        whole = len(reporters.render("html", bundle).encode())
        data = len(of(bundle).model_dump_json().encode())
        table.append([name, *(f"{size / 1024:.0f} KiB" for size in (whole - data, data, whole))])
    print_table(table, ["report", "page", "data", "file"])


# --- choosing ------------------------------------------------------------------------------

MODELS = ("resnet101", "swin_b", "vit_b_16", "mobilenet_v2")
REAL = "layerbench.service.worker.process"


def choosing(given: argparse.Namespace) -> None:
    table = []
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        place = Path(folder)
        with server(place, LAYERBENCH_SERVE_CHILD=REAL) as (_, address):
            ask = {"architecture": "resnet18"}
            httpx.post(f"{address}/api/v1/structures", json=ask, timeout=120)
            for model in MODELS:
                # Another input each time: an answer that is kept would be there at once.
                times = [
                    chosen(browser, address, model, size)
                    for size in range(224, 224 + 32 * given.repeats, 32)
                    if not (model.startswith("vit") and size % 16)
                ]
                table.append([model, *told(times)])
    print_table(table, ["from choosing to its whole tree", "median", "most"])


def chosen(browser: Any, address: str, model: str, size: int) -> float:
    with opened(browser, address) as page:
        page.fill("[name=height]", str(size))
        # Not filled in: leaving the field would ask already.
        return float(page.evaluate(CHOSEN, model))


CHOSEN = """async (model) => {
    if (document.querySelector('[role=gridcell]')) throw new Error('it is there already');
    document.querySelector('[name=model]').value = model;
    const begins = performance.now();
    document.querySelector('.choose').requestSubmit();
    while (!document.querySelector('[role=treegrid] [role=gridcell]')) {
        await new Promise((done) => requestAnimationFrame(done));
    }
    const depth = document.querySelector('.depth');
    depth.value = 'all';
    depth.dispatchEvent(new Event('change', {bubbles: true}));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    return performance.now() - begins;
}"""

BENCHMARKS: dict[str, Callable[[argparse.Namespace], None]] = {
    "rows": rows,
    "sizes": sizes,
    "choosing": choosing,
}

if __name__ == "__main__":
    main()
