from __future__ import annotations

import pytest

from layerbench.cluster.columns import Columns
from tests.support.clusters import A100, CPU, LARGE_A100, node, slot


@pytest.mark.parametrize(
    ("said", "labels", "name"),
    [
        ("all", (), "a100"),
        ("ALL", (), "a100"),
        ("cuda", (), "a100"),
        ("a100", (), "a100"),
        ("A100", (), "a100"),
        ("a100-sxm4-40gb", (), "a100"),
        ("NVIDIA A100-SXM4-40GB", (), "a100"),
        ("fast", ("fast",), "fast"),
        ("Fast", ("fast",), "Fast"),
    ],
)
def test_a_column_is_called_after_its_devices_unless_a_label_was_said(said, labels, name):
    columns = Columns()
    column = columns.add(said, slot(A100, labels=labels))
    assert (column.name, columns.title(column)) == (name, name)
    assert columns.folder(column) == "a100-sxm4-40gb"


def test_a_column_keeps_its_title_and_folder_when_one_that_is_like_it_joins():
    columns = Columns()
    old = columns.add("all", slot(torch="2.11.0"))
    assert (columns.title(old), columns.folder(old)) == ("amd-epyc-2c", "amd-epyc-2c")
    new = columns.add("all", slot(torch="2.14.1"))
    assert (columns.title(old), columns.folder(old)) == ("amd-epyc-2c", "amd-epyc-2c")
    assert (columns.title(new), columns.folder(new)) == (
        "amd-epyc-2c, torch 2.14.1",
        "amd-epyc-2c_torch-2.14.1",
    )


def test_devices_of_one_name_and_version_share_a_column_however_they_were_called():
    columns = Columns()
    first, second = slot(A100), slot(A100)
    column = columns.add("a100", first)
    assert columns.add("cuda", second) is column
    assert column.slots == [first, second]
    columns.remove(first.node.id)
    assert column.slots == [second]


def test_columns_of_two_versions_of_torch_have_titles_and_folders_of_their_own():
    columns = Columns()
    old = columns.add("all", slot(torch="2.11.0"))
    new = columns.add("all", slot(torch="2.14.1"))
    assert [columns.title(one) for one in (old, new)] == [
        "amd-epyc-2c, torch 2.11.0",
        "amd-epyc-2c, torch 2.14.1",
    ]
    assert [columns.folder(one) for one in (old, new)] == [
        "amd-epyc-2c_torch-2.11.0",
        "amd-epyc-2c_torch-2.14.1",
    ]


@pytest.mark.parametrize(
    "asked",
    [
        [("one", CPU, "2.14.1"), ("two", CPU, "2.14.1")],
        [("fast", CPU, "2.14.1"), ("fast", A100, "2.14.1")],
        [("all", A100, "2.14.1"), ("all", LARGE_A100, "2.14.1")],
        [("all", A100, "2.14.1"), ("all", LARGE_A100, "2.11.0"), ("all", A100, "2.11.0")],
        [("fast", A100, "2.14.1"), ("all", A100, "2.14.1"), ("fast", A100, "2.11.0")],
        [("a/b", CPU, "2.14.1"), ("all", CPU, "2.14.1")],
    ],
)
def test_no_two_columns_share_a_title_or_a_folder(asked):
    columns = Columns()
    for said, device, torch in asked:
        label = (said,) if said not in ("all",) else ()
        columns.add(said, slot(device, labels=label, torch=torch))
    assert len(columns.all()) == len(asked)
    for told in (columns.title, columns.folder):
        names = [told(one) for one in columns.all()]
        assert len(set(names)) == len(names)
        assert not any("/" in columns.folder(one) for one in columns.all())


def test_a_node_that_has_two_devices_of_a_name_has_two_places_in_a_column():
    second = A100.model_copy(update={"place": "cuda:1"})
    both = node(A100, second)
    columns = Columns()
    for device in both.devices:
        columns.add("all", slot(device))
    assert [one.device.place for one in columns.all()[0].slots] == ["cuda:0", "cuda:1"]
