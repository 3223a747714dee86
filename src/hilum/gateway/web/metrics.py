"""Prometheus metrics of one `Report`.

==========================================  =======  ==============================================
name                                        type     meaning
==========================================  =======  ==============================================
hilum_build_info{version}                   gauge    always 1
hilum_ready                                 gauge    1 when /readyz answers 200
hilum_receiver_up                           gauge    1 while the receiver writes its heartbeat
hilum_receiver_start_time_seconds           gauge    since 1970
hilum_database_up                           gauge    1 when the database answered in time
hilum_associations                          gauge    open now
hilum_commit_waiting                        gauge    instances received and not yet durable
hilum_store_free_bytes                      gauge    free on the objects' file system
hilum_store_reserve_bytes                   gauge    free space below which nothing is taken
hilum_associations_accepted_total           counter  since the receiver's start, as all counters
hilum_associations_rejected_total           counter  A-ASSOCIATE-RJ sent
hilum_connections_refused_total             counter  closed before any association
hilum_instances_stored_total                counter  durable, and answered with success
hilum_instances_duplicate_total             counter  here already, answered with success
hilum_instances_refused_total               counter  answered with a refusal (no space, not allowed)
hilum_instances_failed_total                counter  answered with an error
hilum_stored_bytes_total                    counter  bytes of the instances stored
hilum_commit_batches_total                  counter  groups of instances made durable together
hilum_archive_patients, _studies, _series,  gauge    what is in the index, without the quarantine
_instances, _bytes
hilum_work{kind,state}                      gauge    jobs; finished ones as long as they are kept
==========================================  =======  ==============================================

Values that are not known are left out: of a receiver that is not up, all gauges about it; counters
stay at their last value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import hilum
from hilum.gateway.heartbeat import Heartbeat
from hilum.gateway.store.results import Statistics
from hilum.gateway.store.states import WorkState
from hilum.gateway.web.status import Report

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The text format that every Prometheus reads."""

# Name without _total, field of the heartbeat, help.
_COUNTERS = (
    ("associations_accepted", "associations_accepted", "Associations accepted"),
    ("associations_rejected", "associations_rejected", "Associations rejected (A-ASSOCIATE-RJ)"),
    ("connections_refused", "connections_refused", "Connections closed before an association"),
    ("instances_stored", "stored", "Instances made durable and answered with success"),
    ("instances_duplicate", "duplicates", "Instances that were here already"),
    ("instances_refused", "refused", "Instances answered with a refusal"),
    ("instances_failed", "failed", "Instances answered with an error"),
    ("stored_bytes", "stored_bytes", "Bytes of the instances stored"),
    ("commit_batches", "batches", "Groups of instances made durable together"),
)
_GAUGES = (
    ("receiver_start_time_seconds", "started", "When the receiver started, since 1970"),
    ("associations", "associations", "Associations open now"),
    ("commit_waiting", "waiting", "Instances received and not yet durable"),
    ("store_free_bytes", "free_bytes", "Free space on the objects' file system"),
)
_TOTALS = ("patients", "studies", "series", "instances")


def render(report: Report) -> bytes:
    """The report in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_ReportCollector(report))
    return generate_latest(registry)


class _ReportCollector(Collector):
    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        report = self._report
        info = GaugeMetricFamily("hilum_build_info", "Version of Hilum", labels=["version"])
        info.add_metric([hilum.__version__], 1)
        yield info
        yield _gauge("ready", "Whether instances are received and kept", report.ready)
        yield _gauge("receiver_up", "Whether the receiver is alive", report.receiving)
        yield _gauge("database_up", "Whether the database answers", report.database_answers)
        if report.reserve is not None:
            yield _gauge("store_reserve_bytes", "Free space that is kept", report.reserve)
        if report.beat is not None:
            yield from _of_receiver(report.beat, alive=report.receiving)
        if report.work is not None:
            yield _of_work(report.work)
        if report.totals is not None:
            yield from _of_archive(report.totals)


def _of_receiver(beat: Heartbeat, *, alive: bool) -> Iterator[Metric]:
    for name, field, meaning in _COUNTERS:
        yield CounterMetricFamily(f"hilum_{name}", meaning, value=getattr(beat, field))
    if alive:
        for name, field, meaning in _GAUGES:
            yield _gauge(name, meaning, getattr(beat, field))


def _of_work(work: Mapping[str, Mapping[WorkState, int]]) -> Metric:
    jobs = GaugeMetricFamily("hilum_work", "Jobs", labels=["kind", "state"])
    for kind, states in work.items():
        for state in WorkState:
            jobs.add_metric([kind, state.value], states.get(state, 0))
    return jobs


def _of_archive(totals: Statistics) -> Iterator[Metric]:
    for name in _TOTALS:
        meaning = f"{name.capitalize()} in the index, without the quarantine"
        yield _gauge(f"archive_{name}", meaning, getattr(totals, name))
    yield _gauge("archive_bytes", "Bytes of the instances in the index", totals.total_bytes)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"hilum_{name}", meaning, value=float(value))
