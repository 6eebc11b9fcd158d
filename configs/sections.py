"""What can be set, section by section; a number's unit is in its name and its range in its type.

``configs/fraud.yaml`` says every value and what it means. Only changes of the world have defaults:
there are none, and one changes nothing that it does not name.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from configs.setting_types import Frozen, PositiveFloat, PositiveInt, RedisUrl, Share

MAX_LATENESS_SECONDS = 86_400
"""States keep a day more than the longest window: what comes later could not take its place."""


class WorldSize(Frozen):
    """How large a simulated world is."""

    num_customers: PositiveInt
    num_merchants: PositiveInt
    num_days: PositiveInt


class Change(Frozen):
    """How a world behaves differently; factors are relative to the unchanged world."""

    volume_factor: PositiveFloat = 1.0
    amount_factor: PositiveFloat = 1.0
    pattern_factors: dict[str, Annotated[float, Field(ge=0.0)]] = Field(default_factory=dict)


class WorldChange(Change):
    """A change from ``day`` on; of several, the latest alone describes the world."""

    day: Annotated[int, Field(ge=0)]


class DataSection(Frozen):
    """What the simulator draws and what the contract lets in."""

    start_time: AwareDatetime
    size: str
    sizes: dict[str, WorldSize]
    changes: tuple[WorldChange, ...] = ()
    label_delay_days: PositiveInt
    never_reported_share: Share
    max_quarantine_share: Share


class CostSection(Frozen):
    """What each outcome costs, in account currency; a missed fraud costs its own amount."""

    review_fee: Annotated[float, Field(ge=0.0)]
    false_decline_goodwill: Annotated[float, Field(ge=0.0)]
    daily_review_capacity: PositiveInt


class LeakSection(Frozen):
    """Ceilings above which a result is taken for a leak and the run stops."""

    max_average_precision: Share
    max_feature_importance_share: Share
    max_shuffled_auc_deviation: Share


class TrainingSection(Frozen):
    """The time-ordered split, the search and the networks' budget."""

    warm_up_days: Annotated[int, Field(ge=0)]
    train_days: PositiveInt
    calibration_days: PositiveInt
    test_days: PositiveInt
    num_folds: PositiveInt
    fold_days: PositiveInt
    num_trials: PositiveInt
    max_epochs: PositiveInt
    num_bootstrap: PositiveInt
    leaks: LeakSection
    costs: CostSection


class ServingSection(Frozen):
    """Where the service listens and scores, and how often it looks for a new champion."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    device: Literal["cpu", "cuda"]
    workers: PositiveInt
    model_poll_seconds: PositiveFloat
    max_body_bytes: PositiveInt
    max_batch_rows: PositiveInt
    log_flush_seconds: PositiveFloat
    log_queue_rows: PositiveInt
    publish_scored: bool
    publish_queue_rows: PositiveInt
    startup_timeout_seconds: PositiveFloat
    lane: Literal["parser", "asgi"]
    max_waiting_rows: PositiveInt
    store_deadline_ms: PositiveFloat
    merchant_refresh_ms: Annotated[float, Field(ge=0.0)]
    last_known_seconds: PositiveFloat
    breaker_failures: PositiveInt
    breaker_open_seconds: PositiveFloat
    trace_share: Share
    explore_share: Share


class StackSection(Frozen):
    """Servers of the ``stack`` profile; nothing here is read in the ``embedded`` one."""

    redis_url: RedisUrl
    log_redis_url: RedisUrl | None


class StreamSection(Frozen):
    """How transactions reach the windows, and what is too late to."""

    num_partitions: Annotated[int, Field(ge=1, le=256)]
    max_lateness_seconds: Annotated[float, Field(ge=0, le=MAX_LATENESS_SECONDS)]
    max_clock_skew_seconds: Annotated[float, Field(ge=0, le=3600)]
    batch_rows: PositiveInt
    wait_seconds: PositiveFloat
    gather_seconds: Annotated[float, Field(ge=0.0)]
    lease_seconds: PositiveFloat


class LadderSection(Frozen):
    """Rates that rise by a factor until the service cannot follow, and then a bisection."""

    first_rate: PositiveFloat
    factor: Annotated[float, Field(gt=1.0, le=10.0)]
    rung_seconds: PositiveFloat
    max_rungs: PositiveInt
    num_bisections: Annotated[int, Field(ge=0, le=20)]
    max_p99_ms: PositiveFloat
    min_achieved_share: Share
    max_error_share: Share


class LoadSection(Frozen):
    """A load run: what is sent, how fast, how long, and when its result is doubted."""

    num_requests: PositiveInt | None
    path: Annotated[str, Field(pattern="^/")]
    rate: PositiveFloat | None
    arrivals: Literal["poisson", "constant"]
    num_connections: PositiveInt
    processes: PositiveInt
    seconds: PositiveFloat
    warm_up_seconds: Annotated[float, Field(ge=0.0)]
    timeout_seconds: PositiveFloat
    interval_seconds: PositiveFloat
    rows: PositiveInt
    expect_rows: PositiveInt
    max_send_lag_ms: PositiveFloat
    ladder: LadderSection


class MonitoringSection(Frozen):
    """When to believe an alarm, and what a challenger must show."""

    window_days: PositiveInt
    min_rows: PositiveInt
    max_rows: PositiveInt
    num_reference_windows: PositiveInt
    false_alarm_rate: Share
    min_drifted_importance: Annotated[float, Field(gt=0.0, le=1.0)]
    max_null_share_increase: Share
    max_unit_ratio: Annotated[float, Field(gt=1.0)]
    max_duplicate_share: Share
    max_degraded_share: Share
    max_matured_average_precision_drop: Share
    max_matured_cost_increase: Annotated[float, Field(ge=0.0)]
    min_matured_frauds: PositiveInt
    gate_confidence: Share
    gate_margin: Share
    max_brier_increase: Annotated[float, Field(ge=0.0)]


class RetrainingSection(Frozen):
    """The loop of ``throughline fraud tick``: when to train, and how a challenger takes over."""

    database_url: str | None
    floor_days: PositiveFloat | None
    follow_up_days: PositiveFloat | None
    triggers: tuple[Literal["drift", "matured", "estimated"], ...]
    min_alarms: PositiveInt
    min_joint_alarms: PositiveInt
    num_recent: PositiveInt
    cooldown_days: Annotated[float, Field(ge=0.0)]
    budget: PositiveInt
    budget_days: PositiveFloat
    min_new_frauds: Annotated[int, Field(ge=0)]
    lease_seconds: PositiveFloat

    @model_validator(mode="after")
    def _check_alarms(self) -> Self:
        """Refuse a trigger that could never go off often enough."""
        if not self.min_joint_alarms <= self.min_alarms <= self.num_recent:
            raise ValueError(
                "a trigger must be able to go off so often: min_joint_alarms <= min_alarms <= "
                f"num_recent, not {self.min_joint_alarms}, {self.min_alarms} and {self.num_recent}"
            )
        return self


class RolloutSection(Frozen):
    """From a trained challenger to a champion that is watched."""

    gate: bool
    shadow_days: Annotated[float, Field(ge=0.0)]
    canary_shares: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...]
    canary_days: Annotated[float, Field(ge=0.0)]
    watch_days: Annotated[float, Field(ge=0.0)]
    max_wait_days: PositiveFloat
    max_latency_ratio: Annotated[float, Field(gt=1.0)]
    max_decline_ratio: Annotated[float, Field(gt=1.0)]
    max_decline_change: Share
    min_decline_ratio: Annotated[float, Field(ge=0.0, lt=1.0)]
    max_cost_increase: Annotated[float, Field(ge=0.0)]


class TimelapseSection(Frozen):
    """The worlds of ``throughline fraud timelapse``; days count from the first one served."""

    before_days: PositiveInt
    served_days: PositiveInt
    change_day: PositiveInt
    gradual_days: PositiveInt
    gradual: Change
    abrupt: Change
    broken_days: PositiveInt
    broken_column: str
    explore_share: Annotated[float, Field(gt=0.0, le=1.0)]
    look_every_days: PositiveInt
    max_rows: PositiveInt
    num_bootstrap: PositiveInt
    num_trees: PositiveInt
    witness_days: Annotated[int, Field(ge=0)]


class DemoSection(Frozen):
    """The demo's calendar and the change that its simulated world goes through."""

    serve_from: Share
    replay_days: PositiveInt
    late_days: PositiveInt
    change: Change
