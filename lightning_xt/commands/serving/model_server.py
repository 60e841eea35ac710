"""Server of the models of runs: loads them, warms them up, and answers requests."""

import socket
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.commands.models.inference import Inference
from lightning_xt.commands.models.loading import find_module_class, load
from lightning_xt.commands.serving.serve_options import ServeOptions
from lightning_xt.commands.serving.warm_up import warm_up
from lightning_xt.inference.serving.serving_engine import Engine
from lightning_xt.inference.serving.work_limits import choose_tokens
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.translation import Translator
from lightning_xt.system.messages import UserError
from lightning_xt.system.thread_waits import release_threads

if TYPE_CHECKING:
    from lightning_xt.data.chat.chat_templates import ChatTemplate


def serve(options: ServeOptions) -> int:
    """Serve until a signal ends it; return the exit code.

    Raises:
        UserError: a run cannot be served, or the address cannot be taken.
    """
    from lightning_xt.data.chat.chat_templates import find_template
    from lightning_xt.server.server_process import bind_socket

    # Mistakes are found before anything takes time.
    template = find_template(options.chat_template)
    check_models(options)
    listener = bind_socket(options.host, options.port)
    with listener:
        generators = {name: load_generator(name, options) for name in options.checkpoints}
        # From here on the engine's thread computes.
        release_threads()
        engine = Engine(generators, **asdict(options.engine))
        engine.start()
        try:
            for name, generator in generators.items():
                warm_up(engine, name, generator, options.engine.rows)
            _answer(options, engine, generators, listener, template)
        finally:
            engine.close()
    return 0


def check_models(options: ServeOptions) -> None:
    """Raise a UserError for a run whose model generates no text."""
    for name, path in options.checkpoints.items():
        checkpoint = Checkpoint(path)
        found = checkpoint.module_class and find_module_class(checkpoint.module_class).no_generation
        checkpoint.release()
        if found:
            raise UserError(f"{name} cannot be served: {found}")


def load_generator(name: str, options: ServeOptions) -> TextCompleter | Translator:
    """Load a model with its options of inference, and return the generator of its texts."""
    print(f"loading {name}", file=sys.stderr)
    module = load(str(options.checkpoints[name]))
    # As trained, in the order in which a CPU multiplies several rows fastest.
    weights = options.weights or (None if torch.cuda.is_available() else "float32")
    inference = Inference(weights=weights, group_size=options.group_size, compile=options.compile)  # type: ignore[arg-type]  # checked
    # The network as trained is dropped.
    inference.apply(module, measured=False)
    generator = module.text_generator
    if not isinstance(generator, TextCompleter | Translator):
        raise UserError(f"{name} cannot be served: it neither completes nor translates texts; give another run")
    return generator


def _answer(
    options: ServeOptions,
    engine: Engine,
    generators: dict[str, TextCompleter | Translator],
    listener: socket.socket,
    template: "ChatTemplate",
) -> None:
    """Answer requests until a signal ends the server."""
    from lightning_xt.server.application import build_app
    from lightning_xt.server.served_model import ModelTable, ServedModel
    from lightning_xt.server.server_context import ServerContext
    from lightning_xt.server.server_metrics import ServerMetrics
    from lightning_xt.server.server_process import listen, run_server
    from lightning_xt.server.server_settings import LOOPBACK, ServerSettings

    tokens = options.engine.tokens
    models = [
        ServedModel(
            name,
            generator,
            choose_tokens(generator, tokens),
            template,
            alignment=engine.has_alignment(name),
            compiled=options.compile,
        )
        for name, generator in generators.items()
    ]
    hosts = tuple(dict.fromkeys((*LOOPBACK, options.host))) if options.local else ()
    rows, max_waiting = options.engine.rows, options.engine.max_waiting
    settings = ServerSettings(
        hosts=hosts, api_key=options.api_key, rows=rows, max_waiting=max_waiting, **asdict(options.limits)
    )
    context = ServerContext(engine, ModelTable(models), settings, ServerMetrics(engine.measure, engine.measure()))
    app = build_app(context)
    listen(listener, options.host, options.port)
    port = listener.getsockname()[1]
    host = f"[{options.host}]" if ":" in options.host else options.host

    def announce() -> None:
        names = ", ".join(generators)
        print(f"serving {names} at http://{host}:{port} (stop it with Ctrl-C)", flush=True)

    run_server(app, context, listener, announce)
