"""Figures as the text that Prometheus reads, by its own library."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .errors import OffsiteError
from .plan.metrics import Kind, Metric

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What `text` gives; newer libraries call a newer format their latest, which our names do not need."""


class NoLibrary(OffsiteError):
    """The package that it takes is only recommended."""

    def __init__(self) -> None:
        super().__init__(
            "Metrics need the library prometheus_client, which is not installed. Replication is not affected.",
            "apt install python3-prometheus-client",
        )


def text(metrics: Sequence[Metric]) -> str:
    """In the order in which they come. Raises NoLibrary."""
    try:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.registry import Collector
    except ImportError as error:
        raise NoLibrary from error

    class Look(Collector):
        def collect(self) -> Iterator["Family"]:
            return map(_family, metrics)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Look())
    return generate_latest(registry).decode("utf-8")


def _family(metric: Metric) -> "Family":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    labels = list(metric.samples[0].labels)
    make = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = make(metric.name, metric.help, labels=labels)
    for sample in metric.samples:
        family.add_metric([sample.labels[label] for label in labels], sample.value)
    return family
