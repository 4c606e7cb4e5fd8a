"""A callback for the Trainer of transformers: some steps of a user's own training taken apart."""

from __future__ import annotations

import inspect
import sys
from contextlib import ExitStack, nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import Any, cast

from layerbench.instruments.compiled import is_compiled
from layerbench.instruments.replaced import Function, Layer, function_replaced
from layerbench.integrations._steps import START, STEPS, ProfiledSteps, absent, missing
from layerbench.profilers.user_steps import FORWARD, optimizers_of
from layerbench.records.training_step import TrainingProfile
from layerbench.store.writing import AnyPath

try:
    from transformers import TrainerCallback as _Base
except ModuleNotFoundError as error:
    if error.name != "transformers":
        raise
    raise missing("TrainerCallback", "transformers", "hf") from None

# What runs the steps of an epoch: whatever it raises passes here.
_RUNS_EPOCH = "_run_epoch"


class TrainerCallback(_Base):  # type: ignore[misc]
    """Profile some steps of the training that a Trainer of transformers runs.

    The report and the record are those of ``layerbench train-profile``: the phases of a step,
    forward and backward of every layer, memory. Nothing lies on the model before and after these
    steps. The trainer logs the phases' medians. Of several processes the first one does it.

    Args:
        start: optimizer steps of this run that pass before; a run that goes on from a checkpoint
            counts anew.
        steps: whose times count; one more, before them, is looked at. Of each two the layers of one
            are timed.
        out: the folder of the report and the record; ``None`` writes none.
        memory: trace what the tensors of the step that is looked at hold. False leaves it out, for
            a model that does not bear a dispatch mode.

    Attributes:
        record: a `layerbench.TrainingProfile`, as soon as the steps, or the training, have ended.
        written: where report and record lie.

    Raises:
        UsageError: too few steps.
        OutputError: as the training begins: nothing can be written to the folder.

    Example:
        >>> profiling = layerbench.TrainerCallback(start=50)           # doctest: +SKIP
        >>> Trainer(model, arguments, callbacks=[profiling]).train()   # doctest: +SKIP
    """

    def __init__(
        self,
        start: int = START,
        steps: int = STEPS,
        out: AnyPath | None = "reports",
        *,
        memory: bool = True,
    ) -> None:
        self._profiled = ProfiledSteps(start, steps, out, memory=memory)
        self._trainer: Any = None
        self._start = self._left = start
        self._watching = ExitStack()

    @property
    def record(self) -> TrainingProfile | None:
        """Of the last training; ``None`` where nothing was profiled."""
        return self._profiled.record

    @property
    def written(self) -> tuple[Path, ...]:
        """Where its report and record lie."""
        return self._profiled.written

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """The training begins."""
        self._leave()
        self._trainer = trainer = _trainer_of(control)
        if state.is_world_process_zero:
            optimizers = optimizers_of(trainer.optimizer)
            # One that the trainer has compiled is called in place of its own.
            compiled = is_compiled(trainer.model_wrapped)
            model = trainer.model_wrapped if compiled else trainer.model
            self._profiled.begin(model, optimizers, FORWARD)
        self._watch(trainer)

    def _watch(self, trainer: Any) -> None:  # noqa: ANN401 - transformers'
        """Hear of the end of each step, and be called for nothing else within an epoch."""
        enter = self._watching.enter_context
        live = self._profiled.live
        if live is not None:
            enter(function_replaced(trainer.callback_handler, "on_step_end", self._step))
        if hasattr(trainer, _RUNS_EPOCH):
            enter(function_replaced(trainer, _RUNS_EPOCH, partial(self._epoch, trainer)))
        elif live is not None:
            live.resume()

    def _step(self, layer: Layer) -> Function:
        self._left = self._start

        @wraps(layer.beneath)
        def on_step_end(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the handler's
            control = layer.beneath(*args, **kwargs)
            self._left -= 1
            if self._left <= 0:
                self._profiled.passed(self._start - 1)
                self._log(control, self._profiled.step())
                if self._profiled.live is None:
                    self._left = sys.maxsize
            return control

        return on_step_end

    def _epoch(self, trainer: Any, layer: Layer) -> Function:  # noqa: ANN401 - transformers'
        """Profile within the loop over an epoch's batches alone.

        No callback hears of what is raised in a training. A class derived from this one may have
        something to do in each step.
        """

        @wraps(layer.beneath)
        def run_epoch(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the trainer's
            if self._profiled.live is not None:
                self._profiled.live.resume()
            callbacks = absent(lambda: cast("list[Any]", trainer.callback_handler.callbacks), self)
            try:
                with callbacks if type(self) is TrainerCallback else nullcontext():
                    output = layer.beneath(*args, **kwargs)
            except BaseException:
                self._profiled.drop()
                self._leave()
                raise
            if self._profiled.live is not None:
                self._profiled.live.pause()
            return output

        return run_epoch

    def _leave(self) -> None:
        self._trainer = None
        self._watching.close()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """The training has ended, perhaps before its steps were profiled."""
        self._profiled.passed(self._start - self._left)
        self._log(control, self._profiled.end())
        self._leave()

    def _log(self, control: Any, found: dict[str, float]) -> None:  # noqa: ANN401 - transformers'
        if found and self._trainer is not None:
            # To log ends the trainer's wish to log, which may be for this step.
            wished = control.should_log
            self._trainer.log(found)
            control.should_log = wished


def _trainer_of(control: object) -> Any:  # noqa: ANN401 - a Trainer
    """The trainer that calls its callbacks now, which does not tell them who it is."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if getattr(caller, "control", None) is control and hasattr(caller, "callback_handler"):
            return caller
        frame = frame.f_back
    raise RuntimeError("no transformers.Trainer calls this callback")
