"""What reads records runs without torch; import layerbench is instant."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT_TORCH = [
    "layerbench",
    "layerbench.analysis.aggregation",
    "layerbench.cli.detect",
    "layerbench.cli.estimate_detection",
    "layerbench.environment.devices.clocks",
    "layerbench.analysis.comparison",
    "layerbench.datasets",
    "layerbench.datasets.boxed",
    "layerbench.detection",
    "layerbench.training.detection.bottleneck",
    "layerbench.training.detection.config",
    "layerbench.environment.devices",
    "layerbench.environment.watch",
    "layerbench.errors",
    "layerbench.analysis.paired",
    "layerbench.plots",
    "layerbench.analysis.ratios",
    "layerbench.records",
    "layerbench.reporters",
    "layerbench.records.samples",
    "layerbench.analysis.statistics",
    "layerbench.store.reading",
    "layerbench.records.tree",
    "layerbench.units",
    "layerbench.analysis.views",
    "layerbench.records.workload",
]
LOADED = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sorted({"torch", "torchvision", "timm", "transformers", "lightning"} & set(sys.modules)))
"""


def loaded_by(*modules):
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *modules], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_readers_of_records_load_no_torch():
    assert loaded_by(*WITHOUT_TORCH) == []


def test_torch_is_noticed_where_it_is_loaded_and_nothing_heavy_with_it():
    """Each process that measures loads these: torchvision would take it as long as torch does."""
    assert loaded_by("layerbench.api", "layerbench.profilers.processes") == ["torch"]


def test_every_reporter_loads_no_torch():
    code = (
        "import importlib, pkgutil, sys, layerbench.reporters as r\n"
        "names = [m.name for m in pkgutil.iter_modules(r.__path__, 'layerbench.reporters.')]\n"
        "assert names\n"
        "for name in names: importlib.import_module(name)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["Plan", "Workload", "Profile", "LayerRow"])
def test_plain_types_are_had_from_the_package_without_torch(name):
    code = f"import sys, layerbench; layerbench.{name}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


COMMAND = """
import sys
from layerbench import cli
try:
    cli.main()
except SystemExit as left:
    print(left.code, *sorted({"torch", "torchvision"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("words", "shows", "last"),
    [
        ("detect --help", "--prefetch_factor", "0"),
        ("estimate detection --help", "--models", "0"),
        ("estimate --help", "detection", "0"),
        # Nor does what is wrong with a configuration.
        ("detect --config nowhere.toml", "", "2"),
    ],
)
def test_help_and_complaints_load_no_torch(words, shows, last):
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words.split()], capture_output=True, text=True, check=True
    )
    assert shows in done.stdout
    assert done.stdout.splitlines()[-1] == last
