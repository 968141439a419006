"""Tools that hold the segmentation engine against what was promised; see docs/validation.md.

They stand outside the package: nothing in `pipeline` imports them, and what they print is never
used by a run.
"""
