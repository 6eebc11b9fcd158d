"""The fraud service: HTTP requests become decisions, each one recorded (see ``serving.scorer``).

``throughline fraud serve`` runs it, as does ``bentoml serve serving.fraud:FraudService``
and a configuration's path in ``THROUGHLINE_CONFIG``. Two lanes, one scorer: ``/v1/score`` and
``/v1/score_batch`` (``serving.fast_lane``), and the typed ``/predict`` and ``/predict_batch``,
which also explain. Importing this module reads nothing; the constructor of the class does, once
per worker.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import bentoml
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from configs.schema import DEFAULT_FRAUD_CONFIG, FraudConfig, load_fraud_config
from data.fraud_columns import TRANSACTION_COLUMNS
from serving import lane_protocol
from serving.admin import build_admin_routes, read_admin_token
from serving.arms import Margins
from serving.body_limit import BodyLimitMiddleware
from serving.circuit_breaker import BreakerState
from serving.decisions import Exploration
from serving.device import open_margins
from serving.fast_lane import FastLane, Lane
from serving.fraud_messages import (
    PredictBatchRequest,
    PredictBatchResponse,
    Prediction,
    PredictRequest,
    Reason,
    Transaction,
    check_extra,
    refuse,
    shorten,
)
from serving.lane_metrics import LaneMetrics, publish_repeatedly
from serving.online_store import OnlineStore
from serving.prediction_log import PredictionLog, get_prediction_folder
from serving.rollout import ModelWatcher
from serving.row_matrix import list_extra_columns
from serving.score_messages import Answer
from serving.scorer import NoModelError, OverloadedError, Scorer
from serving.server import get_service_folder
from serving.store_opening import open_fraud_store
from serving.stream_publisher import StreamPublisher
from serving.tracing import open_tracer

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from training.artefact import Artefact

CONFIG_VARIABLE = "THROUGHLINE_CONFIG"
RUNS_VARIABLE = "THROUGHLINE_RUNS"
GC_THRESHOLD = 50_000
"""Objects made before the collector looks at them; BentoML's start leaves a million that stay."""


def read_settings() -> FraudConfig:
    """Read the configuration that the environment names, or the one that comes with the code."""
    runs = os.environ.get(RUNS_VARIABLE)
    return load_fraud_config(
        Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_FRAUD_CONFIG)),
        changes={"runs": runs} if runs else None,
    )


class _Request(bentoml.IODescriptor):
    """A message read from a request's body as BentoML does it, with bounded errors."""

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> Self:
        try:
            message = await super().from_http_request(request, serde)
        except ValidationError as error:
            raise shorten(error) from None
        assert isinstance(message, cls)
        return message


class PredictInput(_Request, PredictRequest):
    """``PredictRequest`` as BentoML reads it."""


class PredictBatchInput(_Request, PredictBatchRequest):
    """``PredictBatchRequest`` as BentoML reads it."""


@bentoml.service(
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
    http={"host": "127.0.0.1"},  # BentoML's own is every address of the machine
)
class FraudService:
    """Score card transactions as of their own time, with whom the registry says."""

    def __init__(self) -> None:
        # Imported here because BentoML's supervising process imports this module too, and needs
        # neither Feast nor MLflow.
        from training.artefact import load_artefact
        from training.registry import get_champion, get_rollout_model

        config = read_settings()
        serving = config.serving
        _hush_bad_requests()
        _hush_uvicorn()
        self.store: OnlineStore = open_fraud_store(config)
        feature_set = self.store.feature_set
        self.max_batch_rows, self.max_body_bytes = serving.max_batch_rows, serving.max_body_bytes
        self.extra = list_extra_columns(feature_set, contract=TRANSACTION_COLUMNS)
        self.metrics = LaneMetrics()
        self.log = PredictionLog(
            get_prediction_folder(config.runs),
            feature_set=feature_set,
            flush_seconds=serving.log_flush_seconds,
            max_pending=serving.log_queue_rows,
        )
        self.publisher = _start_publisher(config)
        self.tracer = open_tracer(serving.trace_share, folder=get_service_folder(config.runs))
        self.scorer = Scorer(
            store=self.store,
            feature_set=feature_set,
            record=self.log.append,
            metrics=self.metrics,
            max_waiting_rows=serving.max_waiting_rows,
            publish=self.publisher.append if self.publisher else None,
            open_device=_choose_device(config),
            exploration=Exploration(serving.explore_share, f"explore {config.seed}".encode()),
        )
        self.watcher = ModelWatcher(
            find_champion=lambda: get_champion(config.runs),
            find_rollout=lambda: get_rollout_model(config.runs),
            load_artefact=load_artefact,
            models=self.scorer.lineup,
            poll_seconds=serving.model_poll_seconds,
        )
        self.watcher.start()
        self.admin = Starlette(
            routes=build_admin_routes(
                config.runs,
                token=read_admin_token(os.environ),
                folder=get_service_folder(config.runs),
                describe=self.describe,
            )
        )

    @bentoml.on_startup
    async def start(self) -> None:
        """Warm up inside the event loop that will serve."""
        self._publishing = asyncio.create_task(publish_repeatedly(self._publish))
        await self.scorer.check_ready()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 20)

    @bentoml.api(route="/predict", output_spec=Prediction)
    async def predict(self, request: PredictInput, /) -> Prediction | JSONResponse:
        """Score one transaction."""
        check_extra(request.transaction, field=("transaction",), extra=self.extra)
        found = await self._score("predict", [request.transaction], explain=request.explain)
        return found if isinstance(found, JSONResponse) else found[0]

    @bentoml.api(route="/predict_batch", output_spec=PredictBatchResponse)
    async def predict_batch(
        self, request: PredictBatchInput, /
    ) -> PredictBatchResponse | JSONResponse:
        """Score several transactions, a customer's with one model, each as of its own time."""
        rows = len(request.transactions)
        if rows > self.max_batch_rows:
            reason = f"has {rows} rows; at most {self.max_batch_rows} are allowed"
            raise refuse(("transactions",), reason)
        for position, transaction in enumerate(request.transactions):
            check_extra(transaction, field=("transactions", position), extra=self.extra)
        found = await self._score("predict_batch", request.transactions, explain=request.explain)
        return found if isinstance(found, JSONResponse) else PredictBatchResponse(predictions=found)

    async def _score(
        self, route: str, messages: list[Transaction], *, explain: bool
    ) -> list[Prediction] | JSONResponse:
        """Score and count a request; what cannot be answered now is told to come again."""
        outcome = "failed"
        try:
            answers = await self.scorer.score(messages, explain=explain)
            is_degraded = any(answer.degraded_reason is not None for answer in answers)
            outcome = "degraded" if is_degraded else "ok"
        except (NoModelError, OverloadedError) as error:
            outcome = "no_model" if isinstance(error, NoModelError) else "shed"
            return _answer_unready(error)
        finally:
            self.metrics.count_request(route, outcome)
        return [_to_message(answer) for answer in answers]

    async def __is_ready__(self) -> bool:
        """Tell BentoML's ``/readyz``: has a model been loaded, and has the store answered once?"""
        return await self.scorer.check_ready()

    def describe(self) -> dict[str, Any]:
        """Say who answers, what was refused, and how the store and the log are doing."""
        watcher, lineup, log = self.watcher, self.scorer.lineup, self.log.counts
        champion, rollout = lineup.champion, lineup.rollout
        return {
            "ready": champion is not None,
            "model_version": champion.version if champion else None,
            "model_kind": champion.artefact.spec.kind if champion else None,
            "model_versions_served": lineup.versions_served,
            "refused": watcher.refused._asdict() if watcher.refused else None,
            "rollout": asdict(rollout) if rollout else None,
            "rollout_refused": watcher.rollout_refused and watcher.rollout_refused._asdict(),
            "shadow": self.scorer.shadow.counts._asdict(),
            "registry_error": watcher.registry_error,
            "store_error": self.store.error,
            "breaker": self.store.breaker.state.name.lower(),
            "transactions": self.scorer.counts._asdict(),
            "prediction_log": log._asdict(),
            "publisher": self.publisher and self.publisher.counts._asdict(),
            "worker": os.getpid(),
        }

    def _publish(self) -> None:
        """Bring ``/metrics`` up to date."""
        breaker, champion = self.store.breaker, self.scorer.lineup.champion
        self.metrics.set_log(**self.log.counts._asdict())
        shadow = self.scorer.shadow.counts
        self.metrics.set_shadow(shadow.scored, failed=shadow.failed, dropped=shadow.dropped)
        if self.publisher is not None:
            published = self.publisher.counts
            self.metrics.set_published(published.published, dropped=published.dropped)
        self.metrics.set_breaker(
            "online_store",
            state=int(breaker.state),
            num_opened=breaker.num_entered[BreakerState.OPEN],
        )
        if champion is not None:
            self.metrics.set_model(champion.version)
        self.metrics.publish()

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Answer what was accepted, then write the last records."""
        async with AsyncExitStack() as last:  # in reverse; one that fails keeps no other from it
            last.callback(self.store.close)
            if self.tracer is not None:
                last.push_async_callback(asyncio.to_thread, self.tracer.close)
            last.push_async_callback(asyncio.to_thread, self.watcher.close)
            last.callback(self._publish)
            last.callback(self._publishing.cancel)
            if self.publisher is not None:
                last.push_async_callback(asyncio.to_thread, self.publisher.close)
            last.push_async_callback(asyncio.to_thread, self.log.close)
            last.push_async_callback(asyncio.to_thread, self.scorer.shadow.close)
            await self.scorer.drain()


def _choose_device(config: FraudConfig) -> Callable[[Artefact], Margins | None] | None:
    """Say how a model gets onto ``serving.device``; ``None`` if that is the CPU."""
    device = config.serving.device
    return None if device == "cpu" else partial(open_margins, device=device)


def _start_publisher(config: FraudConfig) -> StreamPublisher | None:
    """Open the stream that scored transactions go to, if they do."""
    if not config.serving.publish_scored:
        return None
    from features.fraud_stream import open_log
    from features.store import open_feature_store

    log = open_log(config.runs, open_feature_store(config.runs), config.stream)
    return StreamPublisher(log, max_pending=config.serving.publish_queue_rows)


class _Admin:
    """The routes below ``/admin``, which are made with the service."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await bentoml.get_current_service().admin(scope, receive, send)


async def _get_model(_: Request) -> JSONResponse:
    service = bentoml.get_current_service()
    return JSONResponse(service.describe())


def _find_lane() -> Lane | None:
    try:
        return cast("Lane", bentoml.get_current_service())
    except bentoml.exceptions.BentoMLException:  # it has not been made yet
        return None


class _LanedService(type(FraudService)):  # type: ignore[misc]
    """A BentoML service whose application answers the fast lane's routes itself."""

    __slots__ = ()

    def to_asgi(self, is_main: bool = True) -> FastLane:
        os.environ.setdefault("FORWARDED_ALLOW_IPS", "")  # nobody's word for who asks is taken
        serving = read_settings().serving
        if serving.lane == "parser" and not serving.trace_share:
            lane_protocol.install(_find_lane)
        return FastLane(super().to_asgi(is_main), _find_lane)


_service = cast("Any", FraudService)  # the decorator made it a bentoml.Service
_service.__class__ = _LanedService
_service.mount_asgi_app(
    Starlette(routes=[Route("/model", _get_model), Route("/admin/{rest:path}", _Admin())]),
    name="model",
)
_service.add_asgi_middleware(
    BodyLimitMiddleware, read_limit=lambda: read_settings().serving.max_body_bytes
)


def _to_message(answer: Answer) -> Prediction:
    return Prediction(
        transaction_id=answer.transaction_id,
        score=answer.score,
        decision=answer.decision,
        model_version=answer.model_version,
        reasons=None
        if answer.reasons is None
        else [
            Reason(feature=reason.feature, contribution=reason.contribution)
            for reason in answer.reasons
        ],
        degraded_reason=answer.degraded_reason,
    )


def _answer_unready(error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=503, headers={"Retry-After": "1"})


def _hush_bad_requests() -> None:
    """Keep clients' mistakes out of the log: BentoML writes a stack trace for each of them."""

    def is_ours(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], ValidationError))

    logging.getLogger("bentoml._internal.server.http_app").addFilter(is_ours)


def _hush_uvicorn() -> None:
    """Have uvicorn skip its access log, which it would write for each request and then drop."""
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
