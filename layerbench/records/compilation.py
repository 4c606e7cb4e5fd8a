"""What is known of a model under `torch.compile` besides its times. No torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from layerbench.records.bounds import Count, Path, Positive, Text, Time
from layerbench.records.workload import CompileMode, Frozen

Portion = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole."""


class KernelPart(Frozen):
    """A layer in a kernel of compiled code.

    Attributes:
        module: path of the layer.
        function: the operator, or the function that the layer called.
        share: of the kernel's time, by what it moves and computes; the parts of a kernel add up
            to 1, less what belongs to no known layer.
    """

    module: Path
    function: Text = ""
    share: Portion


class GraphBreak(Frozen):
    """A place where a graph ends, as the code there cannot be compiled.

    Attributes:
        reason: as PyTorch says it.
        where: the line of code; "" where it is not known.
        calls: how often it was met while the model was compiled.
    """

    reason: Text
    where: Text = ""
    calls: Positive = 1


class Compilation(Frozen):
    """How a model was compiled.

    Attributes:
        mode: of `torch.compile`.
        seconds: of the first call of the compiled model. C++ that was compiled before is taken
            from Inductor's folder, and nothing else.
        graphs: that hold kernels.
        kernels: called in one forward; ``None`` where they were not seen.
        fused: those of them with several layers in them.
        attributed: the part of the kernels' time that belongs to a known layer or function.
        breaks: where graphs end.
        recompilations: why code was compiled again: the guard that failed, for each time.
    """

    mode: CompileMode
    seconds: Time
    graphs: Count
    kernels: Count | None = None
    fused: Count | None = None
    attributed: Portion | None = None
    breaks: tuple[GraphBreak, ...] = ()
    recompilations: tuple[Text, ...] = ()
