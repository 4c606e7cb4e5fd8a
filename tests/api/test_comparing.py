"""`layerbench.compare`: records, or the paths of their files."""

from __future__ import annotations

import pytest

import layerbench
from layerbench import reporters
from layerbench.analysis.comparison import compare
from layerbench.errors import ComparisonError, RecordError
from tests.support.sample_comparisons import measured


def test_paths_in_place_of_records(tmp_path):
    baseline, contender = tmp_path / "a.json", tmp_path / "b.json"
    baseline.write_text(reporters.render("json", measured()))
    contender.write_text(reporters.render("json", measured()))
    by_path = layerbench.compare(str(baseline), contender)
    assert (by_path.baseline.name, by_path.contender.name) == (str(baseline), str(contender))
    assert by_path.rows == compare(measured(), measured()).rows
    assert layerbench.compare(measured(), contender).baseline.name == "baseline"
    with pytest.raises(RecordError, match=r"no\.json"):
        layerbench.compare(str(tmp_path / "no.json"), contender)
    with pytest.raises(ComparisonError, match="baseline is not a profile"):
        layerbench.compare(5, contender)
