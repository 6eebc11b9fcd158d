"""A service and what to send it become a job that can be measured at any rate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pandas as pd

from configs.files import read_json
from configs.progress import show_progress
from configs.schema import FraudConfig
from configs.sections import LoadSection
from data.fraud import load_transactions
from serving.load_address import check_may_be_loaded
from serving.load_messages import (
    FraudCheck,
    ask_expected,
    draw_messages,
    make_id_prefix,
    render_bodies,
)
from serving.load_plan import Check, Target
from serving.load_result import LoadResult
from serving.load_run import measure_load
from serving.server import find_free_port, start_service


@dataclass(frozen=True)
class LoadJob:
    """What is asked of whom.

    Attributes:
        target: Address and path.
        bodies: Sent in turn.
        check: Judges the answers; None for a service that is not ours.
        settings: How it is sent.
        seed: Of the arrivals.
    """

    target: Target
    bodies: Sequence[bytes]
    check: Check | None
    settings: LoadSection
    seed: int

    def measure(
        self,
        *,
        rate: float | None,
        seconds: float,
        interval_seconds: float | None = None,
        watch: Callable[[float], None] | None = None,
    ) -> LoadResult:
        """Send for so many seconds, after a warm-up, and show how far it is.

        Args:
            rate: Requests a second; None for a closed loop.
            seconds: How long, warm-up apart.
            interval_seconds: Of the time series; by default as configured.
            watch: Called with the seconds since the warm-up.
        """
        settings, shown = self.settings, -self.settings.warm_up_seconds
        loop = "closed loop" if rate is None else f"{rate:,.0f} requests/s"
        with show_progress(f"Load, {loop}", total=seconds - shown) as advance:

            def look(now: float) -> None:
                nonlocal shown
                advance(max(now - shown, 0.0))
                shown = max(now, shown)
                if watch is not None and now >= 0:
                    watch(now)

            result = measure_load(
                self.target,
                self.bodies,
                rate=rate,
                arrivals=settings.arrivals,
                connections=settings.num_connections,
                processes=settings.processes,
                seconds=seconds,
                warm_up_seconds=settings.warm_up_seconds,
                seed=self.seed,
                check=self.check,
                num_requests=settings.num_requests,
                timeout_seconds=min(settings.timeout_seconds, seconds),
                interval_seconds=interval_seconds or settings.interval_seconds,
                max_send_lag_ms=settings.max_send_lag_ms,
                watch=look,
            )
        return result if self.check is None else count_unknown_versions(result, self.target.url)


@contextmanager
def reach_service(
    config: FraudConfig, url: str | None, *, allow_hosts: Collection[str] = ()
) -> Iterator[str]:
    """Yield the address of a service: the one given, or one started here for the block.

    Raises:
        ValueError: If ``url`` is neither on this machine nor on one of ``allow_hosts``.
    """
    if url is None:
        with start_service(config, port=find_free_port(config.serving.host)) as started:
            yield started
    else:
        check_may_be_loaded(url, allow_hosts=allow_hosts)
        yield url.rstrip("/")


def prepare_fraud_job(
    config: FraudConfig, *, url: str, path: str, expect: bool, now: pd.Timestamp | None
) -> LoadJob:
    """Make past transactions into requests of the fraud service.

    Args:
        config: ``runs`` has the transactions, ``load`` says how many different requests.
        url: Where the service is.
        path: Which of its lanes.
        expect: Whether to ask the typed lane first, for some, what the answers should be.
        now: The instant the requests follow, UTC; by default the one the online store was built
            for, since windows asked for much later are empty.

    Raises:
        FileNotFoundError: If there are no transactions to draw from.
        ValueError: If no fraud service answers at ``url``.
    """
    messages = draw_messages(
        load_transactions(config.runs),
        num_messages=config.load.rows,
        seed=config.seed,
        now=now or _read_store_instant(config.runs),
    )
    get_served_versions(url)
    id_prefix = make_id_prefix()
    expected = ask_expected(url, messages[: config.load.expect_rows]) if expect else []
    return LoadJob(
        target=Target(url, path),
        bodies=render_bodies(messages, path=path, id_prefix=id_prefix),
        check=FraudCheck(id_prefix=id_prefix, expected=expected),
        settings=config.load,
        seed=config.seed,
    )


def prepare_foreign_job(config: FraudConfig, *, url: str, path: str, body: Path) -> LoadJob:
    """Take request bodies from a file, one a line, for a service of which only the status counts.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is empty.
    """
    if not body.is_file():
        raise FileNotFoundError(f"no file at {body}; --body names one JSON body a line")
    bodies = [line for line in body.read_bytes().splitlines() if line.strip()]
    if not bodies:
        raise ValueError(f"--body {body} holds no line")
    return LoadJob(Target(url, path), bodies, None, config.load, config.seed)


def _read_store_instant(runs: Path) -> pd.Timestamp | None:
    """Read which instant the online store was built for; ``None`` where there is no store here."""
    from features.store import get_stamp_file  # here, since it takes Feast seconds to load

    stamp = get_stamp_file(runs)
    return pd.Timestamp(read_json(stamp)["as_of"]) if stamp.is_file() else None


def get_served_versions(url: str) -> set[str]:
    """Ask which models the service has answered with; tell where it cannot be asked."""
    try:
        response = httpx.get(f"{url}/model", timeout=10.0, trust_env=False)
        response.raise_for_status()
        return set(response.json()["model_versions_served"])
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise ValueError(
            f"no fraud service answers at {url} ({error!r}); "
            "start one with `throughline fraud serve`, or leave --url out"
        ) from error


def count_unknown_versions(result: LoadResult, url: str) -> LoadResult:
    """Count as errors the answers of models that the service says it never answered with."""
    errors = result.errors.copy()
    with suppress(ValueError):  # a service that is gone by now has left errors enough
        served = get_served_versions(url)
        for version, count in result.tallies["model_version"].items():
            if version not in served:
                errors["unknown model version"] += count
    return replace(result, errors=errors)
