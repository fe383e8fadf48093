"""The verbs: one function each, one file each, for command line, pipeline and notebook alike.

    train, harden, poison          a stored model, a poisoned set
    evaluate, attack, certify      numbers about a model on images
    detect, repair                 backdoors, found and taken out
    privacy                        what a model gives away
    scan, threats                  code and files; the whole system
    import_model, export           from and to other people's files

- `verb`      what makes a function a verb: VERBS, its `Option`s, the run that it leaves
- `options`   the parameters that mean the same everywhere;  `result`: what a verb returns
- `open_subject`  images and a model in whatever form they are given;  `trained`: nets stored
- `gate`      requirements, JUnit and SARIF;  `outputs`: files that are written
- `_pictures`  galleries of a run

A function takes images and a model in any form (`options`) and returns a `Result`. Importing this
package is quick; each function loads what it needs.
"""

import sys
from typing import TYPE_CHECKING, Any

from purpleteam.verbs.attack import attack
from purpleteam.verbs.certify import certify
from purpleteam.verbs.detect import detect
from purpleteam.verbs.evaluate import evaluate
from purpleteam.verbs.export import export
from purpleteam.verbs.harden import harden
from purpleteam.verbs.import_model import import_model
from purpleteam.verbs.poison import poison
from purpleteam.verbs.privacy import privacy
from purpleteam.verbs.repair import repair
from purpleteam.verbs.result import Result
from purpleteam.verbs.scan import scan
from purpleteam.verbs.threats import threats
from purpleteam.verbs.train import train
from purpleteam.verbs.verb import VERBS, Option, verb

if TYPE_CHECKING:
    from purpleteam.verbs._subject import open_subject

__all__ = ["VERBS", "Option", "Result", "attack", "certify", "detect", "evaluate", "export"]
__all__ += ["harden", "import_model", "open_subject", "poison", "privacy", "repair", "scan"]
__all__ += ["threats", "train", "verb"]

VERBS.load(sys.modules[__name__])


def __getattr__(name: str) -> Any:
    if name == "open_subject":  # it needs torch, which the list of verbs does not
        from purpleteam.verbs._subject import open_subject

        return open_subject
    raise AttributeError(f"module 'purpleteam.verbs' has no attribute {name!r}")
