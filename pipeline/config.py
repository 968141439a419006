"""The configuration: frozen models without defaults; pipeline/default.yaml holds every value."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from pipeline.core.anatomy import GROUPS, MUSCLES
from pipeline.core.errors import ConfigError
from pipeline.core.frozen import FrozenDict
from pipeline.core.scan import GIVEN
from pipeline.core.volume import Quantity

#: Key of the file name endings of label maps, beside those of images.
LABELS = "labels"

DEFAULT_PATH = Path(__file__).with_name("default.yaml")
#: What is kept of a label scheme that the user named by a path.
MAPPING_FILE = "a mapping file"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
#: 200 is what an asymmetry index can be at most.
Index = Annotated[float, Field(gt=0, lt=200)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    """A section of the configuration; nothing in it can be changed.

    Of the keys in each row of `_ascending` none is larger than the next.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    _ascending: ClassVar[tuple[tuple[str, ...], ...]] = ()

    @model_validator(mode="after")
    def _mappings_are_frozen(self) -> Self:
        # One default serves every run of a process.
        for key, value in self.__dict__.items():
            if isinstance(value, dict):
                self.__dict__[key] = FrozenDict(value)
        return self

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        for keys in self._ascending:
            values = [getattr(self, key) for key in keys]
            if values != sorted(values):
                raise ValueError(f"none larger than the next: {', '.join(keys)}")
        return self


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from error
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]


def _only(values: dict[str, Any], known: Iterable[str], expected: str) -> dict[str, Any]:
    """Values whose keys are all known; expected says in words what those are."""
    unknown = sorted(values.keys() - set(known))
    if unknown:
        raise ValueError(f"{expected}; unknown: {', '.join(unknown)}")
    return values


class ContrastRule(_Section):
    """What images of a vendor show, by their header.

    Attributes:
        shows: name of the contrast.
        image_type: parts of ImageType from the third on, lower case, any of which says so.
        name: regular expression on the series' name (lower case, words parted by blanks).
        last_word: last words of the name of a Dixon series, any of which says so.
    """

    shows: Literal["water", "fat", "inphase", "opposedphase", "fatfraction", "T1w", "other"]
    image_type: frozenset[str] = frozenset()
    name: Pattern = ""
    last_word: frozenset[str] = frozenset()

    @field_serializer("image_type", "last_word")
    def _in_order(self, words: frozenset[str]) -> list[str]:
        """Sets have another order in every process; digests of a configuration must not."""
        return sorted(words)


class DistortionMark(_Section):
    """A private DICOM element that says whether the distortion of the gradients was corrected.

    Attributes:
        creator: its private creator.
        group, element: its odd group, and its number in the creator's block (0 to 0xff).
        value: regular expression on its value (lower case, several values parted by blanks).
        corrected: what it says where the value fits.
    """

    creator: str
    group: Annotated[int, Field(ge=0x0009, le=0xFFFF)]
    element: Annotated[int, Field(ge=0, le=0xFF)]
    value: Pattern
    corrected: bool

    @field_validator("group")
    @classmethod
    def _private(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("an odd group: others hold no private elements")
        return value


class LoadConfig(_Section):
    """Finding and reading files."""

    patterns: dict[str, tuple[str, ...]]
    station_pattern: Pattern
    own_dicom_contrasts: dict[Pattern, tuple[ContrastRule, ...]]
    dicom_contrasts: dict[Pattern, tuple[ContrastRule, ...]]
    own_distortion_marks: tuple[DistortionMark, ...]
    distortion_marks: tuple[DistortionMark, ...]
    affine_tolerance_mm: Positive
    largest_image_million_voxels: Positive

    @field_validator("patterns")
    @classmethod
    def _known_images(cls, values: dict[str, Any]) -> dict[str, Any]:
        known = [*map(str, Quantity), LABELS]
        return _only(values, known, f"keys among {', '.join(known)}")

    @property
    def contrast_rules(self) -> list[tuple[str, tuple[ContrastRule, ...]]]:
        """What DICOM images show, by manufacturer: the user's own rules are asked first."""
        return [*self.own_dicom_contrasts.items(), *self.dicom_contrasts.items()]


class RelaxationTimes(_Section):
    """T1 of tissues at a field strength."""

    field_t: Positive
    muscle_ms: Positive
    fat_ms: Positive


class CanonicaliseConfig(_Section):
    """One grid, cropped to the lower limbs."""

    _ascending = (("usual_signal_ratio", "largest_signal_ratio"),)

    same_grid_tolerance_mm: Positive
    longest_lower_limb_mm: Positive
    shortest_whole_body_mm: Positive
    hip_margin_mm: Positive
    search_voxel_mm: Positive
    noise_multiple: Positive
    usual_signal_ratio: Annotated[float, Field(gt=1)]
    largest_signal_ratio: Annotated[float, Field(gt=1)]
    largest_joined_million_voxels: Positive
    largest_fat_step_points: Positive
    lowest_outline_overlap: Share
    correct_t1_bias: bool
    t1_by_field: tuple[RelaxationTimes, ...]
    same_field_t: Positive
    smallest_t1_bias_points: Positive
    largest_chemical_shift_mm: Positive


class SeparateConfig(_Section):
    """Two legs."""

    _ascending = (
        ("smallest_leg_difference", "usual_leg_difference"),
        ("crossing_apart_share", "crossing_cut_share"),
    )

    margin_mm: Positive
    search_voxel_mm: Positive
    smallest_leg_share: Share
    largest_share_on_other_side: Share
    smallest_leg_difference: Positive
    usual_leg_difference: Positive
    largest_midline_offset_mm: Positive
    largest_brightness_ratio: Annotated[float, Field(gt=1)]
    largest_foot_offset_mm: Positive
    dimmest_level_share: Share
    dimmest_level_ratio: Share
    largest_valley_share: Share
    crossing_cut_share: Share
    crossing_apart_share: Share
    shortest_crossing_mm: Positive
    largest_ghost_share: Share


class EmbeddedConfig(_Section):
    """The embedded network: what it is shown, and what of its answer is kept."""

    level_mm: Positive
    margin_mm: Positive
    batch_slices: Annotated[int, Field(ge=1)]
    smoothing_mm: Positive
    above_knee_reach_mm: Positive
    below_knee_reach_mm: Positive
    hip_above_knee_mm: Positive
    above_crest_reach_mm: Positive
    bridge_mm: Positive
    smallest_piece_share: Share
    largest_gap_mm: Positive
    continued_gap_mm: Positive
    largest_hole_mm2: Positive
    smallest_muscle_ml: Positive
    perturbations: Annotated[int, Field(ge=1)]
    look_shifts_pixels: Annotated[tuple[tuple[float, float], ...], Field(min_length=1)]
    look_every_mm: Positive
    look_by_turns_mm: Positive
    confidence_every_mm: Positive
    noise_share: Share
    bias_share: Share
    shift_pixels: Positive
    tilt_deg: Positive
    pose_levels: Annotated[int, Field(ge=1)]
    pose_margin: Share
    pose_certainty: Share
    body_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)]
    body_size_levels: Annotated[int, Field(ge=1)]
    body_size_margin: Share


class SegmentConfig(_Section):
    """Labels."""

    _ascending = (("lowest_told_confidence", "lowest_leg_confidence"),)

    engine: str
    label_scheme: str
    fat_border_percent: Annotated[float, Field(gt=0, lt=100)]
    thick_fat_mm: Positive
    smallest_muscle_share: Share
    lowest_leg_confidence: Share
    lowest_told_confidence: Share
    smallest_share_with_bone: Share
    largest_unexplained_share: Positive
    smallest_border_ridge: Positive
    embedded: EmbeddedConfig


class RegisterConfig(_Section):
    """Left onto right."""

    _ascending = (("lowest_overlap", "weak_overlap"),)

    working_voxel_mm: Positive
    blunt_end_share: Share
    knee_blend_mm: Positive
    flow_node_mm: Positive
    flow_smoothing_mm: Positive
    lowest_overlap: Share
    weak_overlap: Share
    largest_inverse_error_mm: Positive
    largest_folded_voxels: Annotated[int, Field(ge=0)]
    largest_boundary_distance_mm: Positive


class ReconcileConfig(_Section):
    """A consensus of both legs' labels."""

    consensus: bool
    consensus_reach_mm: Positive


class ExpectedVolume(_Section):
    """A muscle's volume by body size: slope_ml_per_m_kg x height x mass + intercept_ml."""

    slope_ml_per_m_kg: float
    intercept_ml: float


class MeasureConfig(_Section):
    """Volumes and asymmetry."""

    _ascending = (("usual_outside_share", "largest_outside_share"),)

    lowest_confidence: Share
    usual_outside_share: Annotated[float, Field(ge=0, lt=1)]
    largest_outside_share: Share
    fat_free_below_percent: Annotated[float, Field(gt=0, le=100)]
    core_margin_voxels: Positive
    smallest_core_share: Share
    largest_invalid_share: Share
    largest_noise_floor_percent: Positive
    largest_noise_floor_difference_points: Positive
    largest_fat_brightness_ratio: Annotated[float, Field(gt=1)]
    blunt_end_share: Share
    broken_off_share: Share
    broken_off_step_mm: Positive
    largest_gap_share: Share
    gap_area_share: Share
    largest_edge_share: Share
    edge_reach_mm: Positive
    largest_cut_share: Share
    void_reach_mm: Positive
    smallest_void_mm: Positive
    darkest_rim_share: Share
    darkest_rim_ratio: Share
    leanest_rim_share: Share
    leanest_rim_ratio: Share
    profile_step_mm: Positive
    local_step_mm: Positive
    smallest_area_share: Share
    lean_estimate_se_percent: Positive
    scan_rescan_cv_percent: Positive
    fat_fraction_cv_percent: Positive
    method_error_gain: Positive
    method_error_floor_percent: Positive
    method_error_of_100_ml_percent: Positive
    method_error_hip_factor: Positive
    method_error_of_fat_percent: Positive
    level_error_mm: Positive
    level_error_slices: Positive
    smallest_matched_share: Share
    largest_volume_factor: Annotated[float, Field(gt=1)]
    smallest_reference_ml: Positive
    largest_side_factor: Annotated[float, Field(gt=1)]
    largest_found_side_factor: Annotated[float, Field(gt=1)]
    fewest_whole_muscles: Annotated[int, Field(ge=1)]
    own_limits_percent: dict[str, Index]
    own_limits_people: dict[str, Annotated[int, Field(ge=2)]]
    own_limits_se_percent: dict[str, Index]
    own_expected_volumes_ml: dict[str, ExpectedVolume]

    @field_validator(
        "own_limits_percent",
        "own_limits_people",
        "own_limits_se_percent",
    )
    @classmethod
    def _known_structures(cls, values: dict[str, Any]) -> dict[str, Any]:
        known = [*(m.name for m in MUSCLES), *(g.name for g in GROUPS)]
        return _only(values, known, "names of muscles or groups")

    @field_validator("own_expected_volumes_ml")
    @classmethod
    def _known_muscles(cls, values: dict[str, Any]) -> dict[str, Any]:
        # What is expected of a group is the sum of its muscles.
        return _only(values, [m.name for m in MUSCLES], "names of muscles")


class CompareConfig(_Section):
    """Changes between scans of one person."""

    smallest_fat_fraction_change_points: Positive
    largest_noise_floor_change_points: Positive


class ReportConfig(_Section):
    """What the report shows."""

    context: bool
    largest_differences: Annotated[int, Field(ge=1, le=30)]
    asymmetry_scale_percent: Positive
    picture_dpi: Annotated[int, Field(ge=50, le=300)]
    picture_levels: Annotated[int, Field(ge=1, le=12)]
    fat_fraction_scale_percent: Annotated[float, Field(gt=0, le=100)]


class GroupConfig(_Section):
    """Results of many people together; never decides the results of one."""

    smallest_cell_people: Annotated[int, Field(ge=2)]
    fewest_cohort_people: Annotated[int, Field(ge=3)]
    percentiles: Annotated[tuple[Annotated[float, Field(gt=0, lt=100)], ...], Field(min_length=1)]
    outlier_distance: Positive


class Config(_Section):
    """The whole configuration, one section a stage."""

    load: LoadConfig
    canonicalise: CanonicaliseConfig
    separate: SeparateConfig
    segment: SegmentConfig
    register_: RegisterConfig = Field(alias="register")
    reconcile: ReconcileConfig
    measure: MeasureConfig
    compare: CompareConfig
    report: ReportConfig
    group: GroupConfig


def ready_schemes() -> dict[str, Path]:
    """Mapping files of the label schemes that come with the package, by name."""
    folder = Path(__file__).with_name("io") / "schemes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


@cache
def default_config() -> Config:
    """The configuration as shipped."""
    return Config.model_validate(_read_yaml(DEFAULT_PATH))


def load_config(path: Path | None = None, *, overrides: dict[str, Any] | None = None) -> Config:
    """The default configuration with the values of a file, then of overrides, in their place.

    Args:
        path: a YAML file that needs only the keys it changes, at any depth; an empty list takes
            an entry out of use. None: the default alone.
        overrides: nested mapping of the same form, e.g. {"segment": {"engine": "given"}}.

    Raises:
        ConfigError: unreadable file, unknown key (with the nearest known one), bad value.
    """
    shipped = _read_yaml(DEFAULT_PATH)
    values = copy.deepcopy(shipped)
    where = str(path) if path else "the command line"
    if path is not None:
        _merge(values, _read_yaml(path), shipped, where=where, trail=())
    if overrides:
        _merge(values, overrides, shipped, where="the command line", trail=())
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"The configuration value {key} cannot be used",
            expected=first["msg"],
            found=repr(first.get("input")),
            action=f"correct {key} in {where}; configs/default.yaml explains every key",
        ) from error


def with_given_labels(config: Config, scheme: str) -> Config:
    """The configuration with labels made elsewhere in place of the configured engine."""
    section = config.segment.model_copy(update={"engine": GIVEN, "label_scheme": scheme})
    return config.model_copy(update={"segment": section})


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"The configuration file {path} cannot be read",
            expected="a YAML file this user may read",
            found=error.strerror or str(error),
            action="check the path given to --config",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The configuration file {path} is not YAML",
            expected="sections such as 'measure:' with keys below them",
            found=" ".join(str(error).split()),
            action="start from a copy of configs/default.yaml",
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"The configuration file {path} holds no sections",
            expected="sections such as 'measure:' with keys below them",
            found=type(values).__name__,
            action="start from a copy of configs/default.yaml",
        )
    return values


def _merge(
    base: dict[str, Any],
    changes: dict[str, Any],
    shipped: dict[str, Any],
    *,
    where: str,
    trail: tuple[str, ...],
    otherwise: str = "remove it",
) -> None:
    """Put changes into base in place; every key must be among those shipped.

    Args:
        base: values so far, changed in place.
        changes: nested values that take their place.
        shipped: what the default says there.
        where, trail: file and section, for messages.
        otherwise: what to do about a key that resembles none.
    """
    for key, value in changes.items():
        name = ".".join((*trail, str(key)))
        if key not in shipped:
            near = difflib.get_close_matches(str(key), [str(k) for k in shipped], n=1)
            raise ConfigError(
                f"Unknown configuration key {name} in {where}",
                expected=f"one of {', '.join(str(k) for k in shipped)}",
                found=str(key),
                action=f"write {near[0]}, if that is what was meant" if near else otherwise,
            )
        if not all(isinstance(at, dict) for at in (shipped[key], base[key], value)):
            base[key] = value
        elif not shipped[key]:
            # A mapping that is empty as shipped is the user's to fill, with keys of any name.
            base[key] = {**base[key], **value}
        else:
            own = f"own_{key}"
            _merge(
                base[key],
                value,
                shipped[key],
                where=where,
                trail=(*trail, str(key)),
                otherwise=f"put it below {own}, or remove it" if own in shipped else "remove it",
            )
