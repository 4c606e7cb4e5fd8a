"""What runs, as it is written down."""

from __future__ import annotations

from layerbench.records.workload import Workload


def test_records_from_before_there_were_files_read_as_they_were() -> None:
    old = {"model": "resnet18", "input": "pascal", "shape": [1, 3, 500, 334], "batch": 1}
    read = Workload.model_validate(old)
    assert (read.checkpoint, read.inputs, read.file) == (None, None, None)
    assert not {"checkpoint", "inputs", "file"} & read.model_dump(mode="json").keys()
