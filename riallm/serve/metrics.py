"""Figures for Prometheus: what was asked and answered, how fast, and what the engines are doing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from riallm.engine.request import Load

if TYPE_CHECKING:
    from riallm.serve.answer import Tally
    from riallm.serve.served import Served

FIRST = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 120)
BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2)
WHOLE = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Of one server; a registry of its own, so that two servers in one process do not add up."""

    def __init__(self, models: Mapping[str, Served]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Engines(models))
        labels, at = ("model",), self._registry
        self._requests = Counter("riallm_requests", "Finished requests.", ("endpoint", "status"), registry=at)
        self._seconds = Histogram(
            "riallm_request_seconds", "Whole requests.", ("endpoint",), buckets=WHOLE, registry=at
        )
        self._prompt = Counter("riallm_prompt_tokens", "Tokens of prompts.", labels, registry=at)
        self._cached = Counter("riallm_cached_tokens", "Tokens of prompts that were read already.", labels, registry=at)
        self._completion = Counter("riallm_completion_tokens", "Tokens of answers.", labels, registry=at)
        first, gap = "From the request to the first token.", "Between tokens."
        self._first = Histogram("riallm_first_token_seconds", first, labels, buckets=FIRST, registry=at)
        self._gap = Histogram("riallm_token_gap_seconds", gap, labels, buckets=BETWEEN, registry=at)

    def finished(self, tally: Tally, status: int, seconds: float) -> None:
        """One HTTP request is over; status 0: before it had one."""
        self._requests.labels(tally.endpoint, str(status)).inc()
        self._seconds.labels(tally.endpoint).observe(seconds)
        if tally.model is None:
            return
        self._prompt.labels(tally.model).inc(tally.prompt_tokens)
        self._cached.labels(tally.model).inc(tally.cached_tokens)
        self._completion.labels(tally.model).inc(tally.completion_tokens)
        if tally.first_seconds is not None:
            self._first.labels(tally.model).observe(tally.first_seconds)
        for gap in tally.gap_seconds:
            self._gap.labels(tally.model).observe(gap)

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


_GAUGES: tuple[tuple[str, str, str], ...] = (
    ("running", "requests_running", "Requests that the engine works on."),
    ("waiting", "requests_waiting", "Requests that wait for memory or for their turn."),
    ("pages", "pages", "Pages of state that there are."),
    ("pages_used", "pages_used", "Pages that requests hold."),
    ("pages_cached", "pages_cached", "Free pages that still hold a prefix."),
    ("tokens_per_second", "tokens_per_second", "Tokens written a second, lately."),
)
_COUNTERS: tuple[tuple[str, str, str], ...] = (
    ("drafted_tokens", "drafted_tokens", "Tokens proposed ahead."),
    ("accepted_tokens", "accepted_tokens", "Proposed tokens that stood."),
    ("preemptions", "preemptions", "Requests that had to give their pages back for a while."),
)


class _Engines(Collector):
    """Asks the engines when it is asked."""

    def __init__(self, models: Mapping[str, Served]) -> None:
        self._models = models

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is asked of the engines before somebody wants to know

    def collect(self) -> Iterator[Metric]:
        loads: dict[str, Load] = {name: served.engine.load() for name, served in self._models.items()}
        for field, name, text in _GAUGES:
            gauge = GaugeMetricFamily(f"riallm_{name}", text, labels=("model",))
            for model, load in loads.items():
                gauge.add_metric([model], getattr(load, field))
            yield gauge
        for field, name, text in _COUNTERS:
            counter = CounterMetricFamily(f"riallm_{name}", text, labels=("model",))
            for model, load in loads.items():
                counter.add_metric([model], getattr(load, field))
            yield counter
