"""What brings a package."""

from __future__ import annotations

import pytest

from layerbench.cli import _endings
from layerbench.environment import extras

REQUIREMENTS = [
    "torch>=2.4",
    "pytorch-memlab>=0.3",
    'fastapi>=0.115; extra == "serve"',
    'markdown-it-py>=3; extra == "serve"',
    'pydantic-settings>=2.4; extra == "serve"',
    'psycopg[binary]>=3.2; extra == "postgresql"',
    'nvidia-cudnn-frontend<1.28,>=1.14; sys_platform != "darwin" and extra == "cudnn"',
    'pytest>=8; extra == "test"',
]


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("fastapi", "'layerbench[serve]'"),
        ("fastapi.responses", "'layerbench[serve]'"),
        ("markdown_it", "'layerbench[serve]'"),
        ("pydantic_settings", "'layerbench[serve]'"),
        ("psycopg", "'layerbench[postgresql]'"),
        ("torch", "torch"),
        ("pytorch_memlab", "pytorch-memlab"),
        ("pytest", None),
        ("fast", None),
        ("nonsense", None),
    ],
)
def test_what_to_install_is_known_by_the_module_that_lacks(module, package) -> None:
    assert extras.what_brings(module, REQUIREMENTS) == package


def test_a_verb_says_what_to_install(monkeypatch, capsys) -> None:
    monkeypatch.setattr(extras, "_installed", lambda: REQUIREMENTS)
    error = ModuleNotFoundError("No module named 'fastapi'", name="fastapi")
    assert _endings.end(error) == 2
    told = capsys.readouterr().err
    assert told == "error: fastapi is not installed: pip install 'layerbench[serve]'\n"


def test_a_users_model_that_lacks_a_package_is_told_otherwise(
    monkeypatch, capsys, tmp_path
) -> None:
    monkeypatch.setattr(extras, "_installed", lambda: ['raylib_of_a_user; extra == "cluster"'])
    file = tmp_path / "net.py"
    file.write_text("import raylib_of_a_user\n")
    with pytest.raises(ModuleNotFoundError) as raised:
        exec(compile(file.read_text(), str(file), "exec"), {})
    assert _endings.end(raised.value) == 2
    told = capsys.readouterr().err
    assert "layerbench[" not in told
    assert "net.py:1" in told
