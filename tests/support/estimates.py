"""What tests of detectors' estimates share."""

from __future__ import annotations

from tests.support.small_detectors import (
    masked,
    one_stage,
    two_stage,
    with_keypoints,
)

KINDS = [two_stage, one_stage, masked, with_keypoints]
