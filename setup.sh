# shellcheck shell=sh
# Finds or makes the Python that the scripts run; sourced from the repository root: `. ./setup.sh`.
#
# Leaves its absolute path in PYTHON. In this order:
#   1. LAYERBENCH_PYTHON, if set: taken as it is, nothing is checked or installed;
#   2. the active virtual or conda environment, if it satisfies requirements.txt;
#   3. .venv in the root: made and filled on the first run, and filled again when
#      requirements.txt changed or an installation was interrupted.
# What it has to say goes to stderr. It makes or changes nothing but .venv.

setup_requirements=requirements.txt
setup_venv=$PWD/.venv
setup_stamp=$setup_venv/layerbench-requirements # cksum of the requirements.txt that .venv satisfies
setup_lock=$setup_venv/layerbench-installing    # a link whose target is the installing shell's number

setup_say() { printf 'setup: %s\n' "$*" >&2; }

setup_fail() {
    setup_say "$*"
    exit 2
}

setup_checksum() { cksum <"$setup_requirements"; }

# setup_satisfied PYTHON: does it have every version that requirements.txt pins?
# Reads lines of the form `name==version` with an optional `; python_version OP "X.Y"` or
# `; sys_platform OP "NAME"`; the local part of an installed version counts as no difference:
# torch 2.14.1+cpu is 2.14.1.
# Prints the first requirement that is missing.
setup_satisfied() {
    "$1" - "$setup_requirements" <<'PYTHON'
import operator, re, sys
from importlib.metadata import PackageNotFoundError, version

LINE = re.compile(r"""([\w.-]+)(?:\[[^]]*\])?\s*==\s*([^\s;]+)\s*(?:;\s*(python_version|sys_platform)\s*(<=|>=|==|!=|<|>)\s*["']([\w.]+)["'])?""")
COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}

def missing(what):
    print(what)
    sys.exit(1)


if sys.version_info < (3, 10):
    missing("Python 3.10 or later")
for line in open(sys.argv[1], encoding="utf-8"):
    line = line.partition("#")[0].strip()
    if not line:
        continue
    match = LINE.fullmatch(line)
    if match is None:
        missing(line)  # not understood here: pip has to judge
    name, wanted, what, compare, bound = match.groups()
    if what == "sys_platform":
        here = sys.platform
    elif what:
        here, bound = sys.version_info[:2], tuple(map(int, bound.split(".")))
    if what and not COMPARE[compare](here, bound):
        continue
    try:
        installed = version(name)
    except PackageNotFoundError:
        missing(f"{name}=={wanted}")
    if wanted not in (installed, installed.partition("+")[0]):
        missing(f"{name}=={wanted}")
PYTHON
}

# setup_use_active: PYTHON becomes the active environment's, if there is one and it is good enough.
setup_use_active() {
    for setup_prefix in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
        # .venv itself is known by its stamp, which takes no time to read.
        if [ -z "$setup_prefix" ] || [ "$setup_prefix" = "$setup_venv" ]; then continue; fi
        for setup_name in python3 python; do
            [ -x "$setup_prefix/bin/$setup_name" ] || continue
            if setup_missing=$(setup_satisfied "$setup_prefix/bin/$setup_name"); then
                PYTHON=$setup_prefix/bin/$setup_name
                return 0
            fi
            setup_say "using .venv: the active environment $setup_prefix lacks" \
                "${setup_missing:-a working python}"
            break
        done
    done
    return 1
}

# setup_venv_is_good: does .venv satisfy the present requirements.txt?
setup_venv_is_good() {
    [ -x "$setup_venv/bin/python" ] || return 1
    if [ ! -f "$setup_stamp" ]; then
        # Made by hand, perhaps: look instead of installing again.
        setup_satisfied "$setup_venv/bin/python" >/dev/null || return 1
        setup_checksum >"$setup_stamp"
    fi
    [ "$(cat "$setup_stamp")" = "$(setup_checksum)" ]
}

# setup_find_base: setup_base becomes a Python that can make a virtual environment.
setup_find_base() {
    setup_old=
    for setup_name in python3 python python3.14 python3.13 python3.12 python3.11 python3.10; do
        command -v "$setup_name" >/dev/null 2>&1 || continue
        if ! "$setup_name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            setup_old=${setup_old:-$("$setup_name" --version 2>&1)}
            continue
        fi
        # An active .venv's own python3 would be gone once .venv is made again.
        setup_base=$("$setup_name" -c 'import sys; print(sys._base_executable or sys.executable)')
        "$setup_base" -c 'import venv, ensurepip' 2>/dev/null ||
            setup_fail "$setup_name cannot make a virtual environment: install its venv module" \
                "(Debian and Ubuntu: apt-get install python3-venv) and run this again"
        return 0
    done
    setup_fail "Python 3.10 or later is needed, and there is ${setup_old:-no python3} on PATH"
}

# setup_take_lock: one installation at a time; sets setup_interrupted if the last one did not end.
setup_take_lock() {
    setup_interrupted=
    setup_waited=
    mkdir -p "$setup_venv"
    # A symbolic link is made in one step and carries its owner's number.
    until ln -s "$$" "$setup_lock" 2>/dev/null; do
        setup_owner=$(readlink "$setup_lock") || continue
        if [ "$setup_owner" = "$$" ] || ! kill -0 "$setup_owner" 2>/dev/null; then
            setup_interrupted=yes
            rm -f "$setup_lock"
            continue
        fi
        if [ -z "$setup_waited" ]; then
            setup_say "process $setup_owner is installing into .venv; waiting" \
                "(if that is not so, remove .venv/layerbench-installing)"
            setup_waited=yes
        fi
        sleep 1
    done
}

# setup_unpack: install what requirements.txt comes to, by two processes beside each other: pip
# unpacks one file after the other, and there are gigabytes of them. What is pinned is unpacked while
# the other process works out what that needs. Does nothing where pip or xargs are too old for it: the
# installation that follows does all then.
setup_unpack() {
    setup_resolved=.venv/layerbench-resolved.json
    # By xargs, whose processes an interrupt reaches: not those that a shell leaves in the background.
    printf '%s\n' --no-deps "--dry-run --ignore-installed --report $setup_resolved" |
        xargs -P 2 -L 1 "$setup_venv/bin/python" -m pip install --quiet \
            --disable-pip-version-check -r "$setup_requirements" >/dev/null 2>&1 || return 0
    "$setup_venv/bin/python" - "$setup_resolved" <<'PYTHON' >"$setup_resolved.txt"
import json, sys

for found in json.load(open(sys.argv[1], encoding="utf-8"))["install"]:
    if not found["requested"]:
        print("{name}=={version}".format(**found["metadata"]))
PYTHON
    [ ! -s "$setup_resolved.txt" ] ||
        xargs -P 2 -n 24 "$setup_venv/bin/python" -m pip install --quiet \
            --disable-pip-version-check --no-deps <"$setup_resolved.txt" >&2
}

# setup_install: make .venv and fill it, unless another run just did. A failure leaves the lock, so that the next run starts afresh.
setup_install() {
    setup_take_lock
    if [ -z "$setup_interrupted" ] && setup_venv_is_good; then
        rm -f "$setup_lock"
        return 0
    fi
    rm -f "$setup_stamp"
    if [ -n "$setup_interrupted" ]; then
        setup_say "the last installation into .venv did not end; starting it again"
        # A half-installed package looks installed to pip.
        find "$setup_venv" -mindepth 1 -maxdepth 1 ! -path "$setup_lock" -exec rm -rf {} +
    fi
    if [ ! -x "$setup_venv/bin/python" ]; then
        "$setup_base" -m venv "$setup_venv" || setup_fail "$setup_base could not make .venv"
    fi
    setup_say "installing requirements.txt into .venv, once: some minutes, and up to several GB of disk"
    # The pip that a Python brings with it may resolve half as fast as a newer one.
    "$setup_venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip >&2 ||
        setup_say "pip could not be upgraded; going on with the one that is there"
    {
        setup_unpack && "$setup_venv/bin/python" -m pip install --quiet \
            --disable-pip-version-check -r "$setup_requirements" >&2
    } ||
        setup_fail "the installation failed (see above); run this again to repeat it"
    if [ -f pyproject.toml ]; then
        # So that `layerbench` is a command there, and benchmarks run as files.
        "$setup_venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --no-deps --no-build-isolation --editable . >&2 ||
            setup_fail "installing layerbench itself failed (see above); run this again to repeat it"
    fi
    setup_checksum >"$setup_stamp"
    rm -f "$setup_lock"
    setup_say "done"
}

if [ -n "${LAYERBENCH_PYTHON:-}" ]; then
    PYTHON=$LAYERBENCH_PYTHON
elif ! setup_use_active; then
    # shellcheck disable=SC2034 # the script that sources this file uses it
    PYTHON=$setup_venv/bin/python
    if [ -L "$setup_lock" ] || ! setup_venv_is_good; then
        setup_find_base
        setup_install
    fi
fi
