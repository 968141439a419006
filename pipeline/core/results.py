"""What a run says: findings, measurements, asymmetries and the published document.

These models are the JSON that is published; their descriptions become its schema. A value that
could not be had is None and a reason stands beside it; there is no default zero.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.core.anatomy import Side

#: Version of the published document; grows when its meaning changes.
SCHEMA_VERSION = "1.0"

Millilitres = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Severity(StrEnum):
    """How much a finding matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Status(StrEnum):
    """What may be said of a muscle on one side."""

    OK = "ok"
    ABSENT = "absent"
    TRUNCATED = "truncated"
    UNRELIABLE = "unreliable"


class Verdict(StrEnum):
    """What a difference means."""

    WITHIN_ERROR = "within measurement error"
    MEASURABLE = "measurable"
    WITHIN_HEALTHY = "measurable, within healthy spread"
    OUTSIDE_HEALTHY = "outside healthy spread"


class Finding(_Model):
    """Something a stage noticed."""

    code: str = Field(description="Stable snake_case code.")
    severity: Severity = Field(description="info, warning or error.")
    stage: str = Field(description="Stage that noticed it.")
    message: str = Field(description="One or two sentences a user understands.")
    side: Side | None = Field(default=None, description="Side it is about; null = both or none.")
    value: float | None = Field(default=None, description="Measured value, in unit.")
    threshold: float | None = Field(default=None, description="Limit it was held against.")
    unit: str | None = Field(default=None, description="Unit of value and threshold.")


class ProfilePoint(_Model):
    """Area of a muscle at one level of the limb."""

    position: float = Field(description="Level along the limb, in position_unit of the side.")
    area_mm2: float = Field(ge=0, description="Cross-section across the limb axis, mm^2.")
    lean_area_mm2: float | None = Field(description="Lean part of the cross-section, mm^2.")


class Measurement(_Model):
    """A muscle or group on one side."""

    status: Status = Field(description="ok, absent, truncated or unreliable.")
    reason: str | None = Field(description="Why the status is not ok; null when it is.")
    volume_whole_ml: Millilitres | None = Field(
        description="Volume of the whole muscle, mL; null unless status is ok or unreliable."
    )
    volume_in_view_ml: Millilitres | None = Field(
        description="Volume of the part in the field of view, mL; null only when absent."
    )
    volume_matched_ml: Millilitres | None = Field(
        description="Volume of the part that both legs show, mL; null if there is none."
    )
    lean_volume_whole_ml: Millilitres | None = Field(
        description="Lean volume, sum of v(1 - FF), of the whole muscle, mL."
    )
    lean_volume_in_view_ml: Millilitres | None = Field(
        description="Lean volume of the part in the field of view, mL."
    )
    lean_volume_matched_ml: Millilitres | None = Field(
        description="Lean volume of the part that both legs show, mL."
    )
    lean_volume_core_ml: Millilitres | None = Field(
        description="In-view volume times (1 - core fat fraction), mL: not lowered by partial "
        "volume with the fat around the muscle."
    )
    fat_free_volume_in_view_ml: Millilitres | None = Field(
        description="Volume of the voxels in view with FF below the threshold (50 %), mL."
    )
    fat_volume_in_view_ml: Millilitres | None = Field(
        description="Fat volume, sum of v FF, of the part in view, mL."
    )
    fat_fraction_percent: float | None = Field(
        description="Mean fat fraction of the voxels in view, percent."
    )
    fat_fraction_core_percent: float | None = Field(
        description="Mean fat fraction away from the muscle's border, percent; not raised by "
        "partial volume with the fat around it. Null where the muscle is too thin for a core."
    )
    lean_reason: str | None = Field(
        description="Why lean volumes and fat fractions are null; null when they are given."
    )
    lean_estimate: str | None = Field(
        default=None,
        description="How lean volumes and fat fractions were estimated where water and fat were "
        "not both measured; null where they were, or where there are none. No verdict rests on "
        "an estimate.",
    )
    valid_share: Fraction | None = Field(
        description="Share of the labelled voxels with a defined fat fraction (0 to 1)."
    )
    matched_share: Fraction | None = Field(
        description="Matched volume divided by the volume in view (0 to 1)."
    )
    length_mm: float | None = Field(description="Extent in view along the limb axis, mm.")
    area_max_mm2: float | None = Field(description="Largest cross-section in view, mm^2.")
    confidence: Fraction | None = Field(
        description="Confidence of the segmentation, 0 to 1; null where the engine states none."
    )
    repeat_volume_ratios: tuple[float, ...] | None = Field(
        default=None,
        description="Volume when the leg is seen a little differently (noise, bias field, shifted "
        "pixels, tilt), divided by the undisturbed volume; one value a look, both legs alike; "
        "null where the engine states none.",
    )
    profile: tuple[ProfilePoint, ...] = Field(
        default=(), description="Cross-sections along the limb, hip to ankle."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        whole = (self.volume_whole_ml, self.lean_volume_whole_ml)
        if self.status in (Status.ABSENT, Status.TRUNCATED) and whole != (None, None):
            raise ValueError(f"a muscle that is {self.status} has no whole volume")
        if (self.status is Status.OK) != (self.reason is None):
            raise ValueError("every status but ok has a reason, and ok has none")
        if (self.volume_in_view_ml is None) != (self.status is Status.ABSENT):
            raise ValueError("the volume in view is null exactly when the muscle is absent")
        if self.status is Status.OK and self.volume_whole_ml is None:
            raise ValueError("a muscle that is ok has a whole volume")
        if self.volume_in_view_ml is not None and self.volume_in_view_ml <= 0:
            raise ValueError("a muscle without volume is absent, not 0 mL")
        if self.status is not Status.ABSENT and (self.lean_volume_in_view_ml is None) != (
            self.lean_reason is not None
        ):
            raise ValueError("a lean volume is given, or the reason why not")
        return self


class Asymmetry(_Model):
    """Difference between the sides: 100 (R - L) / ((R + L) / 2), + = right larger."""

    of: Literal["lean_volume", "total_volume"] = Field(description="What is compared.")
    extent: Literal["whole", "matched"] | None = Field(
        description="Whole muscle, or the part both legs show; null when nothing is comparable."
    )
    index_percent: float | None = Field(
        description="100 (R - L) / ((R + L) / 2), percent, + = right larger."
    )
    log_ratio: float | None = Field(description="ln(R / L).")
    smaller_over_larger: Fraction | None = Field(description="Smaller side divided by larger.")
    smaller_side: Side | None = Field(description="The smaller side; null if equal or unknown.")
    se_method_percent: float | None = Field(
        description="Standard error of 100 ln(R/L) from the method itself, percent."
    )
    se_total_percent: float | None = Field(
        description="Standard error of 100 ln(R/L) used for the interval, percent."
    )
    interval_low_percent: float | None = Field(description="Lower end of the 95 % interval.")
    interval_high_percent: float | None = Field(description="Upper end of the 95 % interval.")
    matched_share: Fraction | None = Field(
        description="Smaller of both sides' matched share of the volume in view (0 to 1)."
    )
    verdict: Verdict | None = Field(description="What the difference means; null with a reason.")
    reason: str | None = Field(description="Why there is no index or no verdict.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        numbers = (self.log_ratio, self.smaller_over_larger, self.extent)
        if any((n is None) != (self.index_percent is None) for n in numbers):
            raise ValueError("an asymmetry is given whole or not at all")
        if (self.verdict is None) != (self.reason is not None):
            raise ValueError("a verdict is given, or the reason why not")
        return self


class MuscleResult(_Model):
    """One muscle, both sides."""

    id: int = Field(description="Label id on the right side; left is id + 100.")
    name: str = Field(description="Name in the vocabulary.")
    region: str = Field(description="hip, thigh or leg.")
    compartment: str = Field(description="Anatomical compartment.")
    functional_group: str | None = Field(description="Functional group, if any.")
    right: Measurement
    left: Measurement
    asymmetry: Asymmetry = Field(description="Asymmetry of lean volume.")
    asymmetry_total_volume: Asymmetry = Field(description="Asymmetry of total volume.")
    healthy_limit_percent: float | None = Field(
        description="Published 95 % limit of total-volume asymmetry in healthy people, percent."
    )
    expected_volume_ml: float | None = Field(
        description="Reference volume for this height and mass, mL; it has no spread."
    )


class GroupResult(_Model):
    """Muscles taken together, both sides. A group counts only when its members count."""

    name: str = Field(description="Name of the group.")
    kind: str = Field(description="compartment, functional_group, pair or limb.")
    muscles: tuple[str, ...] = Field(description="All members.")
    muscles_compared: tuple[str, ...] = Field(description="Members seen on both sides.")
    right: Measurement
    left: Measurement
    asymmetry: Asymmetry = Field(description="Asymmetry of lean volume.")
    asymmetry_total_volume: Asymmetry = Field(description="Asymmetry of total volume.")
    healthy_limit_percent: float | None = Field(description="As for a muscle.")


class RatioResult(_Model):
    """A ratio between two groups on each side, e.g. hamstrings to quadriceps."""

    name: str = Field(description="Name of the ratio, numerator_to_denominator.")
    of: Literal["lean_volume", "total_volume"] = Field(description="What is divided.")
    right: float | None = Field(description="Ratio on the right.")
    left: float | None = Field(description="Ratio on the left.")
    reason: str | None = Field(description="Why a side is null; null when both are given.")


class PositionScale(_Model):
    """How levels along the limb are counted on one side."""

    unit: Literal["joints", "mm"] = Field(
        description="joints: hip 0, knee 1, ankle 2; mm: millimetres downwards from a reference."
    )
    reference: str = Field(description="Which joints, or which point, the levels count from.")
    hip_seen: bool
    knee_seen: bool
    ankle_seen: bool


class LimbMeasures(_Model):
    """Everything the measure stage computed."""

    muscles: tuple[MuscleResult, ...]
    groups: tuple[GroupResult, ...]
    ratios: tuple[RatioResult, ...]
    position_right: PositionScale
    position_left: PositionScale
    expected_flagged_by_chance: float | None = Field(
        description="How many of the judged muscles would exceed a 95 % limit by chance."
    )


class RegistrationQuality(_Model):
    """How well the mirrored left leg lies on the right one."""

    succeeded: bool
    reason: str | None = Field(description="Why it failed; null where it succeeded.")
    overlap_mean: Fraction | None = Field(description="Mean Dice over muscles, after.")
    overlap_before_mean: Fraction | None = Field(description="The same before registration.")
    overlap: dict[str, float] = Field(description="Dice by structure, after.")
    surface_distance_mm: dict[str, float] = Field(description="Mean boundary distance, mm.")
    inverse_error_mm: float | None = Field(description="Median error of there and back, mm.")


class EngineUsed(_Model):
    """Who made the labels."""

    name: str
    version: str
    digest: str = Field(description="sha256 of the weights or of the given label file.")
    note: str = Field(description="First line of the report about the labels.")


class Provenance(_Model):
    """What was run on what."""

    software: str
    software_version: str
    code_digest: str = Field(description="sha256 over the package's source.")
    python_version: str
    libraries: dict[str, str] = Field(description="Version by library.")
    configuration_digest: str = Field(description="sha256 of the configuration used.")
    configuration: dict[str, object] = Field(description="The configuration used.")
    inputs: dict[str, str] = Field(description="sha256 by input file, relative to the subject.")


class Measures(_Model):
    """The published document: <subject>_measures.json."""

    schema_version: str = Field(default=SCHEMA_VERSION, description="Version of this schema.")
    subject: str = Field(description="Subject label with its prefix.")
    session: str | None = Field(description="Session label with its prefix, or null.")
    contrasts: tuple[str, ...] = Field(description="Images that were used.")
    grid: str = Field(description="Shape and voxel size of the scan.")
    side_evidence: tuple[str, ...] = Field(description="What the sides rest on.")
    interval_basis: str = Field(description="What the 95 % intervals contain, in words.")
    engine: EngineUsed
    registration: RegistrationQuality
    measures: LimbMeasures
    findings: tuple[Finding, ...]
    provenance: Provenance
