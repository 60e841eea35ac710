"""Values of configs and flags that look like files or addresses: row S13 of the list of reported cases."""

from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from lightning_xt.cli import main
from lightning_xt.system.imports import is_sub_config

OPTIMIZER = "class_path: AdamW\ninit_args: {lr: 0.125}\n"


def read_lr(run: str) -> float:
    config = yaml.safe_load(Path("runs", run, "0", "config.yaml").read_text())
    return float(config["model"]["init_args"]["optimizer"]["init_args"]["lr"])


def test_cases_s13_nothing_is_fetched(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(OPTIMIZER.encode())

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/optimizer.yaml"
        options = ("--model.optimizer", "--trainer.callbacks+", "--data", "--model", "--trainer")
        flags = [f"{option}={address}" for option in options]
        flags += [f"--model.optimizer=simplecache::{address}", f"--trainer.callbacks=[{address}]"]
        for flag in flags:
            assert main(["fit", "-c", "tiny.yaml", flag, "--print_config"]) == 2, flag
            assert "Traceback" not in capsys.readouterr().err
        assert main(["fit", "-c", address]) == 2
        assert not asked
    finally:
        server.shutdown()
        server.server_close()


def test_cases_s13_a_file_named_as_a_class_is_not_read(fresh: Path) -> None:
    for name in ("AdamW", "tiny", "torch.optim.AdamW"):
        Path(name).write_text(OPTIMIZER)
    for number, name in enumerate(("AdamW", "torch.optim.AdamW")):
        flags = [f"--model.optimizer={name}", "--model.optimizer.lr=0.5", "--name", f"run{number}"]
        assert main(["fit", "-c", "tiny.yaml", *flags]) == 0
        assert read_lr(f"run{number}") == 0.5
    assert main(["fit", "-c", "tiny.yaml", "--name", "tiny"]) == 0
    assert Path("runs/tiny").is_dir()


def test_cases_s13_files_of_options_have_their_ending(fresh: Path) -> None:
    Path("optimizer.yaml").write_text(OPTIMIZER)
    assert main(["fit", "-c", "tiny.yaml", "--model.optimizer=optimizer.yaml", "--name", "mine"]) == 0
    assert read_lr("mine") == 0.125


@pytest.mark.parametrize("value", ["AdamW", "torch.optim.AdamW", "optimizer.txt", "yaml", 3, None])
def test_cases_s13_other_values_are_not_files(value: object) -> None:
    assert not is_sub_config(value)
