"""``.config/config.toml``: what `layerbench detect` trains, where it is not said otherwise.

One table, ``[training]``. Loads no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from layerbench.errors import UsageError, did_you_mean
from layerbench.records.defaults import MOST_PIXELS
from layerbench.records.detection_run import DetectionRecipe
from layerbench.records.workload import Frozen
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


class RunOptions(Frozen):
    """What changes no weight.

    Attributes:
        device: its name; ``None`` or ``auto`` takes the accelerator if there is one.
        data_dir: the folder that data sets lie in.
        output_dir: the folder that runs lie in.
        download: fetch a data set that is missing.
        threads: intra-op CPU threads; ``None`` leaves PyTorch's choice.
        save_weights: write the weights at the end.
        most_pixels: an image of more is not read.
    """

    device: str | None = None
    data_dir: Path = Path("data")
    output_dir: Path = Path("outputs")
    download: bool = False
    threads: int | None = Field(default=None, ge=1)
    save_weights: bool = True
    most_pixels: int = Field(default=MOST_PIXELS, ge=1)


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
    given: Mapping[str, Any], path: Path | None = None
) -> tuple[DetectionRecipe, RunOptions]:
    """What is trained and where: a command line's words before the file's before the defaults.

    Args:
        given: by the names of our fields; ``None`` for what was not said.
        path: as for `read`.

    Raises:
        UsageError: the file cannot be read, or a value makes no sense.
    """
    values = read(path) | {name: value for name, value in given.items() if value is not None}
    around = set(RunOptions.model_fields)
    recipe = {name: value for name, value in values.items() if name not in around}
    try:
        return (
            DetectionRecipe.model_validate(recipe),
            RunOptions.model_validate({name: values[name] for name in values if name in around}),
        )
    except ValidationError as error:
        raise UsageError(_first(error)) from None


def _field(name: str, place: Path) -> str:
    found = ALIASES.get(name, name)
    known = {*DetectionRecipe.model_fields, *RunOptions.model_fields}
    if found in known:
        return found
    close = did_you_mean(name, [*ALIASES, *known])
    hint = f": {close}" if close else f"; known are {', '.join(sorted(known))}"
    raise UsageError(f"{place} has a key {name!r} in [{TABLE}] that means nothing{hint}")


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    name = ".".join(map(str, found["loc"]))
    names = [alias for alias, field in ALIASES.items() if field == name]
    said = f"{name} ({', '.join(names)})" if names else name
    return f"{said}: {found['msg'].lower()}, got {one_line(repr(found.get('input')), MOST_SAID)}"
