"""Stand-ins for the packages of experiment trackers, which note what they are given."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock


class Medium:
    """Picture, text, table or histogram of a tracker."""

    def __init__(self, *values, **options):
        self.values, self.options = values, options


def make_module(name, **contents):
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(contents)
    return module


def install_wandb(monkeypatch):
    """Return the run that `wandb.init` gives, and `wandb.init`."""
    run = MagicMock(id="w1")
    media = dict.fromkeys(("Image", "Html", "Table", "Histogram"), Medium)
    module = make_module("wandb", init=MagicMock(return_value=run), Settings=SimpleNamespace, **media)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return run, module.init


def install_mlflow(monkeypatch):
    """Return the client of a server without experiments."""
    client = MagicMock()
    client.get_experiment_by_name.return_value = None
    client.create_experiment.return_value = "7"
    client.create_run.return_value.info.run_id = "m1"
    entities = make_module("mlflow.entities", Param=lambda key, value: (key, value), Metric=lambda *values: values)
    module = make_module(
        "mlflow",
        MlflowClient=MagicMock(return_value=client),
        get_tracking_uri=lambda: "sqlite:///default.db",
        MlflowException=type("MlflowException", (Exception,), {}),
        entities=entities,
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return client, module


def install_trackio(monkeypatch):
    """Return the run that `trackio.init` gives, and `trackio.init`."""
    run = MagicMock()

    def init(**options):
        run.name = options["name"]
        return run

    media = dict.fromkeys(("Image", "Html", "Table", "Histogram"), Medium)
    module = make_module("trackio", init=MagicMock(side_effect=init), **media)
    monkeypatch.setitem(sys.modules, "trackio", module)
    return run, module.init
