"""The methods say what was run on this scan, and nothing that was not."""

from __future__ import annotations

import pytest
from factories import make_measures

from pipeline.config import default_config
from pipeline.core.results import Finding, Measures, ScannerSettings, Severity
from pipeline.measuring.document import interval_basis
from pipeline.report.methods import methods_of

CONFIG = default_config().measure


def finding(code: str, value: float | None = None) -> Finding:
    return Finding(code=code, severity=Severity.INFO, stage="any", message=code, value=value)


def text_of(measures: Measures, lead: str = "lean_volume") -> str:
    return " ".join(methods_of(measures, lead).paragraphs)


def with_sides(measures: Measures, **fields: object) -> Measures:
    muscles = tuple(
        m.model_copy(update={s: getattr(m, s).model_copy(update=fields) for s in ("right", "left")})
        for m in measures.measures.muscles
    )
    limb = measures.measures.model_copy(update={"muscles": muscles})
    return measures.model_copy(update={"measures": limb})


def with_configuration(measures: Measures, **section: object) -> Measures:
    used = measures.provenance.model_copy(update={"configuration": {"measure": section}})
    return measures.model_copy(update={"provenance": used})


def test_only_voxels_of_the_scan_itself_are_called_not_resampled():
    single, joined = (
        text_of(make_measures(findings=f)) for f in ((), (finding("stations_joined", 3.0),))
    )
    assert "without resampling" in single
    assert "stations" not in single
    assert "3 stations were joined" in joined
    assert "interpolated" in joined
    assert "without resampling" not in joined


def test_scanner_settings_are_told_in_words_with_their_units():
    plain = make_measures()
    assert "Scanner settings" not in text_of(plain)
    stated = ScannerSettings(field_t=2.8936, repetition_ms=1234.5, flip_deg=None)
    same = plain.model_copy(update={"scanner_settings": {"water": stated, "fat": stated}})
    words = "field strength 2.89 T, repetition time 1230 ms, flip angle not known"
    assert f"Scanner settings, as the files state them: {words}." in text_of(same)
    other = stated.model_copy(update={"flip_deg": 12.0})
    apart = plain.model_copy(update={"scanner_settings": {"water": stated, "T1w": other}})
    assert f"water: {words}" in text_of(apart)
    assert "flip angle 12 degrees / water:" in text_of(apart)
    nothing = ScannerSettings(field_t=None, repetition_ms=None, flip_deg=None)
    unknown = text_of(plain.model_copy(update={"scanner_settings": {"water": nothing}}))
    assert "field strength and repetition time and flip angle not known." in unknown


@pytest.mark.parametrize(
    ("code", "said", "never"),
    [
        ("t1_bias_corrected", "fat / (fat + g water)", "fat / (fat + water)"),
        ("t1_bias_unknown", "was not corrected", "g water"),
        ("t1_bias_left", "was left", "g water"),
        ("t1_bias_negligible", "is small", "g water"),
    ],
)
def test_the_fat_fraction_is_the_one_that_was_computed(code, said, never):
    text = text_of(make_measures(findings=(finding(code),)))
    assert said in text
    assert never not in text


def test_a_given_fraction_an_estimate_and_none_at_all_are_told_apart():
    plain = make_measures(findings=())
    given = text_of(plain.model_copy(update={"contrasts": ("fatfraction",)}))
    assert "taken as given" in given
    assert "fat / (fat" not in given
    guess = "lean volume is an estimate from the T1w image alone"
    estimated = with_configuration(
        with_sides(plain, lean_estimate=guess), lean_estimate_se_percent=10.0
    )
    text = text_of(estimated.model_copy(update={"contrasts": ("T1w",)}), "total_volume")
    assert guess in text
    assert "10 % is added to their standard error" in text
    assert "fat / (fat" not in text
    none = text_of(make_measures(single_contrast=True), "total_volume")
    assert "Lean volume is the sum" not in none


def test_swaps_consensus_and_registration_are_told_where_they_happened():
    plain = text_of(make_measures(findings=()))
    assert "exchanged" not in plain
    assert "consensus of the labels" not in plain
    assert "smooth deformation" in plain
    codes = ("fat_water_swap_corrected", "labels_are_consensus")
    text = text_of(make_measures(findings=tuple(finding(code) for code in codes)))
    assert "they were exchanged back" in text
    assert "consensus of the labels" in text
    failed = make_measures(registered=False)
    assert failed.registration.reason in text_of(failed)
    assert "smooth deformation" not in text_of(failed)


def test_published_and_own_cohorts_are_each_credited_with_what_is_theirs():
    plain = make_measures()
    published = methods_of(plain, "lean_volume")
    assert "in 21 healthy young adults" in text_of(plain)
    assert "Handsfield" in published.expected
    assert sum("Handsfield" in r or "36:963" in r for r in published.references) == 2
    named = [m.name for m in plain.measures.muscles]
    named += [g.name for g in plain.measures.groups]
    own = with_configuration(
        plain,
        own_limits_percent=dict.fromkeys(named, 9.0),
        own_expected_volumes_ml={name: {} for name in named},
    )
    found = methods_of(own, "lean_volume")
    assert "Healthy limits are those of your own cohort" in text_of(own)
    assert "Handsfield" not in found.expected
    assert "without a spread" not in found.expected
    assert not any("Handsfield" in r or "36:963" in r for r in found.references)
    one = with_configuration(
        plain, own_limits_percent={"soleus": 9.0}, own_expected_volumes_ml={"soleus": {}}
    )
    found = methods_of(one, "lean_volume")
    assert "your own cohort (configuration) for soleus, for the others" in found.expected
    assert sum("Handsfield" in r or "36:963" in r for r in found.references) == 2


def test_intervals_name_disturbed_looks_only_where_there_were_any_and_the_term_of_an_estimate():
    """Given labels and a T1 image: the method's error is that of the estimate alone."""
    plain = make_measures().measures
    text = interval_basis(plain, CONFIG)
    assert "a few slices stand for the whole muscle" in text
    # Two muscles of it are cut, so that a part of them is compared.
    assert "end of one leg's view" in text
    whole = plain.model_copy(update={"muscles": plain.muscles[6:20]})
    assert "end of one leg's view" not in interval_basis(whole, CONFIG)
    estimated = with_sides(make_measures(), lean_estimate="a guess").measures
    se = CONFIG.lean_estimate_se_percent
    text = interval_basis(estimated, CONFIG)
    assert "disturbed" not in text
    assert f"a further standard error of {se:g} %" in text
    looked = with_sides(make_measures(), repeat_volume_ratios=(1.0, 1.01, 0.99)).measures
    text = interval_basis(looked, CONFIG)
    assert "disturbed" in text
    assert "further" not in text
