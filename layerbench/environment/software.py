"""Software of a measurement: versions, settings, state of the code, the command. Loads no torch."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from layerbench._version import __version__
from layerbench.environment.machine import run_and_read
from layerbench.records.environment import Software

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "segmentation-models-pytorch",
    "open-clip-torch",
    "torchao",
    "numpy",
    "torchinfo",
    "pytorch-memlab",
)


# Environment variables that change how fast the same code runs.
SPEED_VARIABLES = (
    "CUDA_LAUNCH_BLOCKING",
    "GOMP_CPU_AFFINITY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "LD_PRELOAD",
    "MALLOC_CONF",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "ONEDNN_MAX_CPU_ISA",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)


# Changes to these change no figure. Without this list a script that writes several reports would
# mark all but its first as measured with changed code.
NOT_CODE = (
    "stats/**",
    "cpu/*/**",
    "memory_reports/**",
    "model_structures/**",
    "**/*.md",
)


def command_line(arguments: Sequence[str]) -> str:
    """The command as a reader would type it, without folders of this machine.

    Absolute paths below the present folder become relative; others keep their last part.

    Args:
        arguments: as in `sys.argv`.
    """
    if not arguments:
        return ""
    program = Path(arguments[0])
    first = ["python", "-m", program.parent.name] if program.name == "__main__.py" else None
    words = [*(first or [program.name]), *map(_without_machine_path, arguments[1:])]
    return shlex.join(words)


def _without_machine_path(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if equals and option.startswith("-"):
        return f"{option}={_without_machine_path(value)}"
    family, colon, place = argument.partition(":")
    if colon and Path(place).is_absolute():  # a folder with a saved model
        return f"{family}:{_without_machine_path(place)}"
    path = Path(argument)
    if not path.is_absolute():
        return argument
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return path.name or argument


def read_software(settings: Mapping[str, str]) -> Software:
    """Versions, settings, those in the environment included, and the state of the code."""
    commit, dirty = code_version()
    return Software(
        layerbench=__version__,
        python=platform.python_version(),
        packages=package_versions(),
        settings={**settings, **speed_variables(os.environ)},
        commit=commit,
        dirty=dirty,
    )


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of the installed packages among ``names``."""
    from importlib import metadata  # not needed by readers of records

    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def speed_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that change speed, with paths cut to their last part."""
    settings = {name: variables[name] for name in SPEED_VARIABLES if variables.get(name)}
    if "LD_PRELOAD" in settings:
        libraries = settings["LD_PRELOAD"].replace(":", " ").split()
        settings["LD_PRELOAD"] = " ".join(Path(library).name for library in libraries)
    return settings


def code_version(package: Path = Path(__file__).parents[1]) -> tuple[str | None, bool | None]:
    """Commit of the checkout that ``package`` is part of, and whether its code was changed.

    Untracked files and changes to reports and documents do not count as changes.

    Returns:
        ``(commit, dirty)``; ``(None, None)`` where there is no git or ``package`` is not
        tracked (an installed copy inside someone else's repository is not that repository).
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    commit = _git(package, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    excluded = [f":(top,exclude,glob){pattern}" for pattern in NOT_CODE]
    changes = _git(
        package, "status", "--porcelain", "--untracked-files=no", "--", ":(top)", *excluded
    )
    return commit, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    # Variables such as GIT_DIR, set while a hook runs, would point git at another repository;
    # optional locks would let `status` rewrite the index under another git's feet.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    clean["GIT_OPTIONAL_LOCKS"] = "0"
    return run_and_read(["git", "-C", str(folder), *arguments], clean)
