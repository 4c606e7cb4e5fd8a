"""The one step of a user's loop that shows which modules it calls, and with which shapes."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from torch import nn

from layerbench.errors import first_line
from layerbench.instruments.attach import Forward
from layerbench.instruments.autocast_seen import autocast_type
from layerbench.instruments.module_tracker import RunningModule
from layerbench.instruments.modules import (
    CallFacts,
    CallObserver,
    ModuleFacts,
    module_facts,
    without_reach,
)
from layerbench.profilers.user_loop_record import workload_of
from layerbench.records.workload import Precision, Workload


class Look:
    """Looks at the forwards of one step.

    Args:
        model: that the loop trains.
        kind: of the device that it is on.
        within: whether what is looked at is the forward of a module; else it is what calls the
            model.

    Attributes:
        facts: of the model's modules.
        calls: what the step showed of those that ran.
        workload: what runs; ``None`` before the first forward.
        failed: why a look failed; empty where none did.
        running: which module runs, in the step.
    """

    def __init__(self, model: nn.Module, kind: str, *, within: bool) -> None:
        self.facts: tuple[ModuleFacts, ...] = module_facts(model)
        self.calls: dict[str, CallFacts] = {}
        self.workload: Workload | None = None
        self.failed = ""
        self._model = model
        self._kind = kind
        self._within = within

    def begin(self) -> None:
        """A step begins, which may be looked at in place of the one before."""
        self.calls, self.workload = {}, None
        self.running = _Running(self._model, self._kind)

    def at(self, path: str, original: Forward, *, again: bool) -> Forward:
        """A forward that is looked at as it runs.

        Args:
            path: of the module whose forward it is.
            original: that runs.
            again: whether it is of a further micro-batch, of which only modules that are new count.
        """

        @wraps(original)
        def observed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            outputs: list[Any] = []

            def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
                outputs.append(original(*args, **kwargs))
                return outputs[0]

            observer = CallObserver(self._model, self.facts, self.running)
            run = observer.of_module(path, forward) if path else forward
            workload = self.workload or workload_of(self._model, args, kwargs)
            try:
                calls = observer.observe(run, args, kwargs, within=self._within)
            except Exception as error:
                if not outputs:
                    raise
                # A fault of ours, which the loop's owner must not meet.
                self.failed = f"a look at the model failed: {first_line(error)}"
                return outputs[0]
            self.facts = without_reach(self.facts, self._model, observer.compiled)
            if self.calls:
                _merge(self.calls, calls, again=again)
            else:
                self.calls = calls
            precision = self.running.precision or workload.precision
            update = {"precision": precision, "mode": "train"}
            self.workload = workload.model_copy(update=update)
            return outputs[0]

        return observed


class _Running(RunningModule):
    """Also sees what is computed in while modules run.

    Attributes:
        precision: of autocast; ``None`` without.
    """

    def __init__(self, model: nn.Module, kind: str) -> None:
        super().__init__(model)
        self._kind = kind
        self.precision: Precision | None = None

    def entered(self, path: str) -> None:
        """A module's call begins."""
        super().entered(path)
        computed = autocast_type(self._kind)
        if computed is not None:
            self.precision = "amp" if computed is torch.float16 else "amp-bf16"


def _merge(before: dict[str, CallFacts], more: dict[str, CallFacts], *, again: bool) -> None:
    """Add the calls of a further forward to those before, in place."""
    last = max(one.order for one in before.values()) + 1
    for path, facts in more.items():
        if path not in before:
            facts.order += last
            before[path] = facts
        elif not again:
            before[path].calls += facts.calls
