"""What every section of a recipe shares: strictness, sources, and fields added later."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A frozen part of a recipe. Unknown keys are refused; validators raise and never mutate."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True, allow_inf_nan=False)


class SourceMarker:
    """Marks a field that names data outside the store: a path, or a hub id.

    Its value never enters an address. The fingerprint of what it names does, so that moving data
    changes nothing and new data changes the address.
    """


Source = Annotated[str, SourceMarker()]


def is_source(field: FieldInfo) -> bool:
    """Whether a field is a `Source` or `Source | None`; there the marker sits inside the union."""
    inner = [mark for member in get_args(field.annotation) for mark in getattr(member, "__metadata__", ())]
    return any(isinstance(mark, SourceMarker) for mark in [*field.metadata, *inner])


def added(neutral: Any, **field: Any) -> Any:
    """Declare a field that was added to a section after recipes were in use.

    Args:
        neutral: The value that means the old behaviour. While a recipe has it, the field is left
            out of the address, so products made before it existed are still found.
        field: Passed to `pydantic.Field`.
    """
    return Field(default=neutral, json_schema_extra={"neutral": neutral}, **field)
