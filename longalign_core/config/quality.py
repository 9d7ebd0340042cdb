"""Which answers are kept, and how they are checked against the document."""

from __future__ import annotations

from longalign_core.config.base import Section


class QualityConfig(Section):
    """What makes an answer unusable."""


class GroundingConfig(Section):
    """A judge's check of answers against passages of the document."""
