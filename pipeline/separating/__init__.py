"""What the stage separate is made of: where the legs part, what is refused, levels, doubts.

Functions here take the section `separate` of the configuration; the arithmetic they rest on is in
`pipeline/imaging`.
"""
