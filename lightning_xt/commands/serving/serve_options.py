"""Options of serve: their checks, and the names of runs. Imports nothing that takes time."""

import importlib.util
import ipaddress
import os
import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_xt.checkpoints.runs import find_checkpoint
from lightning_xt.system.messages import UserError

EXTRA = ("fastapi", "uvicorn", "prometheus_client")
"""Packages of the extra `serve`."""
KEY_VARIABLE = "LIGHTNING_XT_API_KEY"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names of models, which stand in addresses."""
LEAST = {"rows": 1, "tokens": 2, "prefill_tokens": 1, "max_waiting": 0, "max_tokens": 1, "max_body_bytes": 1024}
"""Smallest values of options."""
MOST_SECONDS = 86400


@dataclass(frozen=True)
class EngineOptions:
    """Options of the engine.

    Args:
        rows: most sequences of a model decoded at once.
        tokens: most tokens of a sequence. None = by the model.
        prefill_tokens: most tokens of prompts between two steps.
        max_waiting: most sequences of a model that wait for a row.
    """

    rows: int
    tokens: int | None
    prefill_tokens: int
    max_waiting: int


@dataclass(frozen=True)
class RequestLimits:
    """Limits of requests.

    Args:
        max_tokens: most tokens of a completion.
        max_body_bytes: most bytes of a body.
        timeout: most seconds from a request to its last token.
        drain_timeout: most seconds in which answers are finished after a signal to end.
    """

    max_tokens: int
    max_body_bytes: int
    timeout: float
    drain_timeout: float


@dataclass(frozen=True)
class ServeOptions:
    """Checked options of serve.

    Args:
        checkpoints: checkpoints by the names of their models.
        host: address to serve at.
        port: port to serve at. 0 = a free one.
        local: True if only this machine reaches the address.
        api_key: key that clients must send. None = none.
        engine: options of the engine.
        limits: limits of requests.
        weights: form of the weights. None = as trained, on a CPU in the order in which it multiplies rows fastest.
        group_size: numbers of a matrix row that share a scale, or row. None = by the form of the weights.
        compile: whether to compile decode steps.
        chat_template: name or file of the template of conversations.
    """

    checkpoints: dict[str, Path]
    host: str
    port: int
    local: bool
    api_key: str | None
    engine: EngineOptions
    limits: RequestLimits
    weights: str | None
    group_size: int | str | None
    compile: bool
    chat_template: str


def require_extra() -> None:
    """Raise a UserError if a package of the extra is missing."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"serve needs {' and '.join(missing)}, not installed here; run: pip install 'lightning-xt[serve]'"
        )


def check_options(options: Namespace) -> ServeOptions:
    """Return the checked options; UserError for one that is invalid, before anything is loaded."""
    for name, least in LEAST.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"serve: --{name} is {value}, but it must be at least {least}")
    if not 0 <= options.port <= 65535:
        raise UserError(f"serve: --port is {options.port}, but ports go from 0 to 65535")
    for name in ("timeout", "drain_timeout"):
        value = getattr(options, name)
        if not 0 < value <= MOST_SECONDS:
            raise UserError(f"serve: --{name} is {value:g}, but it must be above 0 and at most {MOST_SECONDS}")
    local = is_loopback(options.host)
    return ServeOptions(
        checkpoints=name_runs(options.runs),
        host=options.host,
        port=options.port,
        local=local,
        api_key=choose_key(options, local=local),
        engine=EngineOptions(options.rows, options.tokens, options.prefill_tokens, options.max_waiting),
        limits=RequestLimits(options.max_tokens, options.max_body_bytes, options.timeout, options.drain_timeout),
        weights=options.weights,
        group_size=read_group_size(options),
        compile=options.compile,
        chat_template=options.chat_template,
    )


def read_group_size(options: Namespace) -> int | str | None:
    """Return the numbers of a group of weights; UserError if it is invalid, or the weights have none."""
    given = options.group_size
    if given is None:
        return None
    if options.weights not in ("int8", "int4"):
        raise UserError(f"serve: --group_size {given} is for --weights int8 and int4; omit it, or give one of them")
    if given != "row" and (not given.isdecimal() or int(given) < 1):
        raise UserError(f"serve: --group_size is {given}, but it must be row or a number of at least 1")
    return "row" if given == "row" else int(given)


def is_loopback(host: str) -> bool:
    """Return True for an address that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_key(options: Namespace, *, local: bool) -> str | None:
    """Return the key of clients; UserError if an address that others reach has neither a key nor `--no_api_key`."""
    key = options.api_key if options.api_key is not None else os.environ.get(KEY_VARIABLE)
    if options.no_api_key:
        if options.api_key is not None:
            raise UserError("serve: --api_key and --no_api_key exclude each other; omit one of them")
        return None
    if key is not None and (not key.strip() or key != key.strip() or not key.isascii() or not key.isprintable()):
        raise UserError("serve: the API key is empty, or has spaces around it or characters beyond ASCII; change it")
    if key is None and not local:
        raise UserError(
            f"serve: --host {options.host} may be reached by others; set a key in the environment variable "
            f"{KEY_VARIABLE} or by --api_key, or let everyone in with --no_api_key"
        )
    return key


def name_runs(runs: Sequence[str]) -> dict[str, Path]:
    """Return the checkpoints by the names of their models; UserError for a name or a run that is invalid."""
    found: dict[str, Path] = {}
    for given in runs:
        name, run = split_name(given)
        try:
            checkpoint = find_checkpoint(run)
        except FileNotFoundError as error:
            raise UserError(str(error)) from error
        name = derive_name(checkpoint) if name is None else name
        if not NAME.fullmatch(name):
            raise UserError(
                f"serve: {name!r} cannot name a model, because a name has letters, digits, '.', '_' and '-' only, "
                f"and at most 100 of them; name it yourself, as in my-model={run}"
            )
        if name in found:
            raise UserError(
                f"serve: two runs have the name {name}; give each its own, as in {name}-a={runs[0]} {name}-b={run}"
            )
        found[name] = checkpoint
    return found


def split_name(given: str) -> tuple[str | None, str]:
    """Split NAME=RUN; a path that has an equals sign itself is a run."""
    name, equals, run = given.partition("=")
    if not equals or "/" in name or os.path.exists(given):
        return None, given
    return name, run


def derive_name(checkpoint: Path) -> str:
    """Return the name of a checkpoint's run, or that of the file if it is not in a run."""
    path = checkpoint.resolve()
    if path.parent.name != "checkpoints":
        return path.stem
    run = path.parent.parent
    return run.parent.name if run.name.isdecimal() else run.name
