"""The fraud service: HTTP requests become decisions, each one recorded (see ``serving.scorer``).

``throughline fraud serve`` runs it, as does ``bentoml serve serving.fraud:FraudService``
and a configuration's path in ``THROUGHLINE_CONFIG``. Importing this module reads nothing; the
constructor of the class does, once per worker.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import bentoml
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from configs.schema import DEFAULT_FRAUD_CONFIG, FraudConfig, load_fraud_config
from data.fraud_columns import TRANSACTION_COLUMNS
from serving.body_limit import BodyLimitMiddleware
from serving.fraud_messages import (
    PredictBatchRequest,
    PredictBatchResponse,
    Prediction,
    PredictRequest,
    Reason,
    Transaction,
    build_transactions,
    check_extra,
    refuse,
    shorten,
)
from serving.online_features import OnlineFeatures
from serving.prediction_log import PredictionLog, get_prediction_folder
from serving.rollout import ChampionWatcher
from serving.scorer import Answer, NoModelError, Scorer, list_extra_columns

if TYPE_CHECKING:
    from starlette.requests import Request

CONFIG_VARIABLE = "THROUGHLINE_CONFIG"
RUNS_VARIABLE = "THROUGHLINE_RUNS"
PROBE = Transaction(
    transaction_id="readiness-probe",
    event_time=datetime(2026, 1, 1, tzinfo=UTC),
    customer_id="readiness-probe",
    amount=1.0,
)


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


# One scoring thread (BentoML's default): Feast's SQLite reader is not meant for several, and
# pandas holds the interpreter lock anyway. More cores are used by more workers.
@bentoml.service(threads=1, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class FraudService:
    """Score card transactions as of their own time, with the registry's current champion."""

    def __init__(self) -> None:
        # Imported here because BentoML's supervising process imports this module too, and needs
        # neither Feast nor MLflow.
        from features.store import get_stamp_file, open_feature_store, read_online_features
        from training.artefact import load_artefact
        from training.registry import get_champion

        config = read_settings()
        _hush_bad_requests()
        store = OnlineFeatures(
            open_store=lambda: open_feature_store(config.runs),
            read=read_online_features,
            stamp_file=get_stamp_file(config.runs),
        )
        self.max_batch_rows = config.serving.max_batch_rows
        self.extra = list_extra_columns(store.feature_set, contract=TRANSACTION_COLUMNS)
        self.log = PredictionLog(
            get_prediction_folder(config.runs),
            feature_set=store.feature_set,
            flush_seconds=config.serving.log_flush_seconds,
            max_pending=config.serving.log_queue_rows,
        )
        self.scorer = Scorer(
            read_features=store.read,
            feature_set=store.feature_set,
            record=self.log.append,
            probe=build_transactions([PROBE], extra=self.extra),
        )
        self.watcher = ChampionWatcher(
            find_champion=lambda: get_champion(config.runs),
            load_artefact=load_artefact,
            feature_set=store.feature_set,
            accept=self.scorer.replace_champion,
            poll_seconds=config.serving.model_poll_seconds,
        )
        self.watcher.start()

    @bentoml.api(route="/predict", output_spec=Prediction)
    def predict(self, request: PredictInput, /) -> Prediction | JSONResponse:
        """Score one transaction."""
        check_extra(request.transaction, field=("transaction",), extra=self.extra)
        try:
            return self._score([request.transaction], explain=request.explain)[0]
        except NoModelError as error:
            return _answer_unready(error)

    @bentoml.api(route="/predict_batch", output_spec=PredictBatchResponse)
    def predict_batch(self, request: PredictBatchInput, /) -> PredictBatchResponse | JSONResponse:
        """Score several transactions with one model, each as of its own time."""
        rows = len(request.transactions)
        if rows > self.max_batch_rows:
            reason = f"has {rows} rows; at most {self.max_batch_rows} are allowed"
            raise refuse(("transactions",), reason)
        for position, transaction in enumerate(request.transactions):
            check_extra(transaction, field=("transactions", position), extra=self.extra)
        try:
            predictions = self._score(request.transactions, explain=request.explain)
        except NoModelError as error:
            return _answer_unready(error)
        return PredictBatchResponse(predictions=predictions)

    def _score(self, messages: list[Transaction], *, explain: bool) -> list[Prediction]:
        transactions = build_transactions(messages, extra=self.extra)
        return [_to_message(answer) for answer in self.scorer.score(transactions, explain=explain)]

    def __is_ready__(self) -> bool:
        """Tell BentoML's ``/readyz``: has a model been loaded, and has the store answered once?"""
        return self.scorer.is_ready()

    def describe(self) -> dict[str, Any]:
        """Say which model answers, what was refused, and how the store and the log are doing."""
        watcher, champion, log = self.watcher, self.scorer.champion, self.log.counts
        return {
            "ready": self.scorer.is_ready(),
            "model_version": champion.version if champion else None,
            "model_kind": champion.artefact.spec.kind if champion else None,
            "model_versions_served": self.scorer.versions_served,
            "refused": watcher.refused._asdict() if watcher.refused else None,
            "registry_error": watcher.registry_error,
            "store_error": self.scorer.store_error,
            "transactions": self.scorer.counts._asdict(),
            "prediction_log": log._asdict(),
            "worker": os.getpid(),
        }

    @bentoml.on_shutdown
    def close(self) -> None:
        """Stop watching and write the last records."""
        self.watcher.close()
        self.log.close()


async def _get_model(_: Request) -> JSONResponse:
    service = bentoml.get_current_service()
    return JSONResponse(service.describe())


_service = cast("Any", FraudService)  # the decorator made it a bentoml.Service
_service.mount_asgi_app(Starlette(routes=[Route("/model", _get_model)]), name="model")
_service.add_asgi_middleware(
    BodyLimitMiddleware, read_limit=lambda: read_settings().serving.max_body_bytes
)


def _to_message(answer: Answer) -> Prediction:
    reasons = answer.reasons
    return Prediction(
        transaction_id=answer.transaction_id,
        score=answer.score,
        decision=answer.decision,
        model_version=answer.model_version,
        reasons=None
        if reasons is None
        else [Reason(feature=name, contribution=value) for name, value in reasons],
        degraded_reason=answer.degraded_reason,
    )


def _answer_unready(error: NoModelError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=503, headers={"Retry-After": "1"})


def _hush_bad_requests() -> None:
    """Keep clients' mistakes out of the log: BentoML writes a stack trace for each of them."""

    def is_ours(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], ValidationError))

    logging.getLogger("bentoml._internal.server.http_app").addFilter(is_ours)
