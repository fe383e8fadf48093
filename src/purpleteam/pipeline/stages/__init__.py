"""The stages of a run, in the order of the flow; each is a function of `Work`.

data -> models -> attacks (evasion, poison) -> defences -> scan -> threats -> serve
"""
