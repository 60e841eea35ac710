"""Callback that sends a signal to its own run at a planned moment."""

import io
import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import torch
from lightning.pytorch import Callback

PLAN = "LIGHTNING_XT_CHAOS"
"""Environment variable with a plan as JSON; no signal is sent without it."""


class Moments(Callback):
    """Callback that sends a signal once, at the plan's moment, and lists the files that were saved.

    A plan has

    - `moment`: setup, step, validation, sampling, saving (while `file` is written), renaming (when it is written, but
      not yet in its place) or saved (when it is in its place)
    - `step`: optimizer steps after which the moment counts
    - `file`: name of the checkpoint that is saved
    - `signal`: its name
    - `target`: the rank it is sent to, or "all" processes of the run, loader workers included
    - `waits`: True if the moment lasts until the signal is sent
    - `seed`: draws the part of the file that is written before, and how long after the moment's beginning, at most
      `delay` seconds, the signal is sent
    """

    def __init__(self):
        plan = json.loads(os.environ.get(PLAN, "{}"))
        self.plan, self.sent = plan, not plan
        self.random = random.Random(plan.get("seed"))
        self.trainer = None

    def setup(self, trainer, pl_module, stage):
        if self.trainer is not None:
            return
        self.trainer = trainer
        self._watch_files()
        draw_samples = pl_module.draw_samples

        def watch(*args):
            self._at("sampling")
            return draw_samples(*args)

        pl_module.draw_samples = watch
        if self._is_due("setup"):
            self.sent = True
            # Not in a thread: on a fast machine the signal would find the run in its first step, which is then saved.
            self._send(self.random.uniform(0, self.plan.get("delay", 0)))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._at("step")

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self._at("validation")

    def _is_due(self, moment, file=None):
        if self.sent or self.plan["moment"] != moment or self.plan.get("file") != file:
            return False
        # Only a process that gets the signal sends it.
        here = self.plan["target"] in (self.trainer.global_rank, "all" if self.trainer.is_global_zero else None)
        return here and self.trainer.global_step >= self.plan.get("step", 0)

    def _at(self, moment, file=None):
        if self._is_due(moment, file):
            self.sent = True
            sender = threading.Thread(target=self._send, args=(self.random.uniform(0, self.plan.get("delay", 0)),))
            sender.start()
            if self.plan.get("waits"):
                sender.join()

    def _send(self, delay=0.0):
        time.sleep(delay)
        self._record()
        number = signal.Signals[self.plan["signal"]]
        to = -os.getpgrp() if self.plan["target"] == "all" else os.getpid()
        if number == signal.SIGKILL:
            os.kill(to, number)
        else:
            # From outside: a loader's worker ends with the process that it works for.
            subprocess.run(["kill", f"-{number.value}", "--", str(to)], check=True, start_new_session=True)
            # It came since the record before: starting a program takes several steps on a busy machine.
            self._record()

    def _record(self):
        with Path("signals.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.trainer.global_step, "time": time.time()}) + "\n")

    def _watch_files(self):
        """Replace torch.save and os.replace by versions that send the signal in between."""
        save, replace = torch.save, os.replace

        def save_watched(content, file, *args, **kwargs):
            name = _checkpoint_name(getattr(file, "name", ""))
            if name is None:
                return save(content, file, *args, **kwargs)
            written = io.BytesIO()
            save(content, written, *args, **kwargs)
            data = written.getvalue()
            if self._is_due("saving", name):
                self.sent = True
                first = self.random.randrange(len(data))
                file.write(data[:first])
                file.flush()
                self._send()
                data = data[first:]
            file.write(data)
            return None

        def replace_watched(source, target, **kwargs):
            name = _checkpoint_name(str(source))
            if name is not None and self._is_due("renaming", name):
                self.sent = True
                self._send()
            replace(source, target, **kwargs)
            if name is not None:
                with Path("saves.jsonl").open("a") as file:
                    file.write(json.dumps({"name": name, "step": self.trainer.global_step}) + "\n")
                if self._is_due("saved", name):
                    self.sent = True
                    self._send()

        torch.save, os.replace = save_watched, replace_watched


def _checkpoint_name(part):
    """Return the name of an unfinished file's checkpoint; `step.ckpt` for checkpoints of single steps."""
    name = Path(part).name
    if not (name.startswith(".") and name.endswith(".ckpt.part")):
        return None
    name = name[1:].removesuffix(".part")
    return "step.ckpt" if name.startswith("step-") else name
