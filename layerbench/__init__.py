"""Time and memory of every layer of a PyTorch vision model, and whether to trust the number.

Importing this package loads no torch; the names below load what they need when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerbench._version import __version__ as __version__
from layerbench.registry import on_first_use

if TYPE_CHECKING:
    from layerbench.api.bundle import bundle as bundle
    from layerbench.api.comparing import compare as compare
    from layerbench.api.comparison import compare_live as compare_live
    from layerbench.api.devices import devices as devices
    from layerbench.api.devices import estimate_devices as estimate_devices
    from layerbench.api.latency import estimate_latency as estimate_latency
    from layerbench.api.memory import estimate_memory as estimate_memory
    from layerbench.api.memory import memory as memory
    from layerbench.api.structure import structure as structure
    from layerbench.api.sweep import sweep as sweep
    from layerbench.api.timing import profile as profile
    from layerbench.api.training import estimate_training_time as estimate_training_time
    from layerbench.api.training import profile_training as profile_training
    from layerbench.api.training import train as train
    from layerbench.integrations.lightning import Callback as Callback
    from layerbench.integrations.transformers import TrainerCallback as TrainerCallback
    from layerbench.profilers.trace_profile import profile_trace as profile_trace
    from layerbench.profilers.user_loop import time_layers as time_layers
    from layerbench.profilers.user_steps import profile_steps as profile_steps
    from layerbench.records.bundle import Bundle as Bundle
    from layerbench.records.card import Card as Card
    from layerbench.records.comparison import Comparison as Comparison
    from layerbench.records.kinds import Record as Record
    from layerbench.records.latency_estimate import LatencyEstimate as LatencyEstimate
    from layerbench.records.memory import MemoryEstimate as MemoryEstimate
    from layerbench.records.memory import MemoryReport as MemoryReport
    from layerbench.records.recipes import Recipe as Recipe
    from layerbench.records.structure import Structure as Structure
    from layerbench.records.sweep import Sweep as Sweep
    from layerbench.records.timing import LayerRow as LayerRow
    from layerbench.records.timing import Profile as Profile
    from layerbench.records.trace_profile import TraceProfile as TraceProfile
    from layerbench.records.training_estimate import TrainingEstimate as TrainingEstimate
    from layerbench.records.training_run import TrainingRun as TrainingRun
    from layerbench.records.training_step import TrainingProfile as TrainingProfile
    from layerbench.records.workload import Plan as Plan
    from layerbench.records.workload import Workload as Workload
    from layerbench.store.reading import read as read

__getattr__, _names = on_first_use(
    __name__,
    "layerbench._version: __version__",
    "layerbench.api.bundle: bundle",
    "layerbench.api.comparing: compare",
    "layerbench.api.comparison: compare_live",
    "layerbench.api.devices: devices estimate_devices",
    "layerbench.api.latency: estimate_latency",
    "layerbench.api.memory: estimate_memory memory",
    "layerbench.api.structure: structure",
    "layerbench.api.sweep: sweep",
    "layerbench.api.timing: profile",
    "layerbench.api.training: estimate_training_time profile_training train",
    "layerbench.profilers.trace_profile: profile_trace",
    "layerbench.integrations.lightning: Callback",
    "layerbench.integrations.transformers: TrainerCallback",
    "layerbench.profilers.user_loop: time_layers",
    "layerbench.profilers.user_steps: profile_steps",
    "layerbench.records.bundle: Bundle",
    "layerbench.records.card: Card",
    "layerbench.records.comparison: Comparison",
    "layerbench.records.kinds: Record",
    "layerbench.records.latency_estimate: LatencyEstimate",
    "layerbench.records.memory: MemoryEstimate MemoryReport",
    "layerbench.records.structure: Structure",
    "layerbench.records.sweep: Sweep",
    "layerbench.records.timing: LayerRow Profile",
    "layerbench.records.trace_profile: TraceProfile",
    "layerbench.records.training_estimate: TrainingEstimate",
    "layerbench.records.recipes: Recipe",
    "layerbench.records.training_run: TrainingRun",
    "layerbench.records.training_step: TrainingProfile",
    "layerbench.records.workload: Plan Workload",
    "layerbench.store.reading: read",
)
# Each of these loads the program that it is for, which may not be there.
__all__ = [name for name in _names if name not in ("Callback", "TrainerCallback")]


def load_ipython_extension(shell: Any) -> None:  # noqa: ANN401 - IPython's shell
    """Add ``%%layers`` to a notebook: ``%load_ext layerbench``."""
    from layerbench.api.magics import register

    register(shell)


def __dir__() -> list[str]:
    return _names
