"""A real Prometheus over TLS with a password: let in, and refused for each fault by its name."""

from __future__ import annotations

import re
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from serve.certificates import Authority
from serve.secured import MUTUAL, TLS, USERS, House, Serve
from support.programs import wait_until
from support.prometheus import Prometheus, prometheus


def trusting(house: House, **more: object) -> dict[str, object]:
    return {"ca_file": str(house.authority.path), **more}


def last_error(scraper: Prometheus) -> str:
    """What Prometheus says of its only target; empty before its first scrape."""
    return "".join(target["lastError"] for target in scraper.targets())


def test_prometheus_scrapes_over_mutual_tls_with_a_password_and_through_a_rotation(
    serve: Serve, house: House, tmp_path: Path
) -> None:
    server = serve(web_config=house.write(MUTUAL + USERS))
    pair = house.authority.issue("scraper", client=True)
    scrape = {
        "scheme": "https",
        "tls_config": trusting(house, cert_file=str(pair.certificate), key_file=str(pair.key)),
        "basic_auth": {"username": "alice", "password": "right"},
    }
    with prometheus(
        tmp_path / "p", [f"127.0.0.1:{server.port}"], interval="300ms", scrape=scrape
    ) as scraper:
        scraper.wait_for("up", 1)
        scraper.wait_for("esper_run_info", 1)
        house.authority.issue("server")
        scraper.wait_for("count_over_time(esper_run_info[1h]) > bool 3", 1)
        scraper.wait_for("min_over_time(up[1h])", 1)


def test_prometheus_is_refused_for_each_fault_by_its_name(
    serve: Serve, house: House, tmp_path: Path
) -> None:
    """One Prometheus, several targets: each fails for its own reason."""
    good = {"scheme": "https", "tls_config": trusting(house)}
    stranger = Authority(tmp_path / "other", "a stranger")
    expired = House(tmp_path / "expired")
    expired.authority.issue("server", expired=True)
    locked = serve(web_config=house.write(TLS + USERS))
    late = serve(web_config=expired.write(TLS))
    mutual_house = House(tmp_path / "mutual")
    mutual = serve(web_config=mutual_house.write(MUTUAL))
    cases = {
        "wrong password": (locked, {"basic_auth": {"username": "alice", "password": "no"}, **good}),
        "no password": (locked, good),
        "wrong authority": (
            locked,
            {"scheme": "https", "tls_config": {"ca_file": str(stranger.path)}},
        ),
        "expired": (late, {"scheme": "https", "tls_config": trusting(expired)}),
        "no client certificate": (
            mutual,
            {"scheme": "https", "tls_config": trusting(mutual_house)},
        ),
    }
    expected = {
        "wrong password": "401",
        "no password": "401",
        "wrong authority": "x509: certificate signed by unknown authority",
        "expired": "x509: certificate has expired",
        # asyncio closes without the alert that would say more.
        "no client certificate": "EOF|connection reset",
    }
    with ExitStack() as stack:
        scrapers = {
            name: stack.enter_context(
                prometheus(
                    tmp_path / name,
                    [f"127.0.0.1:{server.port}"],
                    interval="500ms",
                    scrape=scrape,
                )
            )
            for name, (server, scrape) in cases.items()
        }
        for name, scraper in scrapers.items():
            wait_until(partial(last_error, scraper), name)
            assert re.search(expected[name], last_error(scraper)), name
