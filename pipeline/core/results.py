"""What a run says: findings, measurements, asymmetries and the published document.

These models are the JSON that is published; their descriptions become its schema. A value that
could not be had is None and a reason stands beside it; there is no default zero.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.core.anatomy import Side

#: Version of the published document; grows when its meaning changes.
SCHEMA_VERSION = "2.7"

Millilitres = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
#: Code of the finding that says what the anatomy knows of the sides; it is evidence of them too.
SIDES_FROM_ANATOMY = "sides_from_anatomy"
#: Code of the finding whose value is the size, against an adult's, at which legs were read.
UNUSUAL_SIZE = "unusual_size"
#: Code of the finding that labels are those that both legs agreed on, not each leg's own.
CONSENSUS = "labels_are_consensus"
#: Codes of what became of the T1 bias of fat fractions.
T1_BIAS_CORRECTED = "t1_bias_corrected"
T1_BIAS_NEGLIGIBLE = "t1_bias_negligible"
T1_BIAS_LEFT = "t1_bias_left"
T1_BIAS_UNKNOWN = "t1_bias_unknown"
#: Codes of what was done to the images before they were measured.
STATIONS_JOINED = "stations_joined"
SWAP_CORRECTED = "fat_water_swap_corrected"
#: Codes of the findings that say what of a subject's folder is not used.
LEFT_OUT = "left_out"
STATION_INCOMPLETE = "station_incomplete"

#: Which volume is compared.
Of = Literal["lean_volume", "total_volume"]
#: Which volume, and the asymmetry of it, stands first.
Lead = Of
#: How much of a muscle is compared: all of it, or the part that both legs show.
Extents = Literal["whole", "matched"]


def volume_field(of: Of, extent: Extents | Literal["in_view"]) -> str:
    """Name of the field of a Measurement that holds a volume."""
    return f"{'lean_volume' if of == 'lean_volume' else 'volume'}_{extent}_ml"


class Record(BaseModel):
    """A part of a published document: read-only, and no field but those described."""

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
    NOT_SURELY_OUTSIDE = "measurable, not surely outside healthy spread"
    OUTSIDE_HEALTHY = "outside healthy spread"


class Finding(Record):
    """Something a stage noticed."""

    code: str = Field(description="Stable snake_case code.")
    severity: Severity = Field(description="info, warning or error.")
    stage: str = Field(description="Stage that noticed it.")
    message: str = Field(description="One or two sentences a user understands.")
    side: Side | None = Field(default=None, description="Side it is about; null = both or none.")
    value: float | None = Field(default=None, description="Measured value, in the unit beside it.")
    threshold: float | None = Field(
        default=None, description="Limit it was held against, in the unit beside it."
    )
    unit: str | None = Field(default=None, description="Unit of value and threshold.")


class ProfilePoint(Record):
    """Area of a muscle at one level of the limb."""

    position: float = Field(
        description="Level along the limb, in the unit of the side's position scale."
    )
    area_mm2: float = Field(ge=0, description="Cross-section across the limb axis, mm^2.")
    lean_area_mm2: float | None = Field(description="Lean part of the cross-section, mm^2.")


class Measurement(Record):
    """A muscle or group on one side."""

    status: Status = Field(description="ok, absent, truncated or unreliable.")
    reason: str | None = Field(description="Why the status is not ok; null when it is.")
    doubt: str | None = Field(
        default=None,
        description="Where the status is truncated: why nothing is concluded from the part in view "
        "either, as of an unreliable muscle; null where there is no such doubt.",
    )
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
        description="Volume of the voxels in view with FF below a threshold (50 % as shipped; "
        "measure.fat_free_below_percent), mL."
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
        description="Matched volume divided by the volume in view (0 to 1); how much of the whole "
        "muscle is in view is not known where both legs are cut."
    )
    matched_cut_upper_mm2: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Cross-section at which the matched part ends above because the other leg is "
        "not shown further, mm^2, of all parts together where a gap in the scan parts it; 0 where "
        "it ends by itself, null where there is no matched part.",
    )
    matched_cut_lower_mm2: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="The same below, mm^2."
    )
    counting_se_percent: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Standard error of 100 ln(volume) because slices stand for the whole muscle, "
        "percent; null where there is none.",
    )
    se_repeat_percent: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Standard error of 100 ln(volume) of this side alone from one scan of the same "
        "person to the next, percent: what both sides do alike is in it, as it is not in the error "
        "of their difference; null when absent.",
    )
    fat_fraction_se_repeat_points: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Standard error of the fat fraction from one scan of the same person to the "
        "next, points; null where it was not measured.",
    )
    length_mm: float | None = Field(description="Extent in view along the limb axis, mm.")
    area_max_mm2: float | None = Field(description="Largest cross-section in view, mm^2.")
    confidence: Fraction | None = Field(
        description="Confidence of the segmentation, 0 to 1; lowered on both sides alike where the "
        "labels of left and right disagree by more than the difference in volume; null where the "
        "engine states none."
    )
    repeat_volume_ratios: tuple[float, ...] | None = Field(
        default=None,
        description="Volume when the leg is seen a little differently (noise, bias field, shifted "
        "pixels, tilt), divided by the undisturbed volume; without unit, one value a look, both "
        "legs alike; null where the engine states none.",
    )
    profile: tuple[ProfilePoint, ...] = Field(
        default=(), description="Cross-sections along the limb, hip to ankle."
    )

    def volume_ml(self, of: Of, extent: Extents | Literal["in_view"]) -> float | None:
        """Lean or total volume of the whole, of the part in view or of the part in both legs."""
        value: float | None = getattr(self, volume_field(of, extent))
        return value

    @property
    def fat_fraction_error_of_lean_percent(self) -> float:
        """Standard error of 100 ln(lean volume) that the fat fraction's own leaves; 0 without one.

        d ln(V (1 - FF)) = -dFF / (1 - FF).
        """
        if self.fat_fraction_se_repeat_points is None or self.fat_fraction_percent is None:
            return 0.0
        return 100.0 * self.fat_fraction_se_repeat_points / (100.0 - self.fat_fraction_percent)

    @property
    def why_doubted(self) -> str | None:
        """Why nothing is concluded from it, whether it is whole or cut; None where it may be."""
        return self.reason if self.status is Status.UNRELIABLE else self.doubt

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.doubt is not None and self.status is not Status.TRUNCATED:
            raise ValueError("only of a truncated muscle a doubt is told beside the reason")
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


class Asymmetry(Record):
    """Difference between the sides: 100 (R - L) / ((R + L) / 2), + = right larger."""

    of: Of = Field(description="What is compared.")
    extent: Extents | None = Field(
        description="Whole muscle, or the part both legs show; null when nothing is comparable."
    )
    index_percent: float | None = Field(
        description="100 (R - L) / ((R + L) / 2), percent, + = right larger."
    )
    log_ratio: float | None = Field(description="ln(R / L), a number without unit.")
    smaller_over_larger: Fraction | None = Field(
        description="Smaller side divided by larger (0 to 1)."
    )
    smaller_side: Side | None = Field(description="The smaller side; null if equal or unknown.")
    se_method_percent: float | None = Field(
        description="Standard error of 100 ln(R/L) from the method itself, percent."
    )
    se_total_percent: float | None = Field(
        description="Standard error of 100 ln(R/L) used for the interval, percent."
    )
    interval_low_percent: float | None = Field(
        description="Lower end of the 95 % interval of the index, percent."
    )
    interval_high_percent: float | None = Field(
        description="Upper end of the 95 % interval of the index, percent."
    )
    matched_share: Fraction | None = Field(
        description="Smaller of both sides' matched share of the volume in view (0 to 1)."
    )
    verdict: Verdict | None = Field(
        description="What the difference means; null with a reason. Outside the healthy spread "
        "only if the whole interval, and that of total volume, which limits are of, lie beyond the "
        "limit on the same side; not surely outside it where one of the two lies beyond the limit "
        "and not surely both. Measurable, and no more, where there is no limit, or where lean "
        "volume surely lies beyond it and total volume does not."
    )
    reason: str | None = Field(description="Why there is no index or no verdict.")
    caveats: tuple[str, ...] = Field(
        default=(),
        description="Codes of the findings that say what of this scan may fake such a difference; "
        "a verdict is to be read with them.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        numbers = (self.log_ratio, self.smaller_over_larger, self.extent)
        if any((n is None) != (self.index_percent is None) for n in numbers):
            raise ValueError("an asymmetry is given whole or not at all")
        if (self.verdict is None) != (self.reason is not None):
            raise ValueError("a verdict is given, or the reason why not")
        return self


class MatchedLevel(Record):
    """Both sides of a muscle at one matched level of the limb."""

    position_right: float = Field(description="Level on the right, in the unit of position_right.")
    position_left: float = Field(description="Level on the left, in the unit of position_left.")
    area_right_mm2: float = Field(
        ge=0, description="Cross-section across the right limb's own axis, mm^2."
    )
    area_left_mm2: float = Field(
        ge=0, description="Cross-section across the left limb's own axis, mm^2."
    )
    length_right_mm: float = Field(gt=0, description="Length of this level on the right, mm.")
    length_left_mm: float = Field(gt=0, description="Length of this level on the left, mm.")
    log_ratio: float | None = Field(
        description="ln(right / left) of the areas, without unit; null where it is too thin."
    )


class ThirdDifference(Record):
    """A third of a muscle, by length between its matched ends."""

    name: Literal["proximal", "middle", "distal"] = Field(description="Which third.")
    position_from: float | None = Field(
        description="Upper end, mean of both sides' levels, in the unit of position_right; null "
        "where the sides count levels differently."
    )
    position_to: float | None = Field(description="Lower end, in the unit of position_from.")
    volume_right_ml: Millilitres = Field(description="Volume of it on the right, mL.")
    volume_left_ml: Millilitres = Field(description="Volume of it on the left, mL.")
    index_percent: float | None = Field(
        description="100 (R - L) / ((R + L) / 2) of its mean cross-section, percent; null where a "
        "side has nothing there."
    )
    half_width_percent: Annotated[float, Field(ge=0)] | None = Field(
        description="Half width of the 95 % interval around index_percent, percent: the muscle's "
        "own standard error times the root of 3, as for thirds that are drawn independently, and "
        "the error of where the ends of the third lie; null without index_percent."
    )
    points: float = Field(
        description="Its part of the muscle's difference: 100 (R - L) of its volume over the mean "
        "volume of the muscle, in the unit percentage points; the three add up to the muscle."
    )


class LargestDifference(Record):
    """The level of a muscle at which its cross-sections differ most in mm^2."""

    name: str = Field(description='Where it is, e.g. "vastus medialis, distal third".')
    third: Literal["proximal", "middle", "distal"] = Field(description="Third it lies in.")
    position: float | None = Field(
        description="Mean of both sides' levels, in the unit of position_right; null where the "
        "sides count levels differently."
    )
    log_ratio: float | None = Field(
        description="ln(right / left) of the areas there, without unit."
    )
    stands_out: bool = Field(
        description="Whether the difference of that third lies beyond its 95 % interval around 0; "
        "otherwise the place means nothing."
    )


class LocalDifference(Record):
    """Where along a muscle the sides differ, at matched levels."""

    of: Of | None = Field(description="What is compared; null when nothing could be.")
    extent: Extents | None = Field(
        description="Of the whole muscle, or of the part both legs show; null when of nothing."
    )
    levels: tuple[MatchedLevel, ...] = Field(description="Matched levels, hip to ankle.")
    thirds: tuple[ThirdDifference, ...] = Field(description="Proximal, middle, distal; or none.")
    largest: LargestDifference | None = Field(description="Where the difference is largest.")
    sum_points: float | None = Field(
        description="All levels taken together: 100 (R - L) over the mean volume, points; agrees "
        "with the muscle's own difference of the same volume."
    )
    band_half_width_percent: float | None = Field(
        description="Half width of the 95 % band around 100 log_ratio from the muscle's own "
        "method error, percent."
    )
    band_reason: str | None = Field(description="Why there is no band; null when there is one.")
    reason: str | None = Field(description="Why there are no levels; null when there are.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = (self.of, self.extent, self.sum_points, self.largest)
        if any((g is None) != (self.reason is not None) for g in given):
            raise ValueError("a local difference is given whole, or the reason why not")
        if bool(self.levels) != (self.reason is None) or len(self.thirds) not in (0, 3):
            raise ValueError("a local difference has levels and three thirds, or a reason")
        if (self.band_half_width_percent is None) != (self.band_reason is not None):
            raise ValueError("a band is given, or the reason why not")
        return self


class MuscleResult(Record):
    """One muscle, both sides."""

    id: int = Field(description="Label value on the right side in the label map; left is id + 100.")
    name: str = Field(description="Name in the vocabulary.")
    region: str = Field(description="hip, thigh or leg.")
    compartment: str = Field(description="Anatomical compartment.")
    functional_group: str | None = Field(description="Functional group, if any.")
    right: Measurement = Field(description="Measured on the right.")
    left: Measurement = Field(description="Measured on the left.")
    asymmetry: Asymmetry = Field(description="Asymmetry of lean volume.")
    asymmetry_total_volume: Asymmetry = Field(description="Asymmetry of total volume.")
    local_difference: LocalDifference = Field(description="Where along it the sides differ.")
    healthy_limit_percent: float | None = Field(
        description="95 % limit of total-volume asymmetry in healthy people, percent: published, "
        "or of the user's own cohort (measure.own_limits_percent of the configuration)."
    )
    healthy_limit_people: int | None = Field(
        description="Count of the people the limit comes from; null without one, or not stated."
    )
    healthy_limit_half_width_percent: float | None = Field(
        description="Half width of the 95 % interval of the limit itself, percent: what so few "
        "people leave open; null without a limit, or where it is not known."
    )
    expected_volume_ml: float | None = Field(
        description="Reference volume for this height and mass, mL, published or of the user's "
        "own cohort; it has no spread."
    )


class GroupResult(Record):
    """Muscles taken together, both sides. A group counts only when its members count."""

    name: str = Field(description="Name of the group.")
    kind: str = Field(
        description="compartment, functional_group, pair, limb, or union (labelled as one)."
    )
    muscles: tuple[str, ...] = Field(description="All members.")
    muscles_compared: tuple[str, ...] = Field(description="Members seen on both sides.")
    right: Measurement = Field(description="Measured on the right.")
    left: Measurement = Field(description="Measured on the left.")
    asymmetry: Asymmetry = Field(description="Asymmetry of lean volume.")
    asymmetry_total_volume: Asymmetry = Field(description="Asymmetry of total volume.")
    healthy_limit_percent: float | None = Field(
        description="95 % limit of total-volume asymmetry in healthy people, percent, as for a "
        "muscle."
    )
    healthy_limit_people: int | None = Field(
        description="Count of the people the limit comes from; null without one, or not stated."
    )
    healthy_limit_half_width_percent: float | None = Field(
        description="Half width of the 95 % interval of the limit itself, percent: what so few "
        "people leave open; null without a limit, or where it is not known."
    )


#: What is held against its other side: a muscle, or muscles taken together.
Compared = MuscleResult | GroupResult


def on_side(result: Compared, side: Side) -> Measurement:
    """What was measured of a muscle or group on a side."""
    return result.right if side is Side.RIGHT else result.left


def leading(result: Compared, lead: Lead) -> Asymmetry:
    """The asymmetry of a muscle or group that is of the volume which leads."""
    return result.asymmetry if lead == "lean_volume" else result.asymmetry_total_volume


class RatioResult(Record):
    """A ratio between two groups on each side, e.g. hamstrings to quadriceps."""

    name: str = Field(description="Name of the ratio, numerator_to_denominator.")
    of: Of = Field(description="What is divided.")
    right: float | None = Field(description="Ratio on the right, a number without unit.")
    left: float | None = Field(description="Ratio on the left, a number without unit.")
    reason: str | None = Field(
        description="Why a side is null, or why nothing may be concluded from it."
    )


class PositionScale(Record):
    """How levels along the limb are counted on one side."""

    unit: Literal["joints", "mm"] = Field(
        description="joints: hip 0, knee 1, ankle 2; mm: millimetres downwards from a reference."
    )
    reference: str = Field(description="Which joints, or which point, the levels count from.")
    hip_seen: bool = Field(description="Whether the hip joint is in view.")
    knee_seen: bool = Field(description="Whether the knee joint is in view.")
    ankle_seen: bool = Field(description="Whether the ankle joint is in view.")

    def counts_like(self, other: PositionScale) -> bool:
        """Whether levels count from the same reference in the same unit: only then they have a
        mean, and one axis to be drawn on."""
        return (self.unit, self.reference) == (other.unit, other.reference)


class LimbMeasures(Record):
    """Everything the measure stage computed."""

    muscles: tuple[MuscleResult, ...] = Field(
        description="Every muscle of the vocabulary, in its order, found or not."
    )
    groups: tuple[GroupResult, ...] = Field(
        description="Compartments, functional groups, the limb, and muscles labelled as one."
    )
    ratios: tuple[RatioResult, ...] = Field(description="Ratios between groups.")
    position_right: PositionScale = Field(description="How levels are counted on the right.")
    position_left: PositionScale = Field(description="How levels are counted on the left.")
    expected_flagged_by_chance: float | None = Field(
        description="Count of the judged muscles whose 95 % interval would leave out 0, or whose "
        "difference would lie beyond a 95 % limit, by chance alone."
    )

    @property
    def compared(self) -> tuple[Compared, ...]:
        """Every muscle, then every group."""
        return (*self.muscles, *self.groups)

    @property
    def caveats(self) -> frozenset[str]:
        """Codes of what may fake a difference between the sides."""
        return frozenset(
            code
            for result in self.compared
            for asymmetry in (result.asymmetry, result.asymmetry_total_volume)
            for code in asymmetry.caveats
        )

    @property
    def looked_at_again(self) -> bool:
        """Whether the error of the labels is told, of any muscle, by how far they move when both
        legs are disturbed; else intervals hold how well slices stand for a muscle in its place."""
        return any(
            m.right.repeat_volume_ratios is not None and m.left.repeat_volume_ratios is not None
            for m in self.muscles
        )

    @property
    def lead(self) -> Lead:
        """Lean volume, or total volume where no muscle has a lean asymmetry that is more than an
        estimate."""
        some = any(
            m.asymmetry.index_percent is not None
            and not (m.right.lean_estimate or m.left.lean_estimate)
            for m in self.muscles
        )
        return "lean_volume" if some else "total_volume"


class RegistrationQuality(Record):
    """How well the mirrored left leg lies on the right one."""

    succeeded: bool = Field(description="Whether the match of the legs can be relied on.")
    reason: str | None = Field(description="Why it failed; null where it succeeded.")
    overlap_mean: Fraction | None = Field(
        description="Mean Dice overlap over muscles after registration (0 to 1)."
    )
    overlap_before_mean: Fraction | None = Field(
        description="Mean Dice overlap over muscles before registration (0 to 1)."
    )
    overlap: dict[str, float] = Field(
        description="Dice overlap by structure after registration (0 to 1)."
    )
    disagreement_ml: dict[str, float] = Field(
        description="Label disagreement by structure after registration, mL: volume that belongs "
        "to it in one leg only, left labels carried to the right leg and right ones to the left, "
        "mean of both. It holds true differences of the legs: it is not an error."
    )
    outside_share: dict[str, float] = Field(
        description="Share of the smaller side's label by structure that lies outside the larger "
        "side's, carried over, mean of both directions (0 to 1): disagreement that a difference in "
        "volume does not explain."
    )
    surface_distance_mm: dict[str, float] = Field(
        description="Mean distance by structure between the border of one side and that of the "
        "other, carried over, mm: the band within which left and right place the border."
    )
    inverse_error_mm: float | None = Field(description="Median error of there and back, mm.")
    folded_voxels: int | None = Field(
        description="Count of places that the deformation turns inside out; 0 in a success."
    )
    similar_image: str | None = Field(description="Image the similarity is of; null without one.")
    similarity: float | None = Field(
        description="Correlation of that image at corresponding points, after; without unit."
    )
    similarity_before: float | None = Field(
        description="The same before registration, without unit."
    )


class EngineUsed(Record):
    """Who made the labels."""

    name: str = Field(description="Name of the engine.")
    version: str = Field(description="Version of the engine.")
    digest: str = Field(
        description="sha256 of the weights, or of the labels of both legs that were given."
    )
    note: str = Field(description="First line of the report about the labels.")


class Provenance(Record):
    """What was run on what."""

    software: str = Field(description="Name of this program.")
    software_version: str = Field(description="Its version.")
    code_digest: str = Field(description="sha256 over the package's source.")
    python_version: str = Field(description="Version of the interpreter.")
    libraries: dict[str, str] = Field(description="Version by library.")
    configuration_digest: str = Field(description="sha256 of the configuration used.")
    configuration: dict[str, object] = Field(description="The configuration used.")
    inputs: dict[str, str] = Field(description="sha256 of each input, by what it was taken for.")


class ScannerSettings(Record):
    """How one contrast was acquired, as headers or the JSON file beside the image state it."""

    field_t: float | None = Field(
        description="Field strength, in the unit tesla; null where it is not stated, or not the "
        "same in all stations."
    )
    repetition_ms: float | None = Field(
        description="Repetition time, in the unit ms; null likewise."
    )
    flip_deg: float | None = Field(description="Flip angle, in the unit degrees; null likewise.")

    def describe(self) -> str:
        """The settings in words with their units, and which of them are not known.

        To three digits: scanners round the same setting differently behind them.
        """
        settings = (
            ("field strength", self.field_t, "T"),
            ("repetition time", self.repetition_ms, "ms"),
            ("flip angle", self.flip_deg, "degrees"),
        )
        said = [
            f"{name} {float(f'{value:.3g}'):g} {unit}"
            for name, value, unit in settings
            if value is not None
        ]
        missing = [name for name, value, _ in settings if value is None]
        if missing:
            said.append(f"{' and '.join(missing)} not known")
        return ", ".join(said)


class Measures(Record):
    """The published document: <subject>_measures.json."""

    model_config = ConfigDict(
        json_schema_extra={"$id": f"urn:myosymmetry:measures:{SCHEMA_VERSION}"}
    )

    schema_version: str = Field(
        default=SCHEMA_VERSION,
        description="Version of this schema.",
        json_schema_extra={"const": SCHEMA_VERSION},
    )
    subject: str = Field(description="Subject label with its prefix.")
    session: str | None = Field(description="Session label with its prefix, or null.")
    contrasts: tuple[str, ...] = Field(description="Images that were used.")
    grid: str = Field(description="Shape and voxel size of the scan.")
    scanner_settings: dict[str, ScannerSettings] = Field(
        default_factory=dict,
        description="How each contrast was acquired, by its name in contrasts; empty for labels "
        "alone.",
    )
    side_evidence: tuple[str, ...] = Field(description="What the sides rest on.")
    interval_basis: str = Field(description="What the 95 % intervals contain, in words.")
    engine: EngineUsed = Field(description="Who made the labels.")
    registration: RegistrationQuality = Field(
        description="How well the mirrored left leg lies on the right one."
    )
    measures: LimbMeasures = Field(description="The numbers.")
    findings: tuple[Finding, ...] = Field(description="What the stages noticed, in their order.")
    provenance: Provenance = Field(description="What was run on what.")

    def describe_scanner_settings(self) -> str | None:
        """How the images were acquired, once where all contrasts say the same; None for labels
        alone."""
        said = {name: one.describe() for name, one in sorted(self.scanner_settings.items())}
        if len(set(said.values())) == 1:
            return next(iter(said.values()))
        return " / ".join(f"{name}: {text}" for name, text in said.items()) or None

    @field_validator("schema_version")
    @classmethod
    def _this_version(cls, value: str) -> str:
        if value != SCHEMA_VERSION:
            raise ValueError(
                f"results of schema {value}; this program reads {SCHEMA_VERSION}, "
                "process the subject again"
            )
        return value
