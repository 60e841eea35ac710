"""Metrics of a server in Prometheus' format."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lightning_xt.inference.serving.engine_load import EngineLoad

FIRST_TOKEN = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
NEXT_TOKEN = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Limits of the buckets in seconds."""
OUTCOMES = ("completed", "failed", "cancelled")
"""Ends of jobs; those whose client has gone, or whose time is over, are cancelled."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServerMetrics:
    """Metrics of one server, apart from those of other ones in the process.

    Args:
        measure: returns the load of each model.
        before: the load before the first client, whose tokens and jobs are not counted. None = nothing was decoded.
    """

    def __init__(
        self, measure: Callable[[], Mapping[str, EngineLoad]], before: Mapping[str, EngineLoad] | None = None
    ) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "lightning_xt_requests", "Answered requests.", ("route", "code"), registry=self._registry
        )
        self.first_token = Histogram(
            "lightning_xt_time_to_first_token_seconds",
            "Time from a request to its first token.",
            ("model",),
            buckets=FIRST_TOKEN,
            registry=self._registry,
        )
        self.next_token = Histogram(
            "lightning_xt_time_per_token_seconds",
            "Time from a token of a sequence to the next one.",
            ("model",),
            buckets=NEXT_TOKEN,
            registry=self._registry,
        )
        self._registry.register(_LoadCollector(measure, before or {}))

    def render(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)


class _LoadCollector(Collector):
    """Collector of the engine's load, which is measured when it is asked for."""

    def __init__(self, measure: Callable[[], Mapping[str, EngineLoad]], before: Mapping[str, EngineLoad]) -> None:
        self._measure, self._before = measure, before

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        label, loads = ["model"], self._measure()
        gauges = {
            "running": GaugeMetricFamily("lightning_xt_running_jobs", "Jobs that are decoded.", labels=label),
            "waiting": GaugeMetricFamily("lightning_xt_waiting_jobs", "Jobs that wait for a row.", labels=label),
            "sequences": GaugeMetricFamily("lightning_xt_sequences", "Sequences of all these jobs.", labels=label),
        }
        counters = {
            "prompt_tokens": CounterMetricFamily("lightning_xt_prompt_tokens", "Tokens of prompts.", labels=label),
            "generated_tokens": CounterMetricFamily("lightning_xt_generated_tokens", "Generated tokens.", labels=label),
        }
        jobs = CounterMetricFamily("lightning_xt_jobs", "Jobs that have ended.", labels=["model", "outcome"])
        for model, load in loads.items():
            for name, gauge in gauges.items():
                gauge.add_metric([model], getattr(load, name))
            for name, counter in counters.items():
                counter.add_metric([model], self._count(model, load, name))
            for outcome in OUTCOMES:
                jobs.add_metric([model, outcome], self._count(model, load, outcome))
        yield from (*gauges.values(), *counters.values(), jobs)

    def _count(self, model: str, load: EngineLoad, name: str) -> int:
        """Return a number since the first client."""
        before = self._before.get(model)
        return getattr(load, name) - (getattr(before, name) if before is not None else 0)
