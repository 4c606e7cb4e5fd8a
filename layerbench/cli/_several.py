"""Several values for one option, and what is done with each combination of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, get_args

from layerbench.cli._generated import names_in
from layerbench.errors import UsageError

if TYPE_CHECKING:
    from layerbench.cli._options import WorkloadOptions


def joined(words: Iterable[str], spellings: Collection[str]) -> list[str]:
    """A command line with the words of such an option as one, with commas.

    Args:
        words: of the command line.
        spellings: of the options that take several.

    Example:
        >>> joined(["--input", "imagenet", "pascal", "--quiet"], ["--input"])
        ['--input', 'imagenet,pascal', '--quiet']
    """
    made: list[str] = []
    takes = has_one = False
    rest = iter(words)
    for word in rest:
        if word == "--":
            return [*made, word, *rest]
        if word.startswith("-"):
            name, _, value = word.partition("=")
            takes, has_one = name in spellings, bool(value)
        elif takes and has_one:
            made[-1] += f",{word}"
            continue
        else:
            has_one = True
        made.append(word)
    return made


def added_up(words: Iterable[str], lists: Mapping[str, str]) -> list[str]:
    """A command line in which each of some options is said once, with all its values.

    Args:
        words: of the command line.
        lists: options that take a list, by their spellings.

    Example:
        >>> added_up(["--device", "t4", "--quiet", "--device=a100"], {"--device": "device"})
        ['--device', 't4,a100', '--quiet']
    """
    made: list[str] = []
    values: dict[str, int] = {}
    rest = iter(words)
    for word in rest:
        if word == "--":
            return [*made, word, *rest]
        name, equals, value = word.partition("=")
        option = lists.get(name.replace("_", "-"))
        if option is None:
            made.append(word)
            continue
        said = [word] if equals else [word, *islice(rest, 1)]
        if option in values and (equals or len(said) > 1):
            made[values[option]] += f",{value if equals else said[-1]}"
        else:
            made += said
            values[option] = len(made) - 1
    return made


def with_values(words: Sequence[str], spellings: Collection[str]) -> list[str]:
    """A command line in which options that may stand without a value have an empty one.

    Args:
        words: of the command line.
        spellings: of the options whose value may be left out.

    Example:
        >>> with_values(["--checkpoint-activations", "--quiet"], ["--checkpoint-activations"])
        ['--checkpoint-activations=', '--quiet']
    """
    made: list[str] = []
    ended = False
    for word, after in zip_longest(words, words[1:]):
        alone = after is None or after.startswith("-")
        ended = ended or word == "--"
        said = word.replace("_", "-") in spellings
        made.append(f"{word}=" if said and alone and not ended else word)
    return made


def combinations(what: WorkloadOptions, models: list[str]) -> list[WorkloadOptions]:
    """Each of the models with each of the inputs, once.

    Args:
        what: with one input or several, with commas.
        models: that were said without an option's name; none for that of ``what``.

    Raises:
        UsageError: models were said in both ways, or one of them is the name of an input or a mode.
    """
    from layerbench.records.workload import CompileMode
    from layerbench.zoo.inputs import NAMED

    if modes := [name for name in models if name in get_args(CompileMode)]:
        raise UsageError(f"{modes[0]} is a mode and no model: say --compile={modes[0]}")
    if misplaced := [name for name in models if name in NAMED]:
        said = " ".join(misplaced)
        raise UsageError(f"{misplaced[0]} is an input and no model: say --input {said}")
    if models and "model" in what.model_fields_set:
        raise UsageError(f"say the models once: {' '.join(models)}, or --model {what.model}")
    inputs = [what.input] if what.input is None else names_in(what.input)
    pairs = dict.fromkeys((model, input) for model in models or [what.model] for input in inputs)
    return [what.model_copy(update={"model": model, "input": input}) for model, input in pairs]
