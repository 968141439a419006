"""How the embedded network was made: label maps of real people -> synthetic images -> weights.

Needs torch, which the pipeline itself does not. See training/README.md.
"""
