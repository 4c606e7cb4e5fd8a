"""Names of torchvision's models, read from its source. No torch."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# A builder is registered under its own name, or under one that is said.
_REGISTERED = re.compile(
    r'^@register_model\((?:name="(\w+)")?\)\n(?:@.*\n|[ )].*\n)*def (\w+)\(', re.MULTILINE
)


@cache
def torchvision_names(task: str = "") -> tuple[str, ...]:
    """What ``torchvision.models.list_models()`` lists, a second sooner; sorted.

    For what cannot wait for torch, as the completion of a command line. Empty without torchvision.

    Args:
        task: of the models, such as ``detection``; empty for all of them.
    """
    package = find_spec("torchvision")
    places = (package and package.submodule_search_locations) or ()
    files = (file for place in places for file in (Path(place) / "models" / task).rglob("*.py"))
    texts = (file.read_text(encoding="utf-8") for file in files)
    return tuple(sorted(
        said or own for text in texts for said, own in _REGISTERED.findall(text)
    ))  # fmt: skip
