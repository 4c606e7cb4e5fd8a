"""A callback for Lightning's Trainer: some steps of a user's own training taken apart.

Lightning has two names, ``lightning.pytorch`` and ``pytorch_lightning``, which are two packages.
The callback is one of whichever is loaded, of both if both are; else of one that is installed.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from layerbench.integrations._steps import START, STEPS, ProfiledSteps, missing
from layerbench.profilers.user_steps import PARTS, optimizers_of
from layerbench.records.training_step import TrainingProfile
from layerbench.store.writing import AnyPath

if TYPE_CHECKING:
    from pathlib import Path

HOSTS = ("lightning.pytorch", "pytorch_lightning")

# Lightning passes over a hook that cannot be called. To call an empty one takes it microseconds.
PASSED_OVER = (
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
)
AFTER_BATCH = "on_train_batch_end"


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
        self._seen = 0
        for name in PASSED_OVER:
            self._pass_over(name)

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
        self.__dict__.pop(AFTER_BATCH, None)
        if not trainer.is_global_zero:
            self._pass_over(AFTER_BATCH)
            return
        # One that optimizes by itself goes backward in its training step, too.
        entry = "training_step" if pl_module.automatic_optimization else PARTS
        self._seen = trainer.global_step
        self._profiled.begin(pl_module, optimizers_of(trainer.optimizers), entry).resume()

    def on_train_batch_end(
        self,
        trainer: Any,  # noqa: ANN401 - Lightning's
        pl_module: Any,  # noqa: ANN401, ARG002
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """A batch has been trained on; not each is followed by a step."""
        if trainer.global_step != self._seen:
            self._seen = trainer.global_step
            _log(trainer, self._profiled.step())
        if self._profiled.live is None:
            self._pass_over(AFTER_BATCH)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401, ARG002
        """The training has ended, perhaps before its steps were profiled."""
        _log(trainer, self._profiled.end())

    def on_exception(
        self,
        trainer: Any,  # noqa: ANN401, ARG002 - Lightning's
        pl_module: Any,  # noqa: ANN401, ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        """Something has raised: the model is left as it was."""
        self._profiled.drop()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ANN401, ARG002
        """Whatever has not ended does now."""
        self._profiled.drop()

    def _pass_over(self, name: str) -> None:
        """Have Lightning not call a hook, unless a class derived from this one has one."""
        if getattr(type(self), name) is getattr(Callback, name):
            self.__dict__[name] = None


def _log(trainer: Any, found: dict[str, float]) -> None:  # noqa: ANN401 - Lightning's
    if found:
        for logger in trainer.loggers:
            logger.log_metrics(found, step=trainer.global_step)
