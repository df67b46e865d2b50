"""What a setting is made of: types with their limits, and a meaning for people."""

from __future__ import annotations

import os
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LARGEST = 2**63 - 1
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
NonNegative = Annotated[int, Field(ge=0, le=LARGEST)]
Fraction = Annotated[float, Field(ge=0, le=1)]

# `~` is the home folder, in a file as in a shell.
PathText = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]


def says(meaning: str, **limits: Any) -> Any:
    """A field's meaning, shown by `suder train --help-config`, and the limits of its value."""
    return Field(description=meaning, **limits)


class Section(BaseModel):
    """Strict on purpose: `lr: "1e-4"` or a misspelt key is an error before any work is done."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
