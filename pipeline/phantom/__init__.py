"""Parametric digital legs with known truth."""
