from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import layerbench
from layerbench.analysis.aggregation import layer_rows
from layerbench.environment.devices.clocks import ManualClock, PerfCounter
from layerbench.instruments.function_timer import FunctionForward, FunctionTimer, function_name
from layerbench.instruments.modules import module_facts
from layerbench.records.samples import FUNCTIONS, INCLUSIVE, SELF, RowFacts
from tests.models import Calls, Small


def functions_of(model: nn.Module, *args: object) -> FunctionForward:
    facts = module_facts(model)
    with_rows = frozenset(fact.path for fact in facts if fact.composite) | {""}
    with torch.inference_mode():
        return FunctionTimer(model, facts, with_rows, PerfCounter()).run(lambda: model(*args))


def test_functions_are_named_as_their_author_wrote_them() -> None:
    forward = functions_of(Small().eval(), torch.rand(2, 3, 16, 16))
    assert [(fact.module, fact.name, fact.calls) for fact in forward.facts] == [
        ("blocks.0", "add", 1),
        ("blocks.1", "add", 1),
        ("", "adaptive_avg_pool2d", 1),
        ("", "flatten", 1),
    ]
    add = forward.facts[0]
    assert add.input_shapes == ((2, 4, 16, 16), (2, 4, 16, 16))
    assert add.output_shapes == ((2, 4, 16, 16),)


def test_order_is_shared_with_the_modules() -> None:
    forward = functions_of(Small().eval(), torch.rand(1, 3, 8, 8))
    order = {**forward.module_order, **{f"{f.module}.{f.name}": f.order for f in forward.facts}}
    ran = sorted(order, key=lambda name: order[name])
    assert ran.index("blocks.1") < ran.index(".adaptive_avg_pool2d") < ran.index("head")
    assert len(set(order.values())) == len(order)
    assert "unused" not in order


def test_a_manual_clock_gives_exact_times() -> None:
    clock = ManualClock()

    def run(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = x + x
        clock.advance(100)  # the module's own Python, not a function
        return y * self.inner(y)

    model = Calls(run, inner=nn.Identity())
    timer = FunctionTimer(model, module_facts(model), frozenset({""}), clock)
    advance = {"add": 7, "mul": 11}
    original = timer.timed_function

    def timed(name: str, function, args, kwargs):
        def taking(*a, **k):
            clock.advance(advance[name])
            return function(*a, **k)

        return original(name, taking, args, kwargs)

    timer.timed_function = timed  # type: ignore[method-assign]
    x = torch.ones(2)
    forward = timer.run(lambda: model(x))
    assert [fact.name for fact in forward.facts] == ["add", "mul"]
    assert forward.times_ns == (7, 11)


def test_questions_get_no_row_and_item_assignment_does() -> None:
    def run(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        if x.dim() == 2 and x.size(0) and x.shape[1] and not x.is_cuda:
            x[0] = 3
            x += 1
        return x.T

    forward = functions_of(Calls(run, child=nn.Identity()), torch.ones(2, 3))
    assert [fact.name for fact in forward.facts] == ["clone", "setitem", "add_", "T"]


def test_names() -> None:
    assert function_name(torch.Tensor.__add__) in ("add", "_wrapped_add")
    assert function_name(torch.Tensor.__iadd__) == "add_"
    assert function_name(torch.Tensor.__rsub__) == "sub"
    assert function_name(torch.nn.functional.relu) == "relu"


def test_the_fast_path_of_transformer_layers_stays_on() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    forward = functions_of(layer, torch.rand(2, 5, 16))
    assert [fact.name for fact in forward.facts] == ["_transformer_encoder_layer_fwd"]
    assert set(forward.module_order) == {""}
    wrapped = functions_of(nn.Sequential(layer), torch.rand(2, 5, 16))
    assert [(fact.module, fact.name) for fact in wrapped.facts] == [
        ("0", "_transformer_encoder_layer_fwd")
    ]


def test_the_model_is_left_as_it_was() -> None:
    model = Small()
    before = {path: dict(module.__dict__) for path, module in model.named_modules()}
    functions_of(model, torch.rand(1, 3, 8, 8))
    assert {path: dict(module.__dict__) for path, module in model.named_modules()} == before
    assert not torch.overrides._is_torch_function_mode_enabled()


def test_functions_never_exceed_their_modules_self_time() -> None:
    module = RowFacts(path="", type="M", kind="module", depth=0, order=0, calls=1, block=False)
    functions = [
        RowFacts(path=f"{n}()", type=n, kind="function", depth=1, order=i, calls=1, block=True,
                 module="")
        for i, n in enumerate(("add", "mul"), start=1)
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    own = rng.integers(900, 1100, size=(40, 1))
    # Functions measured while the machine was slower: together twice the module's own time.
    arrays = {INCLUSIVE: own, SELF: own, FUNCTIONS: rng.integers(900, 1300, size=(30, 2))}
    rows = layer_rows([module], functions, [arrays])
    whole, add, mul = rows
    assert add.inclusive
    assert mul.inclusive
    assert whole.self_
    assert add.scaled is not None
    assert add.scaled < 0.6
    assert add.inclusive.mean + mul.inclusive.mean <= whole.self_.mean * (1 + 1e-6)
    assert add.inclusive.median + mul.inclusive.median <= whole.self_.median * (1 + 1e-6)
    # With room enough they stay as measured.
    arrays[FUNCTIONS] = rng.integers(90, 130, size=(30, 2))
    assert {row.scaled for row in layer_rows([module], functions, [arrays])[1:]} == {1.0}


@pytest.mark.parametrize("reentrant", [True, False])
def test_functions_beside_a_checkpoint_are_seen(reentrant):
    """PyTorch keeps Dynamo off checkpointing, and compiles nothing."""

    def run(model: Calls, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(model.layer, x, use_reentrant=reentrant) + 1

    model = Calls(run, layer=nn.Linear(4, 4))
    made = layerbench.profile(model, torch.rand(2, 4), warmup=0, iterations=1)
    assert made.absent == {}
    functions = [row.path for row in made.layers if row.kind == "function"]
    # An older checkpoint makes a tensor of its own.
    assert [path for path in functions if path != "empty()"] == ["add()"]
