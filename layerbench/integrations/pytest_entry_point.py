"""What the entry point ``pytest11`` names.

pytest refuses a module that it is given twice, once by the entry point and once by ``-p`` or
``pytest_plugins``. A plugin that another one asks for by the module's name it takes once.
"""

pytest_plugins = ("layerbench.integrations.pytest_plugin",)
