"""Structure, memory and times of models whose modules or operators are unusual."""

from __future__ import annotations

import pytest

import layerbench
from tests.faulty import Case, modules
from tests.faulty import cases as all_cases

CASES = [*modules.CASES]
TRAINING = [case for case in CASES if case.trains]


def _named(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", CASES, ids=_named)
def test_structure_has_the_right_parameters_and_flops(case: Case):
    found = layerbench.structure(*case.build())
    assert case.parameters in (None, found.parameters)
    assert case.flops in (None, found.flops)


@pytest.mark.parametrize("case", CASES, ids=_named)
def test_memory_and_profile_run(case: Case):
    model, args = case.build()
    report = layerbench.memory(model, args)
    assert report.peak.bytes >= report.parameters.bytes
    made = layerbench.profile(model, args, warmup=0, iterations=1, function_iterations=1)
    assert case.parameters in (None, made.parameters)
    assert "functions" not in made.absent


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


def test_every_case_has_a_name_of_its_own():
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names)
