"""The container image: its files are linted, and its steps run as far as they go without an engine.

No test here reaches a network: pip is told to use none, and the schema comes with its checker.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import requires
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from layerbench import cli
from layerbench.service.web.store_place import is_postgresql
from tests.support import container
from tests.support.paths import ROOT

DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "compose.yaml"
EVERY = YAML(typ="safe").load(COMPOSE)["services"]
# Those of the image that is built here; others are somebody else's.
BUILT = {name: one for name, one in EVERY.items() if "build" in one}
# They run Ray in place of a verb.
NODES = ("head", "worker")
SERVICES = {name: one for name, one in BUILT.items() if name not in NODES}
service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
CLUSTER = ("web-1", "web-2")


def call(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of the environment's programs."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    program = shutil.which(command[0], path=path)
    assert program, f"{command[0]} of requirements.txt is not installed"
    return subprocess.run(
        [program, *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def hadolint(dockerfile: Path) -> subprocess.CompletedProcess[str]:
    return call("hadolint", "--no-color", dockerfile)


def compose_schema(file: Path) -> subprocess.CompletedProcess[str]:
    return call("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


def follow(context: Path) -> subprocess.CompletedProcess[str]:
    """In this process, which has loaded what reads a Dockerfile."""
    words = [container.__file__, "--context", str(context)]
    with (
        pytest.MonkeyPatch.context() as patched,
        redirect_stdout(StringIO()) as out,
        redirect_stderr(StringIO()) as err,
    ):
        patched.setattr(sys, "argv", words)
        status = container.main()
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def test_hadolint_finds_nothing() -> None:
    done = hadolint(DOCKERFILE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_finds_what_it_should(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text(DOCKERFILE.read_text().replace(":13.0.3-base-ubuntu24.04", ":latest"))
    done = hadolint(bad)
    assert done.returncode != 0
    assert "DL3007" in done.stdout


def test_the_compose_file_is_one() -> None:
    done = compose_schema(COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"), [("shm_size:", "shm_sizes:"), ("device_ids:", "device_id:")]
)
def test_a_compose_file_with_an_unknown_key_is_none(right: str, wrong: str, tmp_path: Path) -> None:
    bad = tmp_path / "compose.yaml"
    bad.write_text(COMPOSE.read_text().replace(right, wrong))
    done = compose_schema(bad)
    assert done.returncode != 0
    assert wrong.rstrip(":") in done.stdout


def test_the_base_image_is_of_the_cuda_that_torch_is_built_for() -> None:
    wanted = re.search(r"cuda-toolkit\[[^]]*\]==([\d.]+)", " ".join(requires("torch") or []))
    if wanted is None:
        pytest.skip("the torch installed here is built for another device")
    base = re.search(r"^FROM nvidia/cuda:([\d.]+)-base-ubuntu", DOCKERFILE.read_text(), re.M)
    assert base is not None
    assert base[1] == wanted[1]


@pytest.mark.slow
def test_every_step_is_run_or_listed_as_not_run() -> None:
    done = call(sys.executable, container.__file__)
    assert done.returncode == 0, done.stdout + done.stderr
    told = {
        int(line): (name, rest)
        for line, name, rest in re.findall(r"^Dockerfile:(\d+): (\w+) (.*)$", done.stdout, re.M)
    }
    for number, line in enumerate(DOCKERFILE.read_text().splitlines(), start=1):
        name = line.partition(" ")[0]
        if name in {"RUN", "HEALTHCHECK", "ENTRYPOINT"}:
            assert told[number][0] == name
            outcome = "NOT RUN" if line.startswith("RUN apt-get") else ": ran, "
            assert outcome in told[number][1]
    assert "Dockerfile" not in done.stderr


SOUND = """FROM nowhere/base:1
RUN apt-get update && apt-get install --yes python3 && rm -rf /var/lib/apt/lists/*
ENV TOOLS=/opt/tools
ENV PATH="$TOOLS:$PATH"
WORKDIR /work
COPY kept.py "$TOOLS/"
RUN chmod 755 /opt/tools/kept.py && mkdir "$TOOLS/made"
USER 1000:1000
HEALTHCHECK --timeout=20s CMD ["kept.py"]
ENTRYPOINT ["kept.py"]
CMD ["argument"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context whose Dockerfile is sound, with a file that does not get past .dockerignore."""
    (tmp_path / "Dockerfile").write_text(SOUND)
    (tmp_path / ".dockerignore").write_text("# a comment\n*\n!kept.py\n")
    (tmp_path / "kept.py").write_text("#!/bin/sh\necho it was started with: $*\n")
    (tmp_path / "ignored.py").touch()
    return tmp_path


def test_a_sound_context_passes(context: Path) -> None:
    done = follow(context)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in context.iterdir()) == [
        ".dockerignore",
        "Dockerfile",
        "ignored.py",
        "kept.py",
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "line", "named"),
    [
        ("RUN chmod", "RUN mkdir no/such && chmod", 7, "exit status 1"),
        ("RUN chmod", "RUN curl http://x && chmod", 7, "no rule for curl"),
        ("RUN chmod", "RUN rm -rf /opt && chmod", 7, "RUNs of their own"),
        ("RUN chmod", "RUN --network=none chmod", 7, "no rule for this form"),
        ("COPY kept.py", "COPY ignored.py", 6, "ignored.py is not there"),
        ("COPY kept.py", "COPY *.py", 6, "no rule for this form"),
        ("USER", "FROM", 8, "second FROM"),
        ("USER", "ONBUILD USER", 8, "no rule for this instruction"),
        ('CMD ["kept.py"]', 'CMD ["python3", "-c", "assert 0"]', 9, "AssertionError"),
        ("=20s", "=10ms", 9, "not done after 0.01 s"),
        ('POINT ["kept.py"]', "POINT kept.py", 10, "no rule for this form"),
        # There on every machine that runs this test, but not in the image.
        ('POINT ["kept.py"]', 'POINT ["ls"]', 10, "no program ls"),
    ],
)
def test_a_step_that_is_wrong_is_named(
    context: Path, right: str, wrong: str, line: int, named: str
) -> None:
    if right == "=20s":
        (context / "kept.py").write_text("#!/bin/sh\nwhile :; do :; done\n")
    assert right in SOUND
    (context / "Dockerfile").write_text(SOUND.replace(right, wrong))
    done = follow(context)
    assert done.returncode == 1
    assert f"Dockerfile:{line}: " in done.stderr
    assert named in done.stderr


def test_a_package_that_is_not_in_the_lists_is_named(context: Path) -> None:
    if "lists have" not in follow(context).stdout:
        pytest.skip("there are no package lists on this machine")
    (context / "Dockerfile").write_text(SOUND.replace("python3 ", "layerbench-is-no-package "))
    done = follow(context)
    assert done.returncode == 1
    assert "layerbench-is-no-package" in done.stderr


def test_an_image_without_a_healthcheck_fails(context: Path) -> None:
    (context / "Dockerfile").write_text(re.sub("HEALTHCHECK .*\n", "", SOUND))
    done = follow(context)
    assert done.returncode == 1
    assert "no HEALTHCHECK" in done.stderr


@service
def test_a_service_mounts_below_the_working_directory(service: dict[str, Any]) -> None:
    folders = re.findall(r"^WORKDIR (\S+)$", DOCKERFILE.read_text(), re.M)
    targets = {Path(volume["target"]) for volume in service["volumes"]}
    assert {target.parent for target in targets} == {Path(folders[-1])}
    words = service["command"]
    paths = {"detect": ("--data_dir", "--output_dir"), "serve": ("--database",)}[words[0]]
    for option in paths:
        word = words[words.index(option) + 1]
        if is_postgresql(word):
            # The password comes by the environment.
            assert urlsplit(word).hostname in EVERY
            assert urlsplit(word).password is None
            continue
        path = Path(folders[-1]) / word
        assert targets & {path, path.parent}


@service
def test_a_service_says_what_the_command_line_understands(
    service: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *words = service["command"]
    # A table of options cuts none of their names off.
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["layerbench", verb, "--help"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    shown = capsys.readouterr()
    assert left.value.code == 0, shown.err
    for word in words:
        assert not word.startswith("--") or word in shown.out


def test_only_the_gpu_services_ask_for_a_device() -> None:
    for with_gpu in ("gpu", "service-gpu"):
        (device,) = SERVICES[with_gpu]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}
    chosen = {"cpu": "cpu", "gpu": "cuda:0", "service": "cpu", "service-gpu": "cuda:0"}
    chosen |= dict.fromkeys(CLUSTER, "cpu")
    assert chosen.keys() == SERVICES.keys()
    for name, kind in chosen.items():
        assert ("deploy" in SERVICES[name]) == (kind != "cpu")
        words = SERVICES[name]["command"]
        told = SERVICES[name].get("environment", {}).get("LAYERBENCH_SERVE_DEVICE")
        assert (told or words[words.index("--device") + 1]) == kind
        assert SERVICES[name]["profiles"] == (["cluster"] if name in CLUSTER else [name])


def test_the_nodes_of_the_cluster_are_started_as_ray_understands_it() -> None:
    help = call("ray", "start", "--help").stdout
    for name in NODES:
        program, verb, *words = EVERY[name]["entrypoint"]
        assert (program, verb) == ("ray", "start")
        assert all(word in help for word in words if word.startswith("--"))
        assert EVERY[name]["profiles"] == ["cluster"]
        # One lock for all that measures on the machine.
        locks = EVERY[name]["environment"]["LAYERBENCH_LOCKS"]
        assert locks == EVERY["web-1"]["environment"]["LAYERBENCH_SERVE_LOCKS"]
        assert EVERY[name]["volumes"] == EVERY["web-1"]["volumes"]
    address = EVERY["worker"]["entrypoint"]
    assert address[address.index("--address") + 1].startswith("head:")
    assert EVERY["web-1"]["environment"]["LAYERBENCH_SERVE_CLUSTER"].startswith("ray://head:")


def test_the_web_processes_of_the_cluster_share_database_and_device() -> None:
    first, second = (EVERY[name] for name in CLUSTER)
    assert first["ports"] != second["ports"]
    assert {**first, "ports": None} == {**second, "ports": None}
    database = EVERY["postgresql"]
    assert database["profiles"] == first["profiles"]
    assert "ports" not in database
    address = first["command"][first["command"].index("--database") + 1]
    assert urlsplit(address).username == database["environment"]["POSTGRES_USER"]
    password = database["environment"]["POSTGRES_PASSWORD"]
    assert first["environment"]["PGPASSWORD"] == password
    locks = first["environment"]["LAYERBENCH_SERVE_LOCKS"]
    assert [Path(one["target"]).name for one in first["volumes"]] == [locks]
