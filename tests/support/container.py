"""Runs the steps of the Dockerfile without a container engine.

    python tests/support/container.py            # seconds: what is installed here counts
    python tests/support/container.py --whole    # minutes and several GB

It reads the Dockerfile itself and lays the image's files out in a temporary folder, at which every
absolute path of the Dockerfile begins. COPY brings what .dockerignore lets through; a RUN whose
programs are all in ``RUNS`` is run; then HEALTHCHECK, and ENTRYPOINT with CMD. A RUN of programs in
``LEFT`` is listed as not run, and the packages it names are looked up. Anything without a rule is
an error, so that no step goes unnoticed. The exit status is 0 only if there was none.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser
from dockerfile_parse.constants import COMMENT_INSTRUCTION
from dockerfile_parse.util import WordSplitter, get_key_val_dictionary

# As a script it finds no package of tests.
ROOT = Path(__file__).resolve().parents[2]

#: Programs that work on what they are told to, and so below the image's folder.
RUNS = {"chmod", "mkdir", "pip", "python", "python3"}
#: Programs that work on the system, and need root and the image's own Ubuntu.
LEFT = {"apt-get", "groupadd", "rm", "useradd"}
#: Instructions that bring no file and run nothing.
DECLARED = ("EXPOSE", "LABEL", "STOPSIGNAL", "USER")
#: Instructions that matter in the finished image; of several the last one counts.
LAST = ("HEALTHCHECK", "ENTRYPOINT", "CMD")
#: What of this machine stands for the base image's programs, beside Python.
TOOLS = ("chmod", "mkdir", "sh", "uname")

# A path that begins here: not the inside of a longer one or of a URL, nor what follows a variable.
ABSOLUTE = re.compile(r"(?<![\w.$}/*?~-])/(?=[\w.])(?!dev/null\b)")
# What pip may need to reach its index. Nothing else of this environment is in an image.
PASSED_ON = re.compile(
    r"PIP_\w+|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|(https?|no|all)_proxy", re.IGNORECASE
)
CANDIDATE = re.compile(r"^(\S+):\n.*\n +Candidate: (?!\(none\))", re.MULTILINE)
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class StepError(Exception):
    """A step failed, or there is no rule for it."""


@dataclass
class Image:
    """What the instructions so far have made of the image."""

    root: Path
    context: Path
    whole: bool
    sent: set[str] = field(default_factory=set)
    env: dict[str, str] = field(default_factory=dict)
    arguments: str = "[]"
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.root

    def staged(self, text: str) -> str:
        """The text with every absolute path beginning in the image's folder."""
        return ABSOLUTE.sub(lambda _: f"{self.root}/", text)

    def place(self, path: str) -> Path:
        """Where a path of the image lies, absolute or below its working directory."""
        return self.folder / WordSplitter(self.staged(path), envs=self.env).dequote()


def instructions(dockerfile: Path) -> Iterator[tuple[int, str, str]]:
    """Line, name and value of each instruction."""
    for found in DockerfileParser(str(dockerfile)).structure:
        if found["instruction"] != COMMENT_INSTRUCTION:
            yield found["startline"] + 1, found["instruction"], found["value"]


def files_sent(context: Path) -> set[str]:
    """The files that .dockerignore lets through to the engine."""
    ignore = context / ".dockerignore"
    lines = ignore.read_text().splitlines() if ignore.exists() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return {path for path in exclude_paths(str(context), patterns) if (context / path).is_file()}


def words_of(value: str) -> list[str]:
    """The words of an instruction in JSON form.

    Raises:
        StepError: it is in the other form, which the image's shell would take apart.
    """
    try:
        return [str(word) for word in json.loads(value)]
    except ValueError:
        raise StepError("there is no rule for this form: write a JSON list") from None


def execute(image: Image, command: list[str], timeout: float | None = None) -> str:
    """Run a command in the image's folder and environment, and say how long it took.

    Raises:
        StepError: it failed; the message ends with what it wrote.
    """
    program = shutil.which(command[0], path=image.env["PATH"])
    if program is None:
        raise StepError(f"the image has no program {command[0]}")
    began = time.monotonic()
    try:
        done = subprocess.run(
            [program, *command[1:]],
            cwd=image.folder,
            env=image.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StepError(f"not done after {timeout:g} s") from None
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-20:])
        raise StepError(f"exit status {done.returncode}\n{end}")
    return f"ran, {time.monotonic() - began:.1f} s"


def begin(image: Image, value: str) -> str:
    """FROM: Python and a few tools of this machine stand for the base image."""
    if image.env:
        raise StepError("there is no rule for a second FROM")
    (image.root / "tmp").mkdir()
    programs = image.root / "usr" / "bin"
    programs.mkdir(parents=True)
    # A script, since Python looks for its library beside the file it was started by.
    base = shlex.quote(getattr(sys, "_base_executable", sys.executable))
    # pip is lent with the packages: to install another takes a third of the time of all steps.
    lean = "" if image.whole else f'[ "$1 $2" != "-m venv" ] || exec {base} "$@" --without-pip\n'
    write_program(programs / "python3", f'#!/bin/sh\n{lean}exec {base} "$@"\n')
    for name in TOOLS:
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    # Only these, so that no program of this machine can stand for one that the image lacks.
    image.env = {name: text for name, text in os.environ.items() if PASSED_ON.fullmatch(name)}
    image.env |= {"PATH": str(programs), "HOME": os.environ.get("HOME", "/")}
    if not image.whole:
        # What is missing fails at once, instead of being fetched.
        image.env["PIP_NO_INDEX"] = "1"
        # Python compiles the few modules that the steps after it import. (0 is meant: pip takes it
        # for the value of what it turns off.)
        image.env["PIP_NO_COMPILE"] = "0"
    return "not pulled"


def write_program(path: Path, text: str) -> None:
    """Write a script that can be run."""
    path.write_text(text)
    path.chmod(0o755)


def set_variables(image: Image, value: str) -> str:
    """ENV."""
    text = image.staged(value)
    image.env.update(get_key_val_dictionary(text, env_replace=True, envs=image.env))
    return "set"


def set_folder(image: Image, value: str) -> str:
    """WORKDIR."""
    image.folder = image.place(value)
    image.folder.mkdir(parents=True, exist_ok=True)
    return "made"


def make_volumes(image: Image, value: str) -> str:
    """VOLUME: an engine makes the folders it mounts on."""
    for path in words_of(value):
        image.place(path).mkdir(parents=True, exist_ok=True)
    return "made"


def copy(image: Image, value: str) -> str:
    """COPY, of files and folders by their names."""
    words = [word for word in shlex.split(value) if not re.match(r"--(chown|chmod)=", word)]
    if words[0].startswith(("--", "[")) or re.search(r"[*?[]", " ".join(words[:-1])):
        raise StepError("there is no rule for this form of COPY")
    *sources, wanted = words
    target = image.place(wanted)
    is_folder = wanted.endswith("/") or len(sources) > 1 or target.is_dir()
    count = 0
    for source in map(os.path.normpath, sources):
        inside = [name for name in image.sent if source == "." or name.startswith(f"{source}/")]
        places = {name: target / os.path.relpath(name, source) for name in inside}
        if source in image.sent:
            places[source] = target / Path(source).name if is_folder else target
        if not places:
            raise StepError(f"{source} is not there, or .dockerignore keeps it out")
        for name, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image.context / name, place)
        count += len(places)
    return f"files: {count}"


def run(image: Image, value: str) -> str:
    """RUN: run, or left out, by what its programs are."""
    if value.startswith(("[", "--", "<<")):
        raise StepError("there is no rule for this form of RUN")
    commands = simple_commands(value)
    names = {words[0] for words in commands}
    if unknown := names - RUNS - LEFT:
        raise StepError(f"there is no rule for {', '.join(sorted(unknown))}")
    if names & LEFT and names & RUNS:
        raise StepError("what can be run and what cannot have to be RUNs of their own")
    if names & LEFT:
        return f"NOT RUN; {look_up(tuple(packages_of(commands)))}"
    outcome = execute(image, ["sh", "-c", image.staged(value)])
    if not image.whole:
        lend_packages(image)
    return outcome


def simple_commands(text: str) -> list[list[str]]:
    """The words of each simple command in a line of shell, without assignments before it."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("();<>|&"):
            found.append([])
        elif found[-1] or not re.match(r"\w+=", word):
            found[-1].append(word)
    return [words for words in found if words]


def packages_of(commands: list[list[str]]) -> list[str]:
    """What apt-get is told to install."""
    return [
        word.partition("=")[0]
        for words in commands
        if words[0] == "apt-get" and "install" in words
        for word in words[words.index("install") + 1 :]
        if not word.startswith("-")
    ]


@cache
def look_up(packages: tuple[str, ...]) -> str:
    """Say whether this machine's package lists, if it has any, know the packages.

    Raises:
        StepError: they do not know one of them.
    """
    has_lists = any(Path("/var/lib/apt/lists").glob("*_Packages*"))
    if not packages or not has_lists or not shutil.which("apt-cache"):
        return "nothing looked up"
    command = ["apt-cache", "policy", *packages]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if missing := set(packages) - set(CANDIDATE.findall(told)):
        raise StepError(f"this machine's lists have no package {', '.join(sorted(missing))}")
    return f"this machine's lists have {', '.join(packages)}"


def lend_packages(image: Image) -> None:
    """Let a virtual environment that was just made see the packages installed here."""
    environment = image.env.get("VIRTUAL_ENV", "")
    if not (Path(environment) / "pyvenv.cfg").exists():
        return
    site = sysconfig.get_path("purelib", "posix_prefix", {"base": environment})
    lent = Path(site) / "lent.pth"
    if lent.exists():
        return
    programs = Path(environment) / "bin"
    write_program(programs / "pip", f'#!/bin/sh\nexec "{programs}/python" -m pip "$@"\n')
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lent.write_text("".join(f"{path}\n" for path in sorted(here)))


def declare(_image: Image, _value: str) -> str:
    """An instruction that brings no file and runs nothing."""
    return "nothing to do"


def check_health(image: Image, value: str) -> str:
    """Run the command of HEALTHCHECK, for as long as an engine would wait."""
    options, _, command = value.partition("CMD")
    named = re.search(r"--timeout=(\S+)", options)
    parts = DURATION.findall(named[1] if named else "30s")
    timeout = sum(float(number) * SECONDS[unit] for number, unit in parts)
    return execute(image, words_of(image.staged(command)), timeout)


def start(image: Image, value: str) -> str:
    """Run ENTRYPOINT with CMD, as a container without arguments does."""
    return execute(image, words_of(value) + words_of(image.arguments))


RULES: dict[str, Callable[[Image, str], str]] = {
    "FROM": begin,
    "ENV": set_variables,
    "WORKDIR": set_folder,
    "VOLUME": make_volumes,
    "COPY": copy,
    "RUN": run,
    **dict.fromkeys(DECLARED, declare),
    "HEALTHCHECK": check_health,
    "ENTRYPOINT": start,
}


def no_rule(_image: Image, _value: str) -> str:
    """Any other instruction."""
    raise StepError("there is no rule for this instruction")


def follow(image: Image, dockerfile: Path) -> None:
    """Follow the Dockerfile, and print a line for each instruction.

    Raises:
        StepError: an instruction failed, is missing or has no rule; the message has its line.
    """
    steps = list(instructions(dockerfile))
    last = {name: (line, name, value) for line, name, value in steps if name in LAST}
    for name in LAST:
        if name not in last:
            raise StepError(f"{dockerfile.name} has no {name}")
    image.arguments = last["CMD"][2]
    now = [step for step in steps if step[1] not in LAST]
    for line, name, value in [*now, last["HEALTHCHECK"], last["ENTRYPOINT"]]:
        try:
            outcome = RULES.get(name, no_rule)(image, value)
        except StepError as error:
            raise StepError(f"{dockerfile.name}:{line}: {name} {value}\n{error}") from None
        print(f"{dockerfile.name}:{line}: {name} {shortened(value)}: {outcome}", flush=True)


def shortened(value: str) -> str:
    """The value in at most half a line."""
    text = " ".join(value.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run the Dockerfile's steps without an engine.")
    parser.add_argument("--whole", action="store_true", help="install everything for real")
    parser.add_argument("--context", type=Path, default=ROOT, help="the folder of the Dockerfile")
    given = parser.parse_args()
    context = given.context.resolve()
    with tempfile.TemporaryDirectory(prefix="container-") as folder:
        image = Image(Path(folder), context, given.whole, files_sent(context))
        try:
            follow(image, context / "Dockerfile")
        except StepError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
