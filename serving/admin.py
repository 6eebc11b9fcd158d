"""Requests with the operator's token move the champion, forward or back, while the service runs.

``POST /admin/swap`` with ``{"version": "3"}``, ``POST /admin/rollback`` and ``GET /admin/status``,
each with ``Authorization: Bearer <token>``. The alias and the rollout in the registry are all they
move: every worker finds them within ``serving.model_poll_seconds``, as it finds a promotion by
anybody else. A rollback while there is a rollout ends that, and the champion stays.

======  ===========================================================================================
status  what it means
======  ===========================================================================================
200     done; the answer names the champion before and after, and the rollout that was ended
400     the body is not ``{"version": "<number>"}``
401     no token, or a wrong one; nothing else is told
404     the service was started without a token, so that there are no such routes
409     refused, and nothing has changed: no such version, its files are damaged, no way back
503     the registry or the audit cannot be read or written now; ask ``/admin/status`` what holds
======  ===========================================================================================
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from serving.champion_changes import Change, roll_back_champion, swap_champion

if TYPE_CHECKING:
    from starlette.requests import Request

logger = logging.getLogger("bentoml.throughline")

TOKEN_VARIABLE = "THROUGHLINE_ADMIN_TOKEN"
MIN_TOKEN_LENGTH = 16
MAX_BODY_BYTES = 1024


class SwapRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /admin/swap``."""

    version: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,8}$")]


def read_admin_token(environment: Mapping[str, str]) -> str | None:
    """Read the operator's token; ``None`` if there is none, and so no administration.

    Raises:
        ValueError: If it is too short to be a secret.
    """
    token = environment.get(TOKEN_VARIABLE)
    if token is not None and len(token) < MIN_TOKEN_LENGTH:
        raise ValueError(
            f"{TOKEN_VARIABLE} has {len(token)} characters; it needs at least {MIN_TOKEN_LENGTH}: "
            "take one from `openssl rand -hex 16`, or unset it to have no /admin"
        )
    return token


def build_admin_routes(
    runs: Path, *, token: str | None, folder: Path, describe: Callable[[], Mapping[str, Any]]
) -> list[Route]:
    """Build the routes below ``/admin``; without a token each answers 404.

    Args:
        runs: Output folder, with the registry.
        token: From ``read_admin_token``.
        folder: Where the audit is written.
        describe: Says what this worker serves, for ``/admin/status``.
    """

    async def swap(request: Request) -> Response:
        try:
            wanted = msgspec.json.decode(await _read_body(request), type=SwapRequest)
        except (msgspec.MsgspecError, ValueError) as error:
            return _refuse(400, str(error))
        who = _name_caller(request)
        return await _change(
            lambda: swap_champion(runs, version=wanted.version, folder=folder, who=who)
        )

    async def roll_back(request: Request) -> Response:
        who = _name_caller(request)
        return await _change(lambda: roll_back_champion(runs, folder=folder, who=who))

    async def show_status(_: Request) -> Response:
        try:
            aliases = await run_in_threadpool(_read_aliases, runs)
        except Exception as error:  # noqa: BLE001 - as in _change
            return _say_unavailable(error)
        return JSONResponse({**aliases, "worker": describe()})

    def guard(endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            if token is None:
                return PlainTextResponse("Not Found", status_code=404)
            if not _is_allowed(request, token):
                headers = {"WWW-Authenticate": "Bearer"}
                return JSONResponse({"error": "unauthorized"}, status_code=401, headers=headers)
            answered: Response = await endpoint(request)
            return answered

        return answer

    # The methods are checked behind the token: 405 would tell that there is such a route.
    return [
        Route("/admin/swap", guard(_only("POST", swap)), methods=ANY_METHOD),
        Route("/admin/rollback", guard(_only("POST", roll_back)), methods=ANY_METHOD),
        Route("/admin/status", guard(_only("GET", show_status)), methods=ANY_METHOD),
    ]


ANY_METHOD = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]


def _only(method: str, endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        if request.method != method:
            return JSONResponse(
                {"error": f"use {method}"}, status_code=405, headers={"Allow": method}
            )
        answered: Response = await endpoint(request)
        return answered

    return answer


def _is_allowed(request: Request, token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # As bytes, as they came: compare_digest takes no text beyond ASCII.
    is_same = hmac.compare_digest(given.strip().encode("latin-1"), token.encode())
    return scheme.lower() == "bearer" and is_same


async def _read_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"the body is larger than {MAX_BODY_BYTES} bytes")
    return body


def _name_caller(request: Request) -> str:
    return request.client.host if request.client else "unknown"


async def _change(change: Callable[[], Change]) -> Response:
    """Move the champion in a thread: loading a model takes long enough to hold up every request."""
    try:
        done = await run_in_threadpool(change)
    except (ValueError, FileNotFoundError) as error:
        return _refuse(409, " ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 - the registry may fail in many ways, none with a 500
        return _say_unavailable(error)
    return JSONResponse(done.describe())


def _read_aliases(runs: Path) -> dict[str, str | None]:
    from training.registry import CHALLENGER, CHAMPION, PREVIOUS, find_version, get_rollout

    rollout = get_rollout(runs)
    found: dict[str, str | None] = {"rollout": None if rollout is None else str(rollout)}
    return found | {alias: find_version(runs, alias) for alias in (CHAMPION, PREVIOUS, CHALLENGER)}


def _refuse(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status)


def _say_unavailable(error: Exception) -> Response:
    logger.error("/admin: %s: %s", type(error).__name__, error)
    return JSONResponse(
        {"error": "the registry or the audit cannot be used now; the service's log has the reason"},
        status_code=503,
        headers={"Retry-After": "1"},
    )
