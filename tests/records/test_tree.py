"""The order of rows in a module tree."""

from __future__ import annotations

from layerbench.records import tree
from layerbench.records.tree import ancestors, positions, tree_order, with_ancestors


def test_depth_first_and_siblings_in_order_of_their_first_call():
    paths = ["", "a", "a.x", "a.y", "b", "add()", "c"]
    orders = [0, 5, 7, 6, 1, 4, None]
    ordered = [paths[index] for index in tree_order(paths, orders)]
    assert ordered == ["", "b", "add()", "a", "a.y", "a.x", "c"]


def test_positions_count_each_type_and_skip_what_is_not_numbered():
    types = ["Block", "Stem", "Block", "Block", "Stem"]
    assert positions(types, [True, True, False, True, False]) == [1, 1, None, 2, None]


def test_ancestors():
    assert list(ancestors("a.b.c")) == ["a.b", "a", ""]
    assert list(ancestors("")) == []


def test_sums_with_what_lies_below():
    own = {"": 1, "a.b": 2, "a.c": 4, "d": 8}
    assert with_ancestors(own) == {"": 15, "a": 6, "a.b": 2, "a.c": 4, "d": 8}


def test_sums_of_a_deep_tree_pass_each_path_once(monkeypatch):
    """A chain of 400 rows, each with a value, takes as many looks upwards, not 80,000."""
    looks = []
    whole = tree.parent
    monkeypatch.setattr(tree, "parent", lambda path: looks.append(path) or whole(path))
    paths = [".".join(["a"] * depth) for depth in range(1, 401)]
    sums = with_ancestors(dict.fromkeys(paths, 1))
    assert (sums[""], sums["a"], sums[paths[-1]]) == (400, 400, 1)
    assert len(looks) <= 2 * len(paths)
