"""A callback for Lightning's Trainer: some steps of a user's own training taken apart.

Lightning has two names, ``lightning.pytorch`` and ``pytorch_lightning``, which are two packages.
The callback is one of whichever is loaded, of both if both are; else of one that is installed.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import ExitStack
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, cast

from layerbench.instruments.replaced import Function, Layer, function_replaced
from layerbench.integrations._steps import START, STEPS, ProfiledSteps, absent, missing
from layerbench.profilers.user_steps import PARTS, optimizers_of
from layerbench.records.training_step import TrainingProfile
from layerbench.store.writing import AnyPath

if TYPE_CHECKING:
    from pathlib import Path

HOSTS = ("lightning.pytorch", "pytorch_lightning")


def callbacks_of_hosts() -> tuple[type, ...]:
    """The class that callbacks derive from, of each host that is loaded, or of one that is there.

    Raises:
        UsageError: there is none.
    """
    loaded = [sys.modules[name] for name in HOSTS if sys.modules.get(name) is not None]
    for name in HOSTS:
        if loaded:
            break
        try:
            loaded.append(importlib.import_module(name))
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
    if not loaded:
        raise missing("Callback", "Lightning", "lightning")
    return tuple(dict.fromkeys(module.Callback for module in loaded))


_Bases: Any = callbacks_of_hosts()


class Callback(*_Bases):  # type: ignore[misc]
    """Profile some steps of the training that a Lightning Trainer runs.

    The report and the record are those of ``layerbench train-profile``: the phases of a step,
    forward and backward of every layer, memory. Nothing lies on the model before and after these
    steps. The trainer's loggers get the phases' medians. Of several processes the first one
    does it.

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
        >>> trainer = Trainer(callbacks=[layerbench.Callback(start=50)])   # doctest: +SKIP
    """

    def __init__(
        self,
        start: int = START,
        steps: int = STEPS,
        out: AnyPath | None = "reports",
        *,
        memory: bool = True,
    ) -> None:
        super().__init__()
        self._profiled = ProfiledSteps(start, steps, out, memory=memory)
        self._start = start
        self._left = self._first = self._seen = 0
        self._watching = ExitStack()

    @property
    def record(self) -> TrainingProfile | None:
        """Of the last training; ``None`` where nothing was profiled."""
        return self._profiled.record

    @property
    def written(self) -> tuple[Path, ...]:
        """Where its report and record lie."""
        return self._profiled.written

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - Lightning's
        """The training begins."""
        if trainer.is_global_zero:
            # One that optimizes by itself goes backward in its training step, too.
            entry = "training_step" if pl_module.automatic_optimization else PARTS
            self._profiled.begin(pl_module, optimizers_of(trainer.optimizers), entry).resume()
        self._watch(trainer)

    def _watch(self, trainer: Any) -> None:  # noqa: ANN401 - Lightning's
        """Hear of the end of each batch, and be called for nothing else within an epoch.

        Lightning calls every hook of each callback. A class derived from this one may have some.
        """
        self._watching.close()
        if type(self) is Callback:
            epochs = function_replaced(trainer.fit_loop, "advance", partial(self._epoch, trainer))
            self._watching.enter_context(epochs)
        if self._profiled.live is not None:
            loop = trainer.fit_loop.epoch_loop
            batches = function_replaced(loop, "advance", partial(self._batch, trainer))
            self._watching.enter_context(batches)

    def _epoch(self, trainer: Any, layer: Layer) -> Function:  # noqa: ANN401 - Lightning's
        @wraps(layer.beneath)
        def advance(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the loop's
            with absent(lambda: cast("list[Any]", trainer.callbacks), self):
                return layer.beneath(*args, **kwargs)

        return advance

    def _batch(self, trainer: Any, layer: Layer) -> Function:  # noqa: ANN401 - Lightning's
        self._left = self._start if len(trainer.optimizers) == 1 else 0
        self._first = self._seen = trainer.global_step

        @wraps(layer.beneath)
        def advance(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the loop's
            output = layer.beneath(*args, **kwargs)
            # To ask the trainer for its steps takes microseconds.
            self._left -= 1
            if self._left <= 0:
                self._batch_ended(trainer)
            return output

        return advance

    def _batch_ended(self, trainer: Any) -> None:  # noqa: ANN401 - Lightning's
        step = trainer.global_step
        ended = step - self._first
        is_one = len(trainer.optimizers) == 1
        if is_one and ended < self._start:
            # Each of them takes a batch at least.
            self._left = self._start - ended
        elif step != self._seen:
            self._seen = step
            # Of several optimizers more than one may have made a step in a batch.
            if is_one:
                self._profiled.passed(ended - 1)
            _log(trainer, self._profiled.step())
        if self._profiled.live is None:
            self._left = sys.maxsize

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401, ARG002
        """The training has ended, perhaps before its steps were profiled."""
        if len(trainer.optimizers) == 1:
            self._profiled.passed(trainer.global_step - self._first)
        _log(trainer, self._profiled.end())
        self._watching.close()

    def on_exception(
        self,
        trainer: Any,  # noqa: ANN401, ARG002 - Lightning's
        pl_module: Any,  # noqa: ANN401, ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        """Something has raised: the model is left as it was."""
        self._profiled.drop()
        self._watching.close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ANN401, ARG002
        """Whatever has not ended does now."""
        self._profiled.drop()
        self._watching.close()


def _log(trainer: Any, found: dict[str, float]) -> None:  # noqa: ANN401 - Lightning's
    if found:
        for logger in trainer.loggers:
            logger.log_metrics(found, step=trainer.global_step)
