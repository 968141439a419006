"""What the stage measure is made of, by subject: one leg, both sides, differences, groups.

Functions here take the section `measure` of the configuration; the arithmetic they rest on is in
`pipeline/imaging`.
"""
