"""Reports of a profile on the simulated accelerator, whose kernels take stated times."""

from __future__ import annotations

import torch

import layerbench
from layerbench import reporters
from layerbench.analysis.launching import is_launch_bound
from layerbench.records.view import View
from tests.models import Small
from tests.simulated import Simulator
from tests.simulated.process import on_sim


def profile_of(sim: Simulator, **rules: int) -> layerbench.Profile:
    sim.rules(**rules)
    x = torch.rand(2, 3, 8, 8).to("sim:0")
    return layerbench.profile(
        Small().to("sim:0"), x, device="sim:0", warmup=1, iterations=6, ceilings=False
    )


@on_sim
def test_a_net_whose_kernels_are_short_is_launch_bound_and_one_whose_are_long_is_not(
    sim: Simulator,
) -> None:
    short = profile_of(sim, kernel_ns=1_000, launch_ns=20_000)
    assert is_launch_bound(short)
    screen = reporters.render("screen", short)
    assert ": launch-bound." in screen
    assert "bound by launch" in screen
    text = reporters.render("txt", short, View(kernels=True))
    assert "add up to 1.000000 of the device rounds' span" in " ".join(text.split())
    assert "Kernels, the longest first" in text
    long = profile_of(sim, kernel_ns=1_000_000, launch_ns=1_000)
    assert not is_launch_bound(long)
    assert "launch-bound" not in reporters.render("screen", long)
