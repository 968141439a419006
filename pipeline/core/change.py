"""What a follow-up says: earlier and later scans of one person, and what changed between them.

These models are the JSON that `myosymmetry compare` publishes; their descriptions become its
schema. A value that could not be had is None and a reason stands beside it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from pipeline.core.results import Finding, Of, Record

#: Version of the document; grows when its meaning changes.
CHANGE_SCHEMA_VERSION = "1.0"


class ChangeVerdict(StrEnum):
    """What a change between two scans means."""

    NONE = "no detectable change"
    INCREASED = "increased"
    DECREASED = "decreased"


class _Change(Record):
    verdict: ChangeVerdict | None = Field(
        description="Whether the change is larger than the detectable one; null with a reason."
    )
    reason: str | None = Field(description="Why there is no change or no verdict.")

    @model_validator(mode="after")
    def _verdict_or_reason(self) -> Self:
        if (self.verdict is None) != (self.reason is not None):
            raise ValueError("a verdict is given, or the reason why not")
        return self


class VolumeChange(_Change):
    """Change of a whole muscle's volume on one side."""

    before_ml: float | None = Field(ge=0, description="Volume in the first scan, mL.")
    after_ml: float | None = Field(ge=0, description="Volume in the later scan, mL.")
    change_percent: float | None = Field(
        description="100 (after - before) / before, percent, + = larger later."
    )
    interval_low_percent: float | None = Field(
        description="Lower end of the 95 % interval of the change, percent."
    )
    interval_high_percent: float | None = Field(
        description="Upper end of the 95 % interval of the change, percent."
    )
    detectable_percent: float | None = Field(
        description="Smallest detectable change, 95 %, of 100 ln(after / before), percent."
    )


class PointsChange(_Change):
    """Change of a quantity that is itself in percent: a fat fraction, or an asymmetry."""

    before_percent: float | None = Field(description="Value in the first scan, percent.")
    after_percent: float | None = Field(description="Value in the later scan, percent.")
    change_points: float | None = Field(
        description="after - before, in points (percent minus percent)."
    )
    detectable_points: float | None = Field(description="Smallest detectable change, 95 %, points.")


class MuscleChange(Record):
    """One muscle or group, first scan against a later one."""

    name: str = Field(description="Name of the muscle or group.")
    kind: str = Field(description="muscle, compartment, functional_group, pair, limb or union.")
    volume_right: VolumeChange = Field(description="Change of the volume on the right.")
    volume_left: VolumeChange = Field(description="Change of the volume on the left.")
    fat_fraction_right: PointsChange = Field(description="Change of the fat fraction, right.")
    fat_fraction_left: PointsChange = Field(description="Change of the fat fraction, left.")
    asymmetry: PointsChange = Field(
        description="Change of 100 (R - L) / ((R + L) / 2); + = towards a larger right side."
    )


class ComparedScan(Record):
    """One of the scans, in the order of time."""

    label: str = Field(description="Session label, or its number in the order given.")
    session: str | None = Field(description="Session label with its prefix, or null.")
    results_digest: str = Field(description="sha256 of the results that were compared.")
    contrasts: tuple[str, ...] = Field(description="Images that were used.")
    grid: str = Field(description="Shape and voxel size of the scan.")
    engine: str = Field(description="Name and version of what made the labels.")
    software_version: str = Field(description="Version of this program that measured.")
    code_digest: str = Field(description="sha256 over the source of the program that measured.")


class ScanChanges(Record):
    """All changes of one later scan against the first one."""

    scan: int = Field(ge=1, description="Count of the later scan in scans; the first is 0.")
    changes: tuple[MuscleChange, ...] = Field(description="Muscles, then groups.")
    muscles_judged: int = Field(ge=0, description="Count of muscles with a verdict on a volume.")
    muscles_changed: int = Field(
        ge=0, description="Count of muscles whose volume changed detectably on a side."
    )
    expected_by_chance: float | None = Field(
        description="Count of single volumes that would seem changed by chance alone (5 %)."
    )


class Changes(Record):
    """The document of a follow-up: <subject>_..._change.json."""

    model_config = ConfigDict(
        json_schema_extra={"$id": f"urn:myosymmetry:change:{CHANGE_SCHEMA_VERSION}"}
    )

    schema_version: str = Field(
        default=CHANGE_SCHEMA_VERSION,
        description="Version of this schema.",
        json_schema_extra={"const": CHANGE_SCHEMA_VERSION},
    )
    subject: str = Field(description="Subject label with its prefix.")
    of: Of = Field(description="Which volume and asymmetry are compared.")
    basis: str = Field(description="What the detectable changes rest on, in words.")
    scans: tuple[ComparedScan, ...] = Field(description="The scans, first to last.")
    later: tuple[ScanChanges, ...] = Field(description="Each later scan against the first.")
    findings: tuple[Finding, ...] = Field(
        description="What makes the scans less comparable, in a fixed order."
    )

    @field_validator("schema_version")
    @classmethod
    def _this_version(cls, value: str) -> str:
        if value != CHANGE_SCHEMA_VERSION:
            raise ValueError(
                f"changes of schema {value}; this program reads {CHANGE_SCHEMA_VERSION}"
            )
        return value
