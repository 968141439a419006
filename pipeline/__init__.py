"""Per-muscle left/right lean-volume asymmetry from lower-limb MRI."""
