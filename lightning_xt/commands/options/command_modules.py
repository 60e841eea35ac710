"""The commands and their modules, which import nothing that takes time before a command runs."""

import importlib
import pkgutil
from types import ModuleType

from lightning_xt import commands


def find_commands() -> list[str]:
    """Find the commands: the modules of `commands`, with dashes in their names."""
    return [module.name.replace("_", "-") for module in pkgutil.iter_modules(commands.__path__) if not module.ispkg]


def import_command(command: str) -> ModuleType:
    """Import the module of a command."""
    return importlib.import_module(f"{commands.__name__}.{command.replace('-', '_')}")
