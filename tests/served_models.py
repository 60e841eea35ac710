"""Tiny models for the engine, and a client that collects events."""

import threading
from functools import partial

import torch

from lightning_xt.data.prompt_files import number_prompts
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.inference.serving.events import Candidates, ErrorEvent, JobEnd, SequenceEnd, TokenEvent
from lightning_xt.inference.serving.serving_engine import Engine
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.translation import Translator
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.nn.attention.attention import Attention

ATTENTION = partial(Attention, heads=2)
SIZES = {"dim": 8, "depth": 1, "attention": ATTENTION}
VOCAB = {"source": 11, "target": 7, "pad": 0, "start": 1, "end": 2}


def make_completer(seed=1, trained_length=64, **options):
    torch.manual_seed(seed)
    model = Decoder(259, **{**SIZES, **options}).double()
    torch.nn.init.normal_(model.head.to_logits.weight, std=2.0)
    return TextCompleter(model, SpecialBytes(), torch.device("cpu"), trained_length=trained_length)


def make_translator(seed=1, **options):
    torch.manual_seed(seed)
    encoder, decoder = partial(Encoder, **SIZES), partial(Decoder, **{**SIZES, "cross_attention": ATTENTION, **options})
    network = EncoderDecoder(11, 7, encoder=encoder, decoder=decoder).double()
    torch.nn.init.normal_(network.decoder.head.to_logits.weight)
    source, target = Numbers(11, pad=0, start=None, end=2), Numbers(7, pad=0, start=1, end=2)
    return Translator(network, source, target, VOCAB)


def make_engine(*, start=True, **options):
    """Return an engine with a language model "lm" and an encoder-decoder "pairs"."""
    engine = Engine({"lm": make_completer(), "pairs": make_translator()}, **options)
    if start:
        engine.start()
    return engine


def complete_alone(text, options):
    """Return the texts of completions without an engine."""
    (found,) = make_completer().complete(number_prompts([text]), options)
    return [each.text for each in found.completions]


class Client:
    """Events of one job."""

    def __init__(self, on_event=lambda event: None):
        self.events, self._on_event, self._over, self.threads = [], on_event, threading.Event(), set()
        self.first = threading.Event()

    def __call__(self, event):
        self.events.append(event)
        self.threads.add(threading.current_thread().name)
        self.first.set()
        if isinstance(event, JobEnd | ErrorEvent):
            self._over.set()
        self._on_event(event)

    def wait(self):
        """Wait for the last event, and return all."""
        assert self._over.wait(60), self.events
        return self.events

    def finish(self):
        """Wait for the end of a job that goes well."""
        events = self.wait()
        assert isinstance(events[-1], JobEnd), events[-1]
        return self

    @property
    def error(self):
        """The error of a job that fails."""
        last = self.wait()[-1]
        assert isinstance(last, ErrorEvent)
        return last.error

    def text(self, sequence=0):
        streamed = [each for each in self.events if isinstance(each, TokenEvent | SequenceEnd)]
        return "".join(each.text for each in streamed if each.sequence == sequence)

    def tokens(self, sequence=0):
        return [each.token for each in self.events if isinstance(each, TokenEvent) and each.sequence == sequence]

    def reason(self, sequence=0):
        (end,) = [each for each in self.events if isinstance(each, SequenceEnd) and each.sequence == sequence]
        return end.reason

    @property
    def candidates(self):
        (found,) = [each for each in self.events if isinstance(each, Candidates)]
        return found


class Gate(Client):
    """Client that holds the engine's thread at its first event until it is opened."""

    def __init__(self):
        super().__init__(lambda event: self._opened.wait(60))
        self._opened = threading.Event()

    def open(self):
        self._opened.set()
