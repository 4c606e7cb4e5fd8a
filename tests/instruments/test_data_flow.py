"""Edges of data flow: known answers on blocks that everybody knows, and on awkward forwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import nn
from torchvision.models.densenet import _DenseBlock
from torchvision.models.inception import InceptionA
from torchvision.models.resnet import BasicBlock
from torchvision.models.vision_transformer import EncoderBlock

import layerbench
from layerbench.instruments import data_flow
from layerbench.records.graph import Graph

X = torch.zeros(1, 4)
IMAGE = torch.zeros(1, 4, 8, 8)


def graph(model: nn.Module, given: object, path: str = "") -> Graph:
    record = layerbench.structure(model, given)
    assert record.graphs is not None
    (found,) = (one for one in record.graphs if path in one.paths)
    return found


def flow(model: nn.Module, given: object, path: str = "") -> list[str]:
    """Each edge as ``a -> b``, in the order of what takes; numbers tell equal names apart."""
    found = graph(model, given, path)
    names = [node.name or node.kind for node in found.nodes]
    counted = [
        f"{name}{names[:at].count(name) + 1}" if names.count(name) > 1 else name
        for at, name in enumerate(names)
    ]
    edges = sorted(found.edges, key=lambda edge: (edge.target, edge.source))
    return [f"{counted[edge.source]} -> {counted[edge.target]}" for edge in edges]


class Does(nn.Module):
    """A module with one linear layer, a norm and an identity, and the forward it is given."""

    def __init__(self, forward: Callable[..., object]) -> None:
        super().__init__()
        self.a, self.b, self.same = nn.Linear(4, 4), nn.Linear(4, 4), nn.Identity()
        self.inner = nn.Sequential(nn.ReLU(inplace=True))
        self.scale = nn.Parameter(torch.ones(4))
        self.does = forward

    def forward(self, *args: object) -> object:
        return self.does(self, *args)


# --- blocks that everybody knows -----------------------------------------------------------


def test_a_residual_block():
    assert flow(BasicBlock(4, 4), IMAGE) == [
        "input -> conv1",
        "conv1 -> bn1",
        "bn1 -> relu1",
        "relu1 -> conv2",
        "conv2 -> bn2",
        "input -> add_",
        "bn2 -> add_",
        "add_ -> relu2",
        "relu2 -> output",
    ]


def test_a_residual_block_with_another_shape_has_it_on_its_edges():
    block = BasicBlock(4, 8, 2, nn.Sequential(nn.Conv2d(4, 8, 1, 2)))
    found = flow(block, IMAGE)
    assert {"input -> downsample", "downsample -> add_", "bn2 -> add_"} < set(found)
    shapes = {
        (one.nodes[edge.source].name, edge.shape)
        for one in [graph(block, IMAGE)]
        for edge in one.edges
    }
    assert {("", (1, 4, 8, 8)), ("downsample", (1, 8, 4, 4)), ("conv1", (1, 8, 4, 4))} < shapes


def test_dense_layers_take_all_before_them():
    block = _DenseBlock(2, 4, 4, 4, 0.0)
    assert flow(block, IMAGE) == [
        "input -> denselayer1",
        "input -> denselayer2",
        "denselayer1 -> denselayer2",
        "input -> cat",
        "denselayer1 -> cat",
        "denselayer2 -> cat",
        "cat -> output",
    ]
    assert flow(block, IMAGE, "denselayer2")[:3] == [
        "input1 -> cat",
        "input2 -> cat",
        "cat -> norm1",
    ]


def test_branches_of_inception():
    found = flow(InceptionA(4, 4), IMAGE)
    assert [edge for edge in found if edge.endswith("-> cat")] == [
        "branch1x1 -> cat",
        "branch5x5_2 -> cat",
        "branch3x3dbl_3 -> cat",
        "branch_pool -> cat",
    ]
    assert sum(edge.startswith("input ->") for edge in found) == 4
    assert "avg_pool2d -> branch_pool" in found


def test_both_residuals_of_a_transformer_block():
    block = EncoderBlock(2, 4, 8, 0.0, 0.0)
    assert flow(block, torch.zeros(1, 3, 4)) == [
        "input -> ln_1",
        "ln_1 -> self_attention",
        "self_attention -> dropout",
        "input -> add1",
        "dropout -> add1",
        "add1 -> ln_2",
        "ln_2 -> mlp",
        "add1 -> add2",
        "mlp -> add2",
        "add2 -> output",
    ]


class Unet(nn.Module):
    """Two levels, as published: what goes down is joined to what comes up."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.bottom, self.pool = nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2)
        self.up2, self.up1 = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for down in (self.down1, self.down2):
            x = down(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for up in (self.up2, self.up1):
            x = nn.functional.interpolate(x, scale_factor=2)
            x = up(torch.cat((x, skips.pop()), 1))
        return x


def test_skips_of_a_unet():
    found = flow(Unet(), IMAGE)
    assert {"down2 -> cat1", "interpolate1 -> cat1", "down1 -> cat2", "up2 -> interpolate2"} < {
        *found
    }
    assert len(found) == 14


# --- forwards of every kind ----------------------------------------------------------------


def test_equal_insides_are_kept_once():
    model = nn.Sequential(*(Does(lambda self, x: self.a(x) + x) for _ in range(3)))
    assert graph(model, X, "1").paths == ("0", "1", "2")


def test_a_module_called_twice_is_two_nodes():
    found = flow(Does(lambda self, x: self.a(self.a(x))), X)
    assert found == ["input -> a1", "a1 -> a2", "a2 -> output"]


def test_only_the_first_call_is_drawn():
    calls = itertools.count()
    inner = Does(lambda self, x: self.b(x) if next(calls) else self.a(x))
    model = Does(lambda self, x: self.twice(self.twice(x) + x))
    model.twice = inner
    assert flow(model, X, "twice") == ["input -> a", "a -> output"]


def test_what_is_written_in_place_comes_from_who_wrote():
    def forward(self: Does, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        self.inner(y)
        y += x
        return self.b(y)

    assert flow(Does(forward), X) == [
        "input -> a",
        "a -> inner",
        "input -> add_",
        "inner -> add_",
        "add_ -> b",
        "b -> output",
    ]


def test_what_is_written_through_a_view_is_seen_by_who_takes_the_whole():
    def forward(self: Does, x: torch.Tensor) -> torch.Tensor:
        whole = torch.zeros_like(x)
        whole[:, 0] = self.a(x)[:, 0]
        whole[:, 1:].add_(1)
        return self.b(whole)

    found = flow(Does(forward), X)
    assert {"getitem1 -> setitem", "zeros_like -> setitem", "add_ -> b", "setitem -> b"} < {*found}


def test_what_gives_back_what_it_took_has_written_nothing():
    """``contiguous`` of what is contiguous is the same tensor, and a view of it is no later."""

    def forward(self: Does, x: torch.Tensor) -> torch.Tensor:
        left, right = self.a(x).chunk(2, -1)
        left.contiguous()
        return right + 1

    assert "chunk -> add" in flow(Does(forward), X)


def test_tensors_in_containers_and_in_keyword_arguments():
    def forward(self: Does, given: dict[str, list[torch.Tensor]]) -> dict[str, object]:
        first, second = given["both"]
        return {"sum": torch.add(input=self.a(first), other=second), "tuple": (first,)}

    assert flow(Does(forward), ({"both": [X, X.clone()]},)) == [
        "input1 -> a",
        "input2 -> add",
        "a -> add",
        "add -> output1",
        "input1 -> output2",
    ]


def test_parameters_that_a_module_takes_itself():
    model = nn.Sequential(*(Does(lambda self, x: self.a(x) * self.scale) for _ in range(2)))
    assert ("held", "scale") in graph(model, X, "1").nodes
    assert graph(model, X, "1").paths == ("0", "1")


def test_a_module_that_is_held_elsewhere_has_its_whole_path():
    shared = nn.Linear(4, 4)
    first, second = Does(lambda self, x: self.tied(x)), Does(lambda self, x: self.tied(x))
    first.tied = second.tied = shared
    found = graph(nn.Sequential(first, second), X, "1")
    assert ("other module", "0.tied") in found.nodes


def test_a_tensor_that_comes_past_the_arguments_is_an_edge_all_the_same():
    """As a U-Net whose skips are kept by hooks."""
    kept: list[torch.Tensor] = []
    first = Does(lambda self, x: (kept.clear(), kept.append(self.a(x)), self.b(x))[2])
    second = Does(lambda self, x: self.a(x) + kept[0])
    model = nn.Sequential(first, nn.Linear(4, 4), second)
    assert flow(model, X) == ["input -> 0", "0 -> 1", "0 -> 2", "1 -> 2", "2 -> output"]
    assert ("elsewhere", "") in graph(model, X, "2").nodes


def test_what_runs_within_a_transform_is_connected_with_what_is_outside():
    def forward(self: Does, x: torch.Tensor) -> torch.Tensor:
        return torch.vmap(self.a)(x) + torch.vmap(lambda row: self.b(row * 2))(x)

    assert flow(Does(forward), torch.zeros(3, 4)) == [
        "input -> a",
        "input -> mul",
        "mul -> b",
        "a -> add",
        "b -> add",
        "add -> output",
    ]


def test_an_identity_and_what_bypasses_it():
    found = flow(Does(lambda self, x: self.a(self.same(x)) + 0), X)
    assert found == ["input -> same", "same -> a", "a -> add", "add -> output"]


def test_a_graph_that_is_too_large_is_left_out_and_named(monkeypatch):
    monkeypatch.setattr(data_flow, "MOST_NODES", 5)

    def forward(self: Does, x: torch.Tensor) -> torch.Tensor:
        for _ in range(6):
            x = x + 1
        return x

    record = layerbench.structure(nn.Sequential(Does(forward)), X)
    assert [one.paths for one in record.graphs or ()] == [("",)]
    assert "the graph of 0 is too large to keep" in record.notes


def test_operators_and_figures_are_those_without_looking(monkeypatch):
    block = EncoderBlock(2, 4, 8, 0.0, 0.0)
    looked = layerbench.structure(block, torch.zeros(1, 3, 4))
    monkeypatch.setattr(data_flow.DataFlow, "entered", lambda *_: None)
    monkeypatch.setattr(data_flow.DataFlow, "called", lambda _, f, args, kwargs: f(*args, **kwargs))
    without = layerbench.structure(block, torch.zeros(1, 3, 4))
    assert without.graphs == ()
    assert looked.model_copy(update={"graphs": ()}) == without
