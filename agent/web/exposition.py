"""Metrics in the formats of Prometheus, by its own library; imported with the first scrape, as it is not small."""

from collections.abc import Iterable, Iterator

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agent.latency import BOUNDS_S, Histogram
from agent.web.families import FAMILIES, PREFIX, Family
from agent.web.metrics import Labels, Sample, Value
from agent.web.request import Page

OPENMETRICS = "application/openmetrics-text"


class _Scrape(Collector):
    """The samples of one scrape, family by family."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._found: dict[str, list[tuple[Labels, Value]]] = {family.name: [] for family in FAMILIES}
        for name, labels, value in samples:
            self._found[name].append((labels, value))

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            if self._found[family.name]:
                yield _metric(family, self._found[family.name])


def page(accept: str, samples: Iterable[Sample]) -> Page:
    """What a scraper with this ``Accept`` header reads best: OpenMetrics, or the older text."""
    # The library chokes on versions that are none, so it is not shown what a stranger wrote.
    encoder, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept else "")
    return Page(encoder(_Scrape(samples)), content_type)


def _metric(family: Family, found: list[tuple[Labels, Value]]) -> Metric:
    """The library wants the names of families without the endings that their samples have."""
    name = PREFIX + family.name
    metric = Metric(name.removesuffix("_total").removesuffix("_info"), family.help, family.kind)
    for values, value in found:
        labels = dict(zip(family.labels, values, strict=True))
        if isinstance(value, Histogram):
            counts = value.counts.copy()
            upto = 0
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), counts, strict=True):
                upto += count
                metric.add_sample(f"{name}_bucket", {**labels, "le": bound}, upto)
            metric.add_sample(f"{name}_count", labels, upto)
            metric.add_sample(f"{name}_sum", labels, value.sum_ns / 1e9)
        else:
            metric.add_sample(name, labels, value)
    return metric
