"""The commands and their modules, which import nothing that takes time before a command runs."""

import importlib
import pkgutil
from keyword import iskeyword
from types import ModuleType

from lightning_xt import commands


def find_commands() -> list[str]:
    """Find the commands: the modules of `commands`, with dashes in their names."""
    modules = [module.name for module in pkgutil.iter_modules(commands.__path__) if not module.ispkg]
    # A module whose name Python reserves ends in an underscore.
    return [name.rstrip("_").replace("_", "-") for name in modules]


def import_command(command: str) -> ModuleType:
    """Import the module of a command."""
    name = command.replace("-", "_")
    return importlib.import_module(f"{commands.__name__}.{name}_" if iskeyword(name) else f"{commands.__name__}.{name}")
