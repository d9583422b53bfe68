"""Requests of Prometheus' remote write 1.0: protobuf, compressed with snappy.

Needs protobuf and cramjam, from the extra ``push``. The messages are declared here and built when
this module is imported: code that protoc generates would tie the package to one major version of
protobuf's runtime, and a training has its own (TensorBoard, Ray). They live in a pool of
their own, so that another library's ``prometheus.WriteRequest`` does not clash with them. cramjam
is the library that python-snappy itself uses, and has the raw format that the receiver wants.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cramjam import snappy
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from esper_exporter.push.page_samples import Labels, PageSamples

STALE: float = struct.unpack("<d", struct.pack("<Q", 0x7FF0_0000_0000_0002))[0]
"""The NaN by which Prometheus marks the end of a series."""
SAMPLES_A_REQUEST = 5_000

_Field = descriptor_pb2.FieldDescriptorProto
_MESSAGES = {
    "Label": (("name", 1, _Field.TYPE_STRING, ""), ("value", 2, _Field.TYPE_STRING, "")),
    "Sample": (("value", 1, _Field.TYPE_DOUBLE, ""), ("timestamp", 2, _Field.TYPE_INT64, "")),
    "TimeSeries": (
        ("labels", 1, _Field.TYPE_MESSAGE, "Label"),
        ("samples", 2, _Field.TYPE_MESSAGE, "Sample"),
    ),
    "WriteRequest": (("timeseries", 1, _Field.TYPE_MESSAGE, "TimeSeries"),),
}
"""Each message's fields: name, number, type and, for a list of messages, of which."""


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="esper_exporter/remote_write.proto", package="prometheus", syntax="proto3"
    )
    for name, declared in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of in declared:
            label = _Field.LABEL_REPEATED if of else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, type=kind, label=label)
            if of:
                added.type_name = f".prometheus.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"prometheus.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _classes()
TimeSeries: Any = _CLASSES["TimeSeries"]
WriteRequest: Any = _CLASSES["WriteRequest"]


@dataclass(frozen=True, slots=True)
class Request:
    """The body of one request, and how many samples it has."""

    body: bytes
    samples: int


class Encoder:
    """Turns pages into requests, and remembers which series the page before had: at first that of
    ``before``."""

    def __init__(self, pages: PageSamples, before: bytes = b"") -> None:
        self._pages = pages
        self._present: dict[Labels, Any] = {
            labels: _series(labels) for labels, _, _ in pages.read(before)
        }

    def encode(self, page: bytes, moment: int, stale_at: int | None = None) -> list[Request]:
        """Requests for a page as it was at ``moment``, in Unix milliseconds.

        Series that the page before had and this one has not are marked as ended. With ``stale_at``
        all of this page's end then: they are the last.
        """
        present: dict[Labels, Any] = {}
        for labels, value, own_moment in self._pages.read(page):
            series = self._present.get(labels)
            if series is None:
                series = _series(labels)
            sample = series.samples[0]
            sample.value = value
            sample.timestamp = moment if own_moment is None else own_moment
            present[labels] = series
        gone = [self._present[labels] for labels in self._present.keys() - present.keys()]
        _end(gone, moment)
        self._present = present
        requests = [*_requests([*gone, *present.values()])]
        if stale_at is not None:
            _end(present.values(), stale_at)
            requests += _requests([*present.values()])
            self._present = {}
        return requests


def _series(labels: Labels) -> Any:
    return TimeSeries(labels=[{"name": name, "value": text} for name, text in labels], samples=[{}])


def _end(ended: Any, moment: int) -> None:
    for series in ended:
        series.samples[0].value = STALE
        series.samples[0].timestamp = moment


def _requests(series: list[Any]) -> Iterator[Request]:
    for first in range(0, len(series), SAMPLES_A_REQUEST):
        part = series[first : first + SAMPLES_A_REQUEST]
        message = WriteRequest(timeseries=part).SerializeToString()
        yield Request(bytes(snappy.compress_raw(message)), len(part))
