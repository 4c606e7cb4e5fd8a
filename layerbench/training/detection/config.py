"""``.config/config.toml``: the defaults of `layerbench detect`.

One table, ``[training]``. Loads no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from layerbench.errors import UsageError, did_you_mean
from layerbench.records.options import OUTCOME, checked, device_option, option
from layerbench.records.recipes import DetectionRecipe, MachineOptions
from layerbench.text import one_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT = Path(".config/config.toml")
TABLE = "training"
MOST_BYTES = 2**20
# Characters of what is wrong that a message repeats.
MOST_SAID = 200


class RunOptions(MachineOptions):
    """Where a run happens, and what changes no weight."""

    device: Annotated[str | None, device_option("the configuration's, else ")] = None
    output_dir: Annotated[
        Path,
        option(
            "The run gets a folder of its own in DIR, named after model, data and time.",
            "--output_dir",
            panel=OUTCOME,
            metavar="DIR",
        ),
    ] = Path("outputs")
    save_weights: Annotated[
        bool,
        option(
            "Write the weights at the end.",
            "--save_weights/--no-save_weights",
            panel=OUTCOME,
            default_text="they are written",
        ),
    ] = True


# Keys of the file that other tools of this kind use, and the fields that they mean.
ALIASES = {
    "num_epochs": "epochs",
    "batch_size": "batch",
    "num_workers": "workers",
    "dataset": "data",
    "classes": "labels",
    "steps_to_profile": "profile_steps",
}


def read(path: Path | None) -> dict[str, Any]:
    """The keys of a configuration, by the names of our fields.

    Args:
        path: of the file; ``None`` for `DEFAULT`, which need not be there.

    Raises:
        UsageError: it cannot be read, or has keys that mean nothing.
    """
    if path is None and not DEFAULT.is_file():
        return {}
    place = path or DEFAULT
    content = _table(place)
    unknown = [name for name in content if name != TABLE]
    if unknown or not isinstance(content.get(TABLE, {}), dict):
        raise UsageError(f"{place} holds one table, [{TABLE}], not {', '.join(unknown) or TABLE}")
    values: dict[str, Any] = {}
    for name, value in content.get(TABLE, {}).items():
        field = _field(name, place)
        if field in values:
            raise UsageError(f"{place} says {field} twice: the second time as {name}")
        values[field] = value
    return values


def _table(place: Path) -> dict[str, Any]:
    try:
        with place.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise UsageError(f"{place} is larger than a configuration may be, {MOST_BYTES} bytes")
        return tomllib.loads(data.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {place}: {error}") from error
    except RecursionError:
        raise UsageError(f"{place} is not TOML that can be read: it is nested too deep") from None
    except ValueError as error:  # also of numbers with too many digits
        raise UsageError(f"{place} is not TOML: {one_line(error, MOST_SAID)}") from error


def settled(
    options: Mapping[str, Any], path: Path | None = None
) -> tuple[DetectionRecipe, RunOptions]:
    """What is trained and where: a command line's words before the file's before the defaults.

    Args:
        options: what was said, by the names of our fields.
        path: as for `read`.

    Raises:
        UsageError: the file cannot be read, or a value makes no sense.
    """
    file = read(path)
    values = file | dict(options)
    around = {name: values[name] for name in values if name in RunOptions.model_fields}
    recipe = {name: values[name] for name in values if name not in RunOptions.model_fields}

    def written(field: str) -> str:
        place = f"{path or DEFAULT}: " if field in file.keys() - options.keys() else ""
        return f"{place}{_written(field)}"

    return checked(DetectionRecipe, recipe, written), checked(RunOptions, around, written)


def _field(name: str, place: Path) -> str:
    field = ALIASES.get(name, name)
    fields = {*DetectionRecipe.model_fields, *RunOptions.model_fields}
    if field in fields:
        return field
    close = did_you_mean(name, [*ALIASES, *fields])
    hint = f": {close}" if close else f"; known are {', '.join(sorted(fields))}"
    raise UsageError(f"{place} has a key {name!r} in [{TABLE}] that means nothing{hint}")


def _written(field: str) -> str:
    """A field with the other keys that mean it."""
    names = [alias for alias, name in ALIASES.items() if name == field]
    return f"{field} ({', '.join(names)})" if names else field
