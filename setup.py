"""What `pyproject.toml` cannot say of a build: an earlier one's files are no part of it.

setuptools leaves them in `build/`. A module that is gone since then would be installed again, and
the command would offer its verb.
"""

import shutil
from pathlib import Path

from setuptools import setup

shutil.rmtree(Path(__file__).resolve().parent / "build" / "lib", ignore_errors=True)
setup()
