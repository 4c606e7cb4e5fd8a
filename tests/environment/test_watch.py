from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from layerbench.environment import cgroups, machine, software, watch
from layerbench.environment.machine import CpuTimes
from layerbench.records import environment
from layerbench.records.environment import DeviceInfo, Machine

GIB = 2**30
DEVICE = DeviceInfo(kind="cpu", name="AMD EPYC", slug="amd-epyc-2c")
QUIET = Machine(
    cpu="AMD EPYC",
    cores=4,
    affinity=(0, 1, 2, 3),
    threads=4,
    governor="performance",
    load_before=0.1,
    steal_fraction=0.001,
    other_work_fraction=0.01,
    other_processes_on_device=0,
)


def tree(root, **files):
    """Make files below a root; ``__`` in a name is a slash."""
    for name, text in files.items():
        put(root, name.replace("__", "/"), text)
    return root


def put(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# --- the watch


def moments(*seconds):
    start = datetime(2026, 1, 2, 3, 4, 5, 900_000, tzinfo=timezone.utc)
    times = iter([start + timedelta(seconds=second) for second in seconds])
    return lambda: next(times)


@pytest.fixture
def core_times(monkeypatch):
    """The next readings of the cores' accounting."""
    readings = []
    monkeypatch.setattr(watch, "cpu_times", lambda: readings.pop(0))
    return readings


def test_a_watch_gives_a_whole_environment(core_times, monkeypatch):
    loads = iter([0.25, 1.75])
    monkeypatch.setattr(os, "getloadavg", lambda: (next(loads), 0.0, 0.0))
    core_times += [
        CpuTimes(total=100.0, busy=50.0, steal=1.0, own=10.0),
        CpuTimes(total=200.0, busy=110.0, steal=3.0, own=62.0),
    ]
    room = watch.watch(
        DEVICE,
        software_settings={"cudnn.benchmark": "False"},
        threads=1,
        interop_threads=2,
        other_processes_on_device=lambda: 0,
        now=moments(0, 61),
    )
    found = room.finish()
    assert found.device == DEVICE
    assert (found.started, found.finished) == ("2026-01-02T03:04:05Z", "2026-01-02T03:05:06Z")
    assert (found.machine.load_before, found.machine.load_after) == (0.25, 1.75)
    assert (found.machine.threads, found.machine.interop_threads) == (1, 2)
    assert found.machine.steal_fraction == pytest.approx(0.02)
    assert found.machine.other_work_fraction == pytest.approx(0.08)
    assert found.machine.other_processes_on_device == 0
    assert found.software.settings["cudnn.benchmark"] == "False"
    assert [warning for warning in found.warnings if "8% of the cores' time" in warning]
    assert [warning for warning in found.warnings if "2.0% of the cores' time" in warning]


@pytest.mark.parametrize(
    ("before", "after", "found"), [(None, 2, 2), (3, 1, 3), (0, None, 0), (None, None, None)]
)
def test_other_processes_on_the_device_are_counted_again_after_the_run(before, after, found):
    """Before it, a container cannot tell them from this process; others come while it runs."""
    counts = iter([before, after])
    room = watch.watch(
        DEVICE, threads=1, interop_threads=1, other_processes_on_device=lambda: next(counts)
    )
    ended = room.finish()
    assert ended.machine.other_processes_on_device == found
    assert any("the accelerator" in warning for warning in ended.warnings) == bool(found)


def test_a_high_load_is_looked_at_again_before_the_run(core_times, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    core_times += [
        CpuTimes(total=10.0, busy=5.0, steal=0.0, own=1.0),
        CpuTimes(total=20.0, busy=10.0, steal=0.0, own=1.0),
        CpuTimes(total=20.0, busy=10.0, steal=0.0, own=1.0),
    ]
    waited = []
    room = watch.watch(DEVICE, threads=1, interop_threads=1, pause=waited.append)
    assert waited == [watch.LOOK_S]
    assert [warning for warning in room.warnings if "used 50% of the cores' time" in warning]


def test_the_load_of_an_earlier_report_is_no_warning(core_times, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    core_times += [
        CpuTimes(total=10.0, busy=5.0, steal=0.0, own=5.0),
        CpuTimes(total=20.0, busy=5.1, steal=0.0, own=5.0),
        CpuTimes(total=20.0, busy=5.1, steal=0.0, own=5.0),
    ]
    room = watch.watch(DEVICE, threads=1, interop_threads=1, pause=lambda seconds: None)
    assert not [warning for warning in room.warnings if "stop other work" in warning]


def test_a_quiet_machine_is_not_looked_at_twice(core_times, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    core_times.append(CpuTimes(total=10.0, busy=5.0, steal=0.0, own=1.0))
    watch.watch(DEVICE, threads=1, interop_threads=1, pause=pytest.fail)
    assert core_times == []


def test_this_machine_can_be_watched():
    found = watch.watch(DEVICE, threads=1, interop_threads=1).finish()
    assert found.machine.cpu
    assert found.machine.cores >= len(found.machine.affinity or (0,)) >= 1
    assert found.machine.memory_bytes > 0
    assert found.software.packages["numpy"]
    assert found == environment.Environment.model_validate_json(found.model_dump_json())


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0, 0, 0, 0), (100, 50, 5, 30), (0.05, 0.2)),
        ((0, 0, None, 0), (100, 50, None, 50), (None, 0.0)),
        ((10, 5, 1, 5), (10, 5, 1, 5), (None, None)),
        ((0, 0, 0, 0), (100, 40, 0, 41), (0.0, 0.0)),
    ],
)
def test_fractions_of_the_cores_time(before, after, expected):
    assert machine.fractions_between(CpuTimes(*before), CpuTimes(*after)) == expected


def test_idle_waiting_and_stolen_time_is_not_busy(monkeypatch):
    values = {"user": 5.0, "nice": 1.0, "system": 2.0, "idle": 10.0, "iowait": 3.0, "irq": 0.25}
    values |= {"softirq": 0.5, "steal": 4.0, "guest": 5.0, "guest_nice": 1.0}
    times = SimpleNamespace(_asdict=lambda: values)
    monkeypatch.setattr(psutil, "cpu_times", lambda: times)
    found = machine.cpu_times()
    assert (found.total, found.busy, found.steal) == (25.75, 8.75, 4.0)


# --- warnings


def test_a_quiet_room_gives_no_warning():
    assert list(watch.warnings_about(QUIET)) == []


def test_what_could_not_be_read_gives_no_warning():
    assert list(watch.warnings_about(Machine(cpu="x", cores=1))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"other_work_fraction": 0.2}, "Other processes used 20% of the cores' time: stop"),
        ({"other_work_fraction": None, "load_before": 2.1}, "load average was 2.1 on 4 cores"),
        ({"steal_fraction": 0.02}, "2.0% of the cores' time to other guests: measure on"),
        ({"governor": "powersave"}, "governor is powersave: set it to performance"),
        ({"affinity": (2,)}, "4 threads share 1 core: use --threads 1 or fewer"),
        ({"affinity": None, "cores": 3}, "4 threads share 3 cores: use --threads 3"),
        ({"other_processes_on_device": 1}, "1 other process uses the accelerator: stop"),
        ({"other_processes_on_device": 3}, "3 other processes use the accelerator: stop"),
    ],
)
def test_each_trouble_gives_one_sentence_that_says_what_to_do(change, said):
    (warning,) = watch.warnings_about(QUIET.model_copy(update=change))
    assert said in warning
    assert warning.endswith(".")


@pytest.mark.parametrize(
    "change",
    [
        {"other_work_fraction": 0.05},
        {"other_work_fraction": None, "load_before": 2.0},
        {"steal_fraction": 0.01},
        {"threads": None, "affinity": ()},
    ],
)
def test_at_the_limit_there_is_no_warning(change):
    assert list(watch.warnings_about(QUIET.model_copy(update=change))) == []


def test_more_threads_than_a_container_may_use_is_a_warning():
    (warning,) = watch.warnings_about(QUIET, quota=2.5)
    assert "4 threads share a quota of 2.5 cores" in warning
    assert "--threads 2 or fewer" in warning
    assert list(watch.warnings_about(QUIET, quota=4)) == []


# --- the command


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["timer.py", "--model", "resnet18"], "timer.py --model resnet18"),
        (["/opt/x/timer.py", "--i", "pascal"], "timer.py --i pascal"),
        (["/opt/x/layerbench/__main__.py", "timer"], "python -m layerbench timer"),
        (["timer.py", "--until", "1 %"], "timer.py --until '1 %'"),
        (["timer.py", "--out", "/elsewhere/far/stats"], "timer.py --out stats"),
        (["timer.py", "--out=/elsewhere/far/stats"], "timer.py --out=stats"),
        (["timer.py", "/elsewhere/net.py:build"], "timer.py net.py:build"),
        (["timer.py", "--out", "/"], "timer.py --out /"),
        ([], ""),
    ],
)
def test_the_command_holds_no_folder_of_the_machine(arguments, command):
    assert software.command_line(arguments) == command


def test_paths_below_the_present_folder_become_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = Path.cwd()
    command = software.command_line(
        ["timer.py", "--out", f"{here}/cpu/stats", f"--model={here}/nets/a b.py:build"]
    )
    assert shlex.split(command) == ["timer.py", "--out", "cpu/stats", "--model=nets/a b.py:build"]


# --- the software


def test_absent_packages_are_left_out():
    found = software.package_versions(["pydantic", "no-such-package-of-anyone"])
    assert list(found) == ["pydantic"]


def test_variables_that_change_speed_are_kept_without_paths():
    variables = {
        "OMP_NUM_THREADS": "4",
        "LD_PRELOAD": "/usr/lib/libjemalloc.so.2:/opt/libiomp5.so",
        "KMP_BLOCKTIME": "",
        "HOME": "/home/someone",
    }
    assert software.speed_variables(variables) == {
        "OMP_NUM_THREADS": "4",
        "LD_PRELOAD": "libjemalloc.so.2 libiomp5.so",
    }


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def checkout(tmp_path):
    """A committed checkout with a package and reports."""
    root = tmp_path / "checkout"
    for name in (
        "package/__init__.py",
        "package/code.py",
        "stats/amd-epyc-2c/layers/a.txt",
        "cpu/stats/amd-epyc-2c/a.json",
        "cpu/stats.sh",
        "memory_reports/a.txt",
        "model_structures/a.txt",
        "docs/a.md",
        "README.md",
    ):
        put(root, name, "old")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    return root


def git(root, *arguments):
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@needs_git
def test_the_commit_of_a_clean_checkout(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert software.code_version(checkout / "package") == (commit, False)


@needs_git
@pytest.mark.parametrize("name", ["package/code.py", "cpu/stats.sh"])
def test_changed_code_is_dirty(checkout, name):
    put(checkout, name, "new")
    assert software.code_version(checkout / "package")[1] is True


@needs_git
@pytest.mark.parametrize(
    "name",
    [
        "stats/amd-epyc-2c/layers/a.txt",
        "cpu/stats/amd-epyc-2c/a.json",
        "memory_reports/a.txt",
        "model_structures/a.txt",
        "README.md",
        "docs/a.md",
        "package/untracked.py",
    ],
)
def test_reports_documents_and_untracked_files_are_not_dirty(checkout, name):
    put(checkout, name, "new")
    assert software.code_version(checkout / "package")[1] is False


@needs_git
def test_an_installed_copy_in_someone_elses_repository_has_no_commit(checkout):
    put(checkout, "venv/site-packages/package/__init__.py", "")
    folder = checkout / "venv" / "site-packages" / "package"
    assert software.code_version(folder) == (None, None)


def test_a_folder_outside_any_repository_has_no_commit(tmp_path):
    put(tmp_path, "package/__init__.py", "")
    assert software.code_version(tmp_path / "package") == (None, None)


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert software.code_version() == (None, None)


@needs_git
def test_a_hooks_variables_do_not_lead_to_its_repository(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    commit, dirty = software.code_version(checkout / "package")
    assert commit is not None
    assert dirty is False


# --- the host

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) CPU @ 2.20GHz
flags\t\t: fpu vme {}avx2

processor\t: 1
model name\t: another
"""
ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd\nCPU part\t: 0xd0c\n"


def test_the_model_name_of_the_first_core(tmp_path):
    root = tree(tmp_path, proc__cpuinfo=X86.format(""))
    assert machine.cpu_model(root) == "Intel(R) Xeon(R) CPU @ 2.20GHz"


def test_arm_names_come_from_lscpu(tmp_path, monkeypatch):
    printed = "Architecture:   aarch64\nModel name:     Neoverse-N1\nThread(s) per core: 1"
    monkeypatch.setattr(machine, "run_and_read", lambda command, variables=None: printed)
    assert machine.cpu_model(tree(tmp_path, proc__cpuinfo=ARM)) == "Neoverse-N1"


def test_a_cpu_nobody_names_is_called_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "run_and_read", lambda command, variables=None: None)
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "")
    assert machine.cpu_model(tmp_path) == "unknown CPU"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [(X86.format("hypervisor "), True), (X86.format(""), False), (ARM, None)],
)
def test_the_hypervisor_flag(tmp_path, cpuinfo, expected):
    assert machine.hypervisor(tree(tmp_path, proc__cpuinfo=cpuinfo)) is expected


def test_the_governors_of_the_cores_in_use(tmp_path):
    for core, name in enumerate(["performance\n", "performance\n", "powersave\n"]):
        put(tmp_path, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor", name)
    assert machine.governor((0, 1), tmp_path) == "performance"
    assert machine.governor((1, 2), tmp_path) == "performance/powersave"
    assert machine.governor(None, tmp_path) == "performance/powersave"
    assert machine.governor((9,), tmp_path) is None


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("intel_pstate/no_turbo", "0\n", True),
        ("intel_pstate/no_turbo", "1\n", False),
        ("cpufreq/boost", "1\n", True),
        ("cpufreq/boost", "0\n", False),
        ("other", "1\n", None),
    ],
)
def test_boost(tmp_path, file, text, expected):
    put(tmp_path, f"sys/devices/system/cpu/{file}", text)
    assert machine.boost(tmp_path) is expected


@pytest.fixture
def big_machine(monkeypatch):
    memory = SimpleNamespace(total=64 * GIB, available=32 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def test_memory_without_a_control_group(tmp_path, big_machine):
    assert cgroups.host_memory(tmp_path) == (64 * GIB, 32 * GIB)


def test_memory_of_a_container_with_its_own_view(tmp_path, big_machine):
    put(tmp_path, "proc/self/cgroup", "0::/\n")
    put(tmp_path, "sys/fs/cgroup/memory.max", f"{4 * GIB}\n")
    put(tmp_path, "sys/fs/cgroup/memory.current", f"{3 * GIB}\n")
    put(tmp_path, "sys/fs/cgroup/memory.stat", f"anon 5\ninactive_file {GIB}\n")
    assert cgroups.host_memory(tmp_path) == (4 * GIB, 2 * GIB)


def test_the_tightest_of_nested_groups_counts(tmp_path, big_machine):
    put(tmp_path, "proc/self/cgroup", "0::/user.slice/job\n")
    for folder, limit, used in [("user.slice/job/", 8, 1), ("user.slice/", 6, 5)]:
        put(tmp_path, f"sys/fs/cgroup/{folder}memory.max", str(limit * GIB))
        put(tmp_path, f"sys/fs/cgroup/{folder}memory.current", str(used * GIB))
    assert cgroups.host_memory(tmp_path) == (6 * GIB, GIB)


def test_an_unlimited_group_leaves_the_machines_memory(tmp_path, big_machine):
    put(tmp_path, "proc/self/cgroup", "0::/job\n")
    put(tmp_path, "sys/fs/cgroup/job/memory.max", "max\n")
    put(tmp_path, "sys/fs/cgroup/job/memory.current", "5\n")
    assert cgroups.host_memory(tmp_path) == (64 * GIB, 32 * GIB)


def test_memory_of_a_version_1_group_named_as_the_host_sees_it(tmp_path, big_machine):
    put(tmp_path, "proc/self/cgroup", "4:memory:/docker/0123\n2:cpu,cpuacct:/docker/0123\n")
    put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", str(2 * GIB))
    put(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", str(3 * GIB))
    assert cgroups.host_memory(tmp_path) == (2 * GIB, 0)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"cpu.max": "250000 100000"}, 2.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/a", {"a/cpu.max": "400000 100000", "cpu.max": "150000 100000"}, 1.5),
        ("2:cpu,cpuacct:/d", {"cpu/cpu.cfs_quota_us": "50", "cpu/cpu.cfs_period_us": "100"}, 0.5),
        ("2:cpu,cpuacct:/d", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "9"}, None),
        ("", {}, None),
    ],
)
def test_the_quota_of_cores(tmp_path, groups, files, expected):
    put(tmp_path, "proc/self/cgroup", groups)
    for name, text in files.items():
        put(tmp_path, f"sys/fs/cgroup/{name}", text)
    assert cgroups.core_quota(tmp_path) == expected


def test_a_command_that_fails_or_is_missing_prints_nothing():
    assert machine.run_and_read(["no-such-command-anywhere"]) is None
    assert machine.run_and_read(["git", "no-such-verb"]) is None
