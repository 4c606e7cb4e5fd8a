"""Structure, memory and times of models whose modules or operators are unusual."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nested._internal import nested_tensor
from torch.nn.utils.parametrizations import weight_norm

import layerbench
from layerbench.errors import DeviceUnavailable, ModelRunError, UsageError, first_line
from tests.faulty import Case, modules, operators, sources, threads
from tests.faulty import cases as all_cases
from tests.models import Calls

CASES = [case for case in (*modules.CASES, *operators.CASES, *threads.CASES) if case.is_there]
TRAINING = [case for case in CASES if case.trains]


def _named(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", CASES, ids=_named)
def test_structure_has_the_right_parameters_and_flops(case: Case):
    found = layerbench.structure(*case.build())
    assert case.parameters in (None, found.parameters)
    assert case.flops in (None, found.flops)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=_named)
def test_memory_and_profile_run(case: Case):
    model, args = case.build()
    report = layerbench.memory(model, args)
    assert report.peak.bytes >= report.parameters.bytes
    made = layerbench.profile(model, args, warmup=0, iterations=1, function_iterations=1)
    assert case.parameters in (None, made.parameters)
    assert "functions" not in made.absent


@pytest.mark.slow
@pytest.mark.parametrize("case", TRAINING, ids=_named)
def test_training_is_taken_apart_and_weighed(case: Case):
    model, args = case.build()
    made = layerbench.profile_training(model, args, warmup=0, iterations=1)
    assert made.memory is not None
    assert case.parameters in (None, made.parameters)


@pytest.mark.parametrize("case", CASES, ids=_named)
def test_a_prediction_holds_what_the_model_has(case: Case):
    model, args = case.build()
    assert layerbench.estimate_memory(model, args).peak_bytes > 0


@pytest.mark.parametrize("case", [c for c in CASES if c.flops is not None], ids=_named)
def test_only_what_computes_and_has_no_formula_is_listed(case: Case):
    assert layerbench.structure(*case.build()).uncounted == ()


def test_what_pytorch_keeps_for_itself_is_no_tensor_left_in_the_model(
    recwarn: pytest.WarningsRecorder,
):
    case = next(case for case in CASES if case.name == "rows of different lengths")
    nested_tensor._dummy_instance = None
    for call in (layerbench.estimate_memory, layerbench.structure):
        call(*case.build())
    assert not [one for one in recwarn if "without contents" in str(one.message)]


def test_a_forward_that_leaves_python_says_nothing_of_tensors(recwarn: pytest.WarningsRecorder):
    with pytest.raises(SystemExit):
        layerbench.structure(*sources.leaves())
    assert not recwarn.list


def test_a_sparse_buffer_has_the_bytes_of_its_indices_and_values():
    model, args = operators.CASES[0].build()
    assert layerbench.structure(model, args).buffer_bytes == 80
    report = layerbench.memory(model, args)
    assert report.buffers.bytes == 80
    # Weights, buffer, input; the linear layer's output, zeros to add to, and the sum.
    assert report.peak.bytes == 60 + 80 + 64 + 3 * 48


def test_parameters_that_share_a_storage_have_their_own_bytes_and_are_summed_once():
    case = next(case for case in CASES if case.name == "parameters that are views")
    report = layerbench.memory(*case.build())
    rows = [row.bytes for row in report.tensors if row.role == "parameter"]
    assert rows == [256, 32]
    assert (report.parameters.tensors, report.parameters.elements) == (2, 72)
    assert (report.parameters.bytes, report.parameters.block_bytes) == (288, 512)


def test_a_tied_weight_and_its_transpose_are_summed_once():
    weight = torch.rand(4, 8)
    model = nn.Module()
    model.weight = nn.Parameter(weight)
    model.transposed = nn.Parameter(weight.t())
    model.forward = lambda x: x @ model.weight @ model.transposed
    report = layerbench.memory(model, torch.rand(2, 4))
    assert (report.parameters.bytes, report.parameters.elements) == (128, 32)
    record = layerbench.structure(model, torch.rand(2, 4))
    assert (record.parameter_bytes, record.parameters) == (256, 64)
    assert record.notes == report.notes
    assert "(256 B), memory what they share once (128 B)" in record.notes[0]


def test_the_same_input_twice_is_one_in_a_prediction_too():
    class Adds(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    x = torch.rand(16, 64)
    for inputs in ((x, x), (x, x.t().t())):
        for found in (layerbench.estimate_memory, layerbench.memory):
            made = found(Adds(), inputs)
            held = (
                made.by_category if found is layerbench.estimate_memory else made.peak.by_category
            )
            assert held["input"] == 4096


def test_packed_weights_are_in_the_totals():
    case = next(case for case in CASES if case.name == "linear layers quantized")
    report = layerbench.memory(*case.build())
    # The weight takes a byte for each element, its bias and scales more.
    assert report.total.bytes >= 4 * 5 + 2 * 4 * 4
    assert report.resident_bytes >= report.parameters.bytes > 0


def test_packed_weights_of_all_layers_are_summed():
    layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(6)))
    model = torch.ao.quantization.quantize_dynamic(layers, {nn.Linear})
    report = layerbench.memory(model, torch.rand(2, 64))
    rows = [row for row in report.tensors if row.role == "parameter"]
    assert report.parameters.bytes == sum(row.bytes for row in rows) >= 6 * 64 * 64
    record = layerbench.structure(model, torch.rand(2, 64))
    packed = [note for note in record.notes if note in report.notes and "packed" in note]
    assert (record.parameters, record.trainable) == (6 * (64 * 64 + 64), 0)
    assert packed[0].startswith("24,960 elements in ")


def test_every_case_has_a_name_of_its_own():
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", threads.CASES, ids=_named)
def test_the_peak_holds_what_threads_made(case: Case):
    peak = layerbench.memory(*case.build()).peak.bytes
    # Weights, input, both branches and their sum; the other pool's list keeps one sum more.
    assert peak - 33_280 - 8_192 - 3 * 8_192 in (0, 8_192)


def test_nothing_of_ours_stays_in_threads():
    before = (threading.Thread.start, ThreadPoolExecutor.submit)
    layerbench.memory(*threads.CASES[0].build())
    assert before == (threading.Thread.start, ThreadPoolExecutor.submit)


def test_a_dataclass_shows_its_shapes():
    case = next(case for case in CASES if case.name.startswith("a dataclass"))
    (root, _) = layerbench.structure(*case.build()).rows
    assert (root.input_shapes, root.output_shapes) == (((2, 4),), ((2, 3),))
    assert root.output_bytes == 24


def test_lazy_layers_stay_lazy():
    model = nn.Sequential(nn.LazyLinear(4))
    assert layerbench.structure(model, torch.rand(2, 3)).parameters == 16
    assert type(model[0]) is nn.LazyLinear


@pytest.mark.parametrize("handed", [torch.relu, 5, nn.Linear])
def test_what_is_no_module_is_refused_with_what_to_do(handed: object):
    with pytest.raises(UsageError, match=r"torch\.nn\.Module"):
        layerbench.structure(handed, torch.rand(2, 4))


def test_an_exported_program_is_refused_with_what_to_do():
    program = torch.export.export(nn.Linear(4, 4), (torch.rand(2, 4),))
    with pytest.raises(UsageError, match=r"program.module\(\)"):
        layerbench.structure(program, torch.rand(2, 4))


def test_an_attention_runs_alike_in_all_forwards_of_a_structure():
    case = next(case for case in CASES if case.name.startswith("weight norm on the projection"))
    assert layerbench.structure(*case.build()).notes == ()


def test_a_call_that_fails_is_a_call():
    case = next(case for case in CASES if case.name.startswith("a layer that fails"))
    model, args = case.build()
    profile = layerbench.profile(model, args, warmup=0, iterations=1, function_iterations=0)
    for rows in (layerbench.structure(model, args).rows, layerbench.memory(model, args).rows):
        assert [(row.path, row.calls) for row in rows] == [("", 1), ("first", 1), ("second", 1)]
    assert [row.calls for row in profile.layers] == [1, 1, 1]


def test_the_layer_that_fails_is_named_and_not_one_whose_error_was_caught():
    case = next(case for case in CASES if case.name.startswith("a layer that fails"))
    model = nn.Sequential(case.build()[0], nn.Linear(5, 5))
    for call in (layerbench.structure, layerbench.memory, layerbench.profile):
        with pytest.raises(ModelRunError, match="in Linear at 1"):
            call(model, torch.rand(2, 4))


def test_a_model_without_values_is_measured_nowhere_and_told_what_to_do():
    with torch.device("meta"):
        model, x = nn.Linear(4, 4), torch.rand(2, 4)
    assert layerbench.structure(model, x).flops == 64
    assert layerbench.estimate_memory(model, x).peak_bytes > 0
    for call in (layerbench.memory, layerbench.profile, layerbench.profile_training):
        with pytest.raises(DeviceUnavailable, match="to_empty"):
            call(model, x)


def test_a_mode_that_cannot_be_set_is_told():
    model, x = modules.OfOneMode(), torch.rand(2, 4)
    profile = layerbench.profile(model, x, warmup=0, iterations=1, function_iterations=1)
    for record in (layerbench.structure(model, x), layerbench.memory(model, x), profile):
        assert any("cannot be put into eval mode" in note for note in record.notes)
    assert model.training
    assert layerbench.memory(model, x, training=True).notes == ()


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("an error that cannot say what it is")


def test_an_error_without_a_message_is_told_by_its_type():
    def run(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        raise _Unspeakable

    model, x = Calls(run, layer=nn.Linear(4, 4)), torch.rand(2, 4)
    for call in (layerbench.structure, layerbench.memory, layerbench.profile):
        with pytest.raises(ModelRunError, match=r"given .*: _Unspeakable"):
            call(model, x)


def test_a_failed_check_of_pytorch_is_told_by_its_reason():
    where = 'is_cpu() || is_cuda() INTERNAL ASSERT FAILED at "N.cpp":183'
    advice = "please report a bug to PyTorch."
    error = RuntimeError(f"{where}, {advice} storage must be either CPU or CUDA")
    assert first_line(error) == "storage must be either CPU or CUDA"
    assert first_line(RuntimeError(f"{where}, {advice}")).startswith("is_cpu()")


def test_a_model_that_calls_itself_has_all_its_calls():
    def run(model: nn.Module, x: torch.Tensor, more: int = 3) -> torch.Tensor:
        x = model.layer(x)
        return model(x, more - 1) if more else x

    model, x = Calls(run, layer=nn.Linear(4, 4)), torch.rand(2, 4)
    profile = layerbench.profile(model, x, warmup=0, iterations=1, function_iterations=0)
    with layerbench.time_layers(model) as layers:
        model(x)
    for rows in (layerbench.structure(model, x).rows, layerbench.memory(model, x).rows):
        assert [row.calls for row in rows] == [4, 4]
    assert [row.calls for row in profile.layers] == [row.calls for row in layers.rows] == [4, 4]


def test_a_parametrized_weight_of_a_recurrent_layer_is_computed_as_often_as_on_real_tensors():
    model, calls = weight_norm(nn.LSTM(4, 4), "weight_hh_l0"), []
    computed = model.parametrizations.weight_hh_l0
    handle = computed.register_forward_hook(lambda *_: calls.append(0))
    model(torch.rand(3, 2, 4))
    handle.remove()
    record = layerbench.structure(model, torch.rand(3, 2, 4))
    rows = {row.path: row.calls for row in record.rows}
    assert (record.how, record.notes) == ("meta", ())
    assert rows["parametrizations.weight_hh_l0"] == len(calls)


def test_names_that_pytorch_would_refuse_are_told_apart():
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)))
    model._modules.update({"0.0": nn.Linear(4, 4), "": nn.Linear(4, 4)})
    record = layerbench.structure(model, torch.rand(2, 4))
    assert (record.parameters, record.parameter_bytes, record.flops) == (60, 240, 3 * 64)
    paths = ["", "0", "0.0", "0:0", "''"]
    assert [row.path for row in record.rows] == paths
    assert [row.path for row in layerbench.memory(model, torch.rand(2, 4)).rows] == paths
