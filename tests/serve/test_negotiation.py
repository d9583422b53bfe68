"""Format and compression follow from the request headers by RFC 9110."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_exporter.serve.negotiation import (
    OFFERS,
    OPENMETRICS_1_0_0,
    TEXT_0_0_4,
    TEXT_1_0_0,
    MediaType,
    accepts_gzip,
    negotiate,
)

OM, T4, T1 = OPENMETRICS_1_0_0, TEXT_0_0_4, TEXT_1_0_0
T1_UTF8 = MediaType("text", "1.0.0", "allow-utf-8")
OM_UTF8 = MediaType("openmetrics", "1.0.0", "allow-utf-8")
OM_UNDERSCORES = MediaType("openmetrics", "1.0.0", "underscores")

PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
    "q=0.7," + PROMETHEUS_3
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, T4),
        ("", T4),
        ("*/*", T4),
        ("*", T4),
        (PROMETHEUS_2_42, OM),
        (PROMETHEUS_3, OM_UTF8),
        (PROMETHEUS_3_PROTOBUF, OM_UTF8),
        (BROWSER, T4),
        ("text/plain", T4),
        ("text/*", T4),
        ("text/plain;version=0.0.4", T4),
        ("text/plain;version=1.0.0", T1),
        ('text/plain; version="1.0.0"', T1),
        ("TEXT/PLAIN; VERSION=1.0.0", T1),
        ("text/plain;version=0.0.4;q=0.3, text/plain;version=1.0.0;q=0.4", T1),
        (
            "text/plain;version=1.0.0;escaping=allow-utf-8",
            MediaType("text", "1.0.0", "allow-utf-8"),
        ),
        ("text/plain;version=0.0.4;escaping=allow-utf-8", T4),
        ("application/openmetrics-text", OM),
        ("application/*", OM),
        ("application/openmetrics-text;charset=UTF-8", OM),
        ("application/openmetrics-text;version=1.0.0;escaping=underscores", OM_UNDERSCORES),
        ("application/openmetrics-text;version=1.0.0;escaping=dots", OM_UNDERSCORES),
        ("application/openmetrics-text;version=1.0.0;escaping=nonsense", OM_UNDERSCORES),
        # Weights: the highest wins, at any place; 0 forbids; the specific range decides.
        ("text/plain;q=0.5, application/openmetrics-text;q=0.9", OM),
        ("application/openmetrics-text;q=0.1, text/plain;q=0.2", T4),
        ("application/openmetrics-text;q=0", T4),
        ("text/plain;q=0, */*", OM),
        ("*/*;q=0.9, application/openmetrics-text;q=0.2", T4),
        ("text/plain;version=0.0.4;q=0, text/plain", T1),
        # Equal weights: named before covered by a wildcard, then in the client's order.
        ("*/*, application/openmetrics-text", OM),
        ("application/openmetrics-text, text/plain;version=0.0.4", OM),
        ("text/plain;version=0.0.4, application/openmetrics-text", T4),
        # What cannot be had, and what cannot be read, still gets a page.
        ("application/openmetrics-text;version=0.0.1", T4),
        ("application/openmetrics-text;version=2.0.0", T4),
        ("application/openmetrics-text;charset=latin-1", T4),
        ("application/json", T4),
        ("text/plain;q=0, application/openmetrics-text;q=0", T4),
        ("application/openmetrics-text;q=high", T4),
        ("application/openmetrics-text;q=nan", T4),
        ("application/openmetrics-text;q=-1", T4),
        ("application/openmetrics-text;q=2", T4),
        ("application/openmetrics-text;q=high, text/plain;version=1.0.0;q=0.1", T1),
        (",;,=;q,/,;;q=1,", T4),
        ('text/plain;version="1.0.0', T4),
        ('foo="a,b;c", application/openmetrics-text', OM),
    ],
)
def test_accept_chooses_the_format(accept: str | None, expected: MediaType) -> None:
    assert negotiate(accept) == expected


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("*", True),
        ("deflate, *;q=0.1", True),
        ("identity", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("*;q=0, gzip", True),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=0.5, identity;q=0.5", True),
        ("identity;q=0.5, gzip;q=1.0", True),
        ("gzip;q=x", False),
    ],
)
def test_accept_encoding_chooses_the_compression(
    accept_encoding: str | None, expected: bool
) -> None:
    assert accepts_gzip(accept_encoding) is expected


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        (T4, "text/plain; version=0.0.4; charset=utf-8"),
        (T1, "text/plain; version=1.0.0; charset=utf-8"),
        (OM, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (
            OM_UTF8,
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        ),
    ],
)
def test_content_types_are_those_that_prometheus_knows(media: MediaType, expected: str) -> None:
    assert media.content_type == expected


@given(st.binary(max_size=400) | st.text(max_size=400))
def test_any_header_gets_an_answer(header: bytes | str) -> None:
    media = negotiate(header)
    assert (media.format, media.version) in {(offer.format, offer.version) for offer in OFFERS}
    assert accepts_gzip(header) in (True, False)


@given(
    st.lists(
        st.sampled_from(
            ["text/plain", "text/*", "*/*", "application/openmetrics-text", ";version=1.0.0",
             ";q=0", ";q=0.5", ";q=1", ";escaping=dots", ",", " ", '"', "\\", ";", "="]
        ),
        max_size=30,
    ).map("".join)
)  # fmt: skip
def test_any_mixture_of_known_parts_gets_an_answer(header: str) -> None:
    assert negotiate(header).content_type.isascii()


@pytest.mark.parametrize("part", ['"\\"', '"', "a,", "a;", "a;b=c;", '\\"', '",', ";q=0.5,"])
def test_a_hostile_header_costs_time_in_proportion_to_its_length(part: str) -> None:
    header = part * (16_384 // len(part))
    started = time.thread_time()
    negotiate(header)
    accepts_gzip(header)
    assert time.thread_time() - started < 0.2
