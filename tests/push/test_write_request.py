"""Pages become requests of remote write 1.0."""

from __future__ import annotations

import math
import struct
from typing import Any

from cramjam import snappy
from hypothesis import given, settings
from hypothesis import strategies as st

from esper_exporter.metrics.table import escape_label_value
from esper_exporter.push import write_request
from esper_exporter.push.page_samples import PageSamples
from esper_exporter.push.write_request import Encoder, Request, WriteRequest

STALE_BITS = 0x7FF0000000000002


def decoded(requests: list[Request]) -> list[tuple[dict[str, str], int, float]]:
    found = []
    for request in requests:
        message: Any = WriteRequest.FromString(bytes(snappy.decompress_raw(request.body)))
        assert len(message.timeseries) == request.samples
        for series in message.timeseries:
            names = [label.name for label in series.labels]
            assert names == sorted(set(names)), "a receiver wants labels in order, each once"
            labels = {label.name: label.value for label in series.labels}
            assert "" not in labels.values()
            found += [(labels, sample.timestamp, sample.value) for sample in series.samples]
    return found


def is_stale(value: float) -> bool:
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return bool(bits == STALE_BITS)


def test_every_line_of_a_page_is_one_sample() -> None:
    page = (
        b"# HELP a_total Text.\n# TYPE a_total counter\na_total 3\n"
        b'b{x="1",a="} 2"} 1.5\nb{x="2",a=""} NaN\nb{x="3"} +Inf 1234\n'
    )
    encoder = Encoder(PageSamples({"job": "esper", "instance": "here"}))
    found = decoded(encoder.encode(page, 1000))
    own = {"job": "esper", "instance": "here"}
    assert found[0] == ({"__name__": "a_total", **own}, 1000, 3.0)
    assert found[1] == ({"__name__": "b", "x": "1", "a": "} 2", **own}, 1000, 1.5)
    assert found[2][0] == {"__name__": "b", "x": "2", **own}
    assert math.isnan(found[2][2]) and not is_stale(found[2][2])
    assert found[3] == ({"__name__": "b", "x": "3", **own}, 1234, math.inf)


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=30).map(lambda text: text.encode("utf-8", "replace").decode()))
def test_any_label_value_arrives_as_it_is(value: str) -> None:
    page = f'b{{x="{escape_label_value(value)}"}} 1\n'.encode()
    ((labels, _, number),) = decoded(Encoder(PageSamples({})).encode(page, 5))
    assert labels == {"__name__": "b", "x": value}
    assert number == 1.0


def test_a_label_of_the_series_wins_over_an_external_one() -> None:
    page = b'b{cluster="its"} 1\nc 2\n'
    found = decoded(Encoder(PageSamples({"cluster": "ours"})).encode(page, 5))
    assert [labels["cluster"] for labels, _, _ in found] == ["its", "ours"]


def test_a_series_that_is_gone_is_marked_as_ended_once() -> None:
    encoder = Encoder(PageSamples({}))
    encoder.encode(b'b{x="1"} 1\nb{x="2"} 1\n', 1000)
    gone, stays = decoded(encoder.encode(b'b{x="2"} 1\n', 2000))
    assert gone[0]["x"] == "1" and gone[1] == 2000 and is_stale(gone[2])
    assert stays == ({"__name__": "b", "x": "2"}, 2000, 1.0)
    assert len(decoded(encoder.encode(b'b{x="2"} 1\n', 3000))) == 1


def test_the_last_page_ends_all_its_series() -> None:
    encoder = Encoder(PageSamples({}))
    encoder.encode(b"b 1\n", 1000)
    value, end = decoded(encoder.encode(b"b 2\n", 2000, stale_at=32000))
    assert value == ({"__name__": "b"}, 2000, 2.0)
    assert end[1] == 32000 and is_stale(end[2])


def test_a_large_page_is_several_requests(monkeypatch: Any) -> None:
    monkeypatch.setattr(write_request, "SAMPLES_A_REQUEST", 3)
    page = b"".join(b'b{x="%d"} %d\n' % (n, n) for n in range(8))
    requests = Encoder(PageSamples({})).encode(page, 1)
    assert [request.samples for request in requests] == [3, 3, 2]
    assert [value for _, _, value in decoded(requests)] == [float(n) for n in range(8)]
