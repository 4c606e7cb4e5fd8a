"""Whose code raised an error."""

from __future__ import annotations

import importlib.util

import pytest

from layerbench.environment.origins import origin


@pytest.mark.parametrize(
    ("folder", "users"), [("project", True), ("site-packages", False), ("dist-packages", False)]
)
def test_a_library_of_another_environment_is_not_the_users_code(tmp_path, folder, users) -> None:
    file = tmp_path / folder / "ends.py"
    file.parent.mkdir()
    file.write_text("def end():\n    raise SystemExit(0)\n")
    spec = importlib.util.spec_from_file_location("ends", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit) as ended:
        module.end()
    # The frame of this test is the user's, too.
    ended.value.__traceback__ = ended.value.__traceback__.tb_next
    assert (origin(ended.value) is not None) is users
