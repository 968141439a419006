"""Where muscles run in the phantom: levels, azimuths and depths.

Levels count hip 0, knee 1, ankle 2; azimuths in degrees: 0 front, 90 outer side, 180 back,
270 inner side; depth 0 at the centre of the limb, 1 at its fascia.

Levels of largest area along the thigh: Rigakuryohogaku 21(3) (sartorius 67, gracilis 65,
semimembranosus 50, biceps 35, vastus lateralis 67, intermedius 56, medialis 26, rectus 68,
adductors 73 % of the thigh's length above the knee). Attachments and calf origins: derived
figures for hip centre to knee (vastus lateralis from 4 %, adductor brevis to 30 %, longus to
53 %, magnus to 97 %, gluteus maximus to 36 %, hamstrings to 107-121 %; soleus from 36 %, flexor
digitorum from 48 %, flexor hallucis from 54 % of the tibia, as bony origins; bellies reach
further up). Azimuths of mid-thigh and mid-calf bellies: textbook cross-sections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Course:
    """How one muscle runs.

    Attributes:
        top, peak, bottom: levels of its upper end, largest area and lower end.
        path: (level, azimuth in degrees, depth) along it; interpolated between.
    """

    top: float
    peak: float
    bottom: float
    path: tuple[tuple[float, float, float], ...]


COURSES: Mapping[str, Course] = MappingProxyType(
    {
        "gluteus_maximus": Course(
            -0.27, 0.0, 0.36, ((-0.27, 205, 0.8), (0.05, 185, 0.82), (0.36, 130, 0.8))
        ),
        "gluteus_medius": Course(-0.33, -0.18, 0.03, ((-0.33, 100, 0.78), (0.03, 95, 0.7))),
        "gluteus_minimus": Course(-0.25, -0.12, 0.03, ((-0.25, 80, 0.45), (0.03, 75, 0.5))),
        "tensor_fasciae_latae": Course(-0.22, -0.04, 0.17, ((-0.22, 55, 0.85), (0.17, 65, 0.9))),
        "iliopsoas": Course(-0.33, -0.12, 0.17, ((-0.33, 335, 0.5), (0.0, 350, 0.55), (0.17, 330, 0.3))),
        "deep_hip_rotators": Course(-0.14, 0.0, 0.13, ((-0.14, 195, 0.45), (0.13, 185, 0.4))),
        "sartorius": Course(
            -0.12,
            0.33,
            1.08,
            ((-0.12, 28, 0.85), (0.2, 340, 0.85), (0.5, 300, 0.82), (0.85, 262, 0.82), (1.08, 262, 0.8)),
        ),
        "rectus_femoris": Course(-0.04, 0.32, 0.9, ((-0.04, 15, 0.65), (0.3, 8, 0.76), (0.9, 5, 0.8))),
        "vastus_lateralis": Course(0.03, 0.34, 0.97, ((0.03, 85, 0.65), (0.5, 75, 0.72), (0.97, 55, 0.75))),
        "vastus_intermedius": Course(0.12, 0.44, 0.94, ((0.12, 40, 0.4), (0.94, 25, 0.5))),
        "vastus_medialis": Course(0.2, 0.74, 1.01, ((0.2, 335, 0.45), (0.6, 322, 0.66), (1.01, 310, 0.72))),
        "gracilis": Course(0.04, 0.35, 1.1, ((0.04, 275, 0.88), (0.5, 258, 0.9), (1.1, 245, 0.85))),
        "adductor_magnus": Course(0.03, 0.27, 0.97, ((0.03, 225, 0.5), (0.5, 240, 0.5), (0.97, 262, 0.5))),
        "adductor_longus": Course(0.02, 0.25, 0.55, ((0.02, 300, 0.7), (0.55, 280, 0.5))),
        "adductor_brevis": Course(0.02, 0.17, 0.34, ((0.02, 280, 0.55), (0.34, 275, 0.35))),
        "pectineus": Course(-0.04, 0.08, 0.2, ((-0.04, 320, 0.6), (0.2, 315, 0.35))),
        "biceps_femoris_long": Course(0.06, 0.63, 1.04, ((0.06, 185, 0.6), (0.5, 165, 0.75), (1.04, 140, 0.8))),
        "biceps_femoris_short": Course(0.4, 0.7, 1.06, ((0.4, 130, 0.4), (1.06, 128, 0.72))),
        "semitendinosus": Course(0.05, 0.42, 1.06, ((0.05, 195, 0.68), (0.5, 190, 0.82), (1.06, 215, 0.88))),
        "semimembranosus": Course(0.1, 0.55, 1.07, ((0.1, 210, 0.5), (0.5, 215, 0.68), (1.07, 225, 0.7))),
        "tibialis_anterior": Course(1.06, 1.33, 1.82, ((1.06, 45, 0.7), (1.5, 38, 0.68), (1.82, 10, 0.6))),
        "toe_extensors": Course(1.1, 1.5, 1.9, ((1.1, 70, 0.66), (1.5, 65, 0.66), (1.9, 30, 0.6))),
        "fibulares": Course(1.08, 1.42, 1.93, ((1.08, 98, 0.78), (1.5, 97, 0.76), (1.93, 125, 0.7))),
        "gastrocnemius_medialis": Course(0.94, 1.25, 1.56, ((0.94, 205, 0.72), (1.56, 205, 0.85))),
        "gastrocnemius_lateralis": Course(0.94, 1.22, 1.52, ((0.94, 158, 0.72), (1.52, 155, 0.85))),
        "soleus": Course(1.07, 1.4, 1.88, ((1.07, 170, 0.5), (1.5, 180, 0.58), (1.88, 182, 0.62))),
        "tibialis_posterior": Course(1.12, 1.4, 1.86, ((1.12, 170, 0.12), (1.86, 215, 0.35))),
        "flexor_digitorum_longus": Course(1.2, 1.52, 1.9, ((1.2, 225, 0.42), (1.9, 228, 0.5))),
        "flexor_hallucis_longus": Course(1.25, 1.6, 1.95, ((1.25, 135, 0.38), (1.95, 165, 0.45))),
        "popliteus": Course(0.99, 1.1, 1.24, ((0.99, 170, 0.2), (1.24, 215, 0.25))),
    }
)

#: Fatty spaces between the muscles: level range, azimuth, depth. They take what the muscles and
#: bones leave of the space inside the fascia.
FAT_SPACES: tuple[tuple[float, float, float, float], ...] = (
    (-0.35, 0.45, 330, 0.72),  # femoral triangle and inguinal region
    (0.3, 0.8, 275, 0.42),  # adductor canal
    (0.2, 0.75, 195, 0.3),  # around the sciatic nerve
    (0.72, 1.14, 182, 0.6),  # popliteal fossa
    (0.88, 1.08, 355, 0.45),  # infrapatellar fat
    (1.1, 1.9, 195, 0.3),  # tibial neurovascular bundle
    (1.5, 2.2, 180, 0.85),  # in front of and around the Achilles tendon
    (-0.35, -0.05, 230, 0.6),  # ischioanal region
)

#: Cuts through the fascia: level, smallest radius in mm, stretch of the front-back axis over the
#: left-right axis, front-back offset of its centre from the limb axis in mm, egg shape (narrower
#: to the front). A shape for a person of 1.75 m; lengths scale with height.
OUTLINE: tuple[tuple[float, float, float, float, float], ...] = (
    (-0.36, 52.0, 1.25, -4.0, 0.0),
    (-0.1, 62.0, 1.28, -12.0, 0.0),
    (0.1, 62.0, 1.15, -14.0, 0.02),
    (0.35, 50.0, 1.08, -10.0, 0.03),
    (0.7, 44.0, 1.05, -8.0, 0.02),
    (0.95, 47.0, 1.0, -3.0, 0.0),
    (1.05, 46.0, 1.0, -4.0, 0.04),
    (1.35, 38.0, 1.08, -14.0, 0.1),
    (1.7, 28.0, 1.1, -10.0, 0.08),
    (1.95, 27.0, 1.2, -6.0, 0.05),
    (2.3, 30.0, 1.6, 12.0, 0.0),
)

#: Thickness of subcutaneous fat in mm for fatness 1, men and women: level, man, woman. Mid-thigh
#: 5-10 and 10-20, calf 3-8 and 6-14 mm (recalled ranges; the phantom only needs plausible ones).
SUBCUTANEOUS: tuple[tuple[float, float, float], ...] = (
    (-0.36, 14.0, 22.0),
    (0.0, 14.0, 24.0),
    (0.3, 8.0, 16.0),
    (0.7, 6.0, 12.0),
    (1.0, 4.0, 7.0),
    (1.35, 4.5, 9.0),
    (1.8, 3.5, 6.0),
    (2.3, 3.0, 4.0),
)


@dataclass(frozen=True)
class BoneLevel:
    """An elliptical cut through a bone, mm relative to the limb axis of the reference person.

    Attributes:
        level: hip 0, knee 1, ankle 2.
        x: to the outer side; y: to the front.
        rx, ry: half axes.
        cortex: thickness of the dark rim, mm.
    """

    level: float
    x: float
    y: float
    rx: float
    ry: float
    cortex: float


#: Bones by label id; each is a stack of ellipses, interpolated between levels.
BONES: tuple[tuple[int, tuple[BoneLevel, ...]], ...] = (
    (
        41,
        (
            BoneLevel(-0.056, 0, 0, 4, 4, 2),
            BoneLevel(-0.03, 0, 0, 20, 20, 2),
            BoneLevel(0.0, 0, 0, 24, 24, 2),
            BoneLevel(0.03, 8, 0, 26, 18, 3),
            BoneLevel(0.08, 24, -2, 28, 17, 4),
            BoneLevel(0.16, 24, -2, 17, 16, 6),
            BoneLevel(0.4, 14, 6, 14, 14, 6),
            BoneLevel(0.72, 5, 8, 16, 15, 5),
            BoneLevel(0.88, 0, 4, 30, 22, 3),
            BoneLevel(0.97, 0, 0, 39, 28, 2),
            BoneLevel(0.995, 0, 0, 30, 20, 2),
        ),
    ),
    (
        42,
        (
            BoneLevel(1.008, 0, 0, 34, 22, 2),
            BoneLevel(1.03, 0, 0, 37, 25, 2),
            BoneLevel(1.1, -4, 6, 26, 24, 3),
            BoneLevel(1.25, -8, 10, 15, 17, 5),
            BoneLevel(1.6, -8, 8, 12, 13, 5),
            BoneLevel(1.9, -4, 2, 17, 15, 3),
            BoneLevel(2.0, 0, 0, 20, 17, 2),
        ),
    ),
    (
        43,
        (
            BoneLevel(1.05, 34, -12, 8, 8, 2),
            BoneLevel(1.1, 33, -12, 10, 10, 2),
            BoneLevel(1.2, 27, -13, 6, 6, 3),
            BoneLevel(1.8, 23, -9, 6, 6, 3),
            BoneLevel(1.97, 25, -6, 9, 10, 2),
            BoneLevel(2.05, 25, -6, 7, 8, 2),
        ),
    ),
    (
        44,
        (
            BoneLevel(0.87, 0, 42, 8, 5, 2),
            BoneLevel(0.92, 0, 43, 20, 9, 2),
            BoneLevel(0.97, 0, 42, 12, 7, 2),
        ),
    ),
    (
        45,
        (
            BoneLevel(-0.32, 10, 6, 9, 42, 3),
            BoneLevel(-0.18, -2, -2, 9, 44, 3),
            BoneLevel(-0.08, -20, 0, 12, 28, 3),
            BoneLevel(0.0, -34, -4, 11, 30, 3),
            BoneLevel(0.06, -44, -8, 12, 34, 3),
            BoneLevel(0.13, -40, -34, 12, 14, 3),
        ),
    ),
    (
        47,
        (
            BoneLevel(2.06, 0, 0, 20, 22, 2),
            BoneLevel(2.2, 0, 20, 22, 70, 2),
        ),
    ),
)
