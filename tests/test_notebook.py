"""The committed notebook runs as it is written, and shows what it says."""

from __future__ import annotations

import base64
import gzip
import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.paths import ROOT

NOTEBOOK = ROOT / "examples" / "notebook" / "layers.ipynb"
Shown = list[tuple[str, list[str]]]


def shown(notebook) -> list[Shown]:
    """By cell of code, the kinds of its outputs."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        [(output.output_type, sorted(output.get("data", {}))) for output in cell.outputs]
        for cell in cells
    ]


@pytest.mark.slow
def test_the_notebook_runs_and_its_outputs_are_of_the_kinds_committed(
    tmp_path, monkeypatch
) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    committed = nbformat.read(NOTEBOOK, as_version=4)
    again = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(again, timeout=120, resources=resources, record_timing=False).execute()
    assert shown(again) == shown(committed)
    (html,) = [
        output.data["text/html"]
        for cell in committed.cells
        for output in cell.get("outputs", [])
        if "iframe" in output.get("data", {}).get("text/html", "")
    ]
    packed = re.search(r'atob\("([^"]+)"\)', html)
    assert packed is not None
    page = gzip.decompress(base64.b64decode(packed[1])).decode()
    assert "in a notebook" in page
    assert "ipykernel" not in page
