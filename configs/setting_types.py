"""What settings are made of: numbers with their range, and sections that cannot be changed.

A value out of range and a key that is not known are errors, and never a guess.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
RedisUrl = Annotated[str, Field(pattern=r"^redis://[^/@]+:\d+(/\d+)?$")]


class Frozen(BaseModel):
    """A section of the configuration: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
