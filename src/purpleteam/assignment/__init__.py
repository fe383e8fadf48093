"""The course assignment: two reports measured again, as a plug-in like anybody's.

Two course reports (A and B) trained an MNIST classifier, poisoned it, attacked it, hardened it and
listed threats. This folder repeats what they did, to the letter, beside what the same thing
measures when it is measured right. Nothing else in Purpleteam names it: it registers itself when
`purple run --profile assignment` or `purple demo` loads it.

- `reports`    their net, recipe, poisoned sevens and adversarial training
- `stages`     what they did, as parts of the run's stages;  `chapters`: what the report tells
- `threats`    their tables, each statement beside the system's threats
- `figures.toml` what they published
- `profiles/`  assignment (MNIST) and demo (embedded digits)
"""

import importlib

__all__ = ["register"]


def register() -> None:
    """Load every part, by which it registers itself; `chapters` alone needs no torch."""
    for part in ("chapters", "reports", "stages"):
        importlib.import_module(f"{__name__}.{part}")
