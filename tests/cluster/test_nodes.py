from __future__ import annotations

import pytest

import layerbench
from layerbench.cluster.nodes import Wanted, _node
from layerbench.errors import UsageError
from tests.support.clusters import A100, CPU, node

GPU_NODE = node(A100, CPU, labels=("fast", "my site:east"))


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (("all",), ["cuda:0"]),
        (("All",), ["cuda:0"]),
        (("cpu",), ["cpu"]),
        (("CUDA",), ["cuda:0"]),
        (("A100",), ["cuda:0"]),
        (("a-100",), ["cuda:0"]),
        (("NVIDIA A100 SXM4 40GB",), ["cuda:0"]),
        (("amd-epyc-2c",), ["cpu"]),
        (("fast",), ["cuda:0"]),
        (("FAST",), ["cuda:0"]),
        (("east",), ["cuda:0"]),
        (("my site:east",), ["cuda:0"]),
        (("cpu", "cuda", "all"), ["cpu", "cuda:0"]),
        (("t4",), []),
    ],
)
def test_names_mean_devices_however_they_are_spelled(names, places):
    assert [slot.device.place for _, slot in Wanted(names).slots(GPU_NODE)] == places


def test_a_node_without_accelerators_is_asked_for_its_cpu():
    assert [slot.device.place for _, slot in Wanted().slots(node())] == ["cpu"]


def test_the_name_that_was_said_first_is_a_devices():
    assert [said for said, _ in Wanted(("fast", "a100")).slots(GPU_NODE)] == ["fast"]


def test_an_unknown_name_is_told_with_those_that_there_are():
    with pytest.raises(UsageError, match=r"no node has a device 't4'.* a100, cpu, fast, my site"):
        Wanted(("all", "t4")).check([GPU_NODE])
    with pytest.raises(UsageError, match="did you mean fast"):
        Wanted(("fats",)).check([GPU_NODE])
    Wanted(("all", "fast", "cpu")).check([GPU_NODE])


def test_where_no_node_can_measure_each_says_why():
    broken = node(id="9" * 56).model_copy(update={"problem": "has no layerbench"})
    with pytest.raises(UsageError, match=r"no node .* can measure: a \(10.0.0.1, 9{8}\) has no"):
        Wanted().check([broken])
    with pytest.raises(UsageError, match="there is none"):
        Wanted().check([])


FACTS = {
    "NodeID": "1f" * 28,
    "NodeManagerAddress": "10.0.0.1",
    "NodeManagerHostname": "a",
    "Resources": {
        "CPU": 2.0,
        "GPU": 1.0,
        "memory": 1e9,
        "object_store_memory": 1e8,
        "node:10.0.0.1": 1.0,
        "node:__internal_head__": 1.0,
        "accelerator_type:A100": 1.0,
        "slow": 1.0,
        "fast": 1.0,
    },
}


def test_labels_are_the_resources_that_are_not_rays_own():
    found = _node(FACTS, {"problem": "does not answer"})
    assert (found.labels, found.problem, found.devices) == (("fast", "slow"), "does not answer", ())


def test_a_node_with_another_layerbench_measures_nothing():
    described = {
        "layerbench": "0.1",
        "python": "3.11.7",
        "packages": {"torch": "2.14.1"},
        "devices": [A100.model_dump()],
    }
    other = _node(FACTS, described)
    assert (other.devices, other.torch) == ((), "2.14.1")
    assert other.problem == f"has layerbench 0.1: install {layerbench.__version__}, as here"
    same = _node(FACTS, {**described, "layerbench": layerbench.__version__})
    assert (same.devices, same.problem) == ((A100,), "")
