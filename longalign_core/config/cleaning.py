"""Recipe section `cleaning`: what is removed across corpora."""

from __future__ import annotations

from pydantic import Field

from longalign_core.config.base import Section


class CleaningConfig(Section):
    """Removal across corpora."""

    exact_duplicates: bool = Field(
        default=True,
        description="Keep the first of documents that are equal but for case and white space.",
    )
