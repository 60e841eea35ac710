"""Servers for the benchmarks of serving: models of one size, and the processes that serve them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import torch
from torch import nn

from lightning_xt import Decoder, LanguageModel

VOCAB = 256
PRINTABLE = range(32, 127)
HEADS = 8
NAME = "bench"
"""Name of our model."""
START = 600.0
"""Seconds that a server may take to start, compilation included."""
THEIRS = "transformers serve"
PACKAGES = ("transformers", "openai", "accelerate")
"""Packages that `transformers serve` needs besides those of the extra `serve`."""


def make_run(folder: Path, dim: int, depth: int) -> tuple[Path, Decoder]:
    """Save the checkpoint of an untrained language model of bytes; return its file and the decoder.

    It has the parts of a Llama: rotary positions, RMSNorm and SwiGLU.
    """
    from lightning.pytorch import Trainer

    model = LanguageModel.from_config(
        {
            "decoder": {
                "dim": dim,
                "depth": depth,
                "attention": {"heads": min(HEADS, dim // 2), "position": "Rotary"},
                "feedforward": {"class_path": "SwiGLU", "init_args": {"hidden_dim": choose_width(dim)}},
            }
        }
    )
    fill_head(model.decoder.head.to_logits)
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(model)
    file = folder / "checkpoints" / "last.ckpt"
    trainer.save_checkpoint(file, weights_only=True)
    return file, model.decoder.eval()


def choose_width(dim: int) -> int:
    """Return the width of feedforwards: 8/3 of the stream's, a multiple of 8."""
    return 8 * -(-dim // 3)


def fill_head(head: nn.Linear) -> None:
    """Fill a head so that greedy decoding never takes a byte that is not a character by itself."""
    # An untrained head scores all tokens alike.
    nn.init.normal_(head.weight, std=0.05)
    with torch.no_grad():
        for token in set(range(VOCAB)) - set(PRINTABLE):
            head.weight[token] = 0.0


def make_llama(folder: Path, dim: int, depth: int) -> Path:
    """Save an untrained Llama of bytes with a tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    heads = min(HEADS, dim // 2)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=dim, intermediate_size=choose_width(dim), num_hidden_layers=depth,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=4096,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    fill_head(model.lm_head)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(vocab=byte_characters(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False).save_pretrained(folder)
    return folder


def byte_characters() -> dict[str, int]:
    """Return the characters by which byte-level tokenizers write bytes, with the bytes as their ids."""
    direct = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in direct]
    return {chr(byte): byte for byte in direct} | {chr(256 + n): byte for n, byte in enumerate(others)}


def lacks_transformers() -> bool:
    """Return whether `transformers serve` cannot run here."""
    return any(find_spec(name) is None for name in PACKAGES)


def end_servers_on_signal() -> None:
    """Have SIGTERM end this process as an error does, so that its servers end too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def find_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class ServerProcess:
    """A server as a process, from its start to its end.

    Args:
        name: in messages.
        command: command line without the port.
        model: name by which requests choose the model; ours may serve more than it.
        log: file that gets all that the server prints.
        variables: further variables of its environment.
    """

    def __init__(
        self, name: str, command: list[str], model: str, log: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.model, self.log = name, model, log
        self.port = find_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **(variables or {})}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)], stdout=out, stderr=subprocess.STDOUT, env=environment
            )

    @classmethod
    def ours(cls, runs: Path | list[str], options: list[str], log: Path, **variables: str) -> Self:
        """Start `lightning-xt serve`."""
        named = [f"{NAME}={runs}"] if isinstance(runs, Path) else runs
        command = [sys.executable, "-m", "lightning_xt", "serve", *named, *options]
        return cls("lightning-xt serve", command, NAME, log, variables)

    @classmethod
    def theirs(cls, folder: Path, options: list[str], log: Path) -> Self:
        """Start `transformers serve`."""
        script = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
        command = [sys.executable, "-c", script, "serve", str(folder), "--device", "cpu", *options]
        return cls(THEIRS, command, str(folder), log)

    def __enter__(self) -> Self:
        """Wait until the server answers."""
        end = time.monotonic() + START
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended at its start:\n{self.read_log()}")
            try:
                if httpx.get(f"{self.url}/health", timeout=5.0).status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.2)
        self.process.kill()
        raise SystemExit(f"{self.name} has not started in {START:.0f} seconds:\n{self.read_log()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the server."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def read_log(self) -> str:
        """Return the end of what the server printed."""
        return self.log.read_text(errors="replace")[-4000:]

    def measure_jobs(self) -> dict[str, float]:
        """Return the jobs that run and wait, by the server's metrics."""
        found = {"running": 0.0, "waiting": 0.0}
        for line in httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines():
            for state in found:
                if line.startswith(f"lightning_xt_{state}_jobs{{"):
                    found[state] += float(line.rpartition(" ")[2])
        return found


def describe_request(model: str, prompt: str, tokens: int, **options: Any) -> bytes:
    """Return the body of a streamed greedy completion, which both servers take."""
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    return json.dumps(body | options).encode()
