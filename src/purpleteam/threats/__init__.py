"""What can go wrong with a system, and what the executed checks say about it; no torch.

    system.yaml   an image classifier, each part with when it is there; yours has the same form
    model         a system as frozen data; STRIDE; risk by the OWASP matrix
    loading       reads one, refuses nonsense, and leaves out what is not there
    status        from check results to mitigations to threats, and all of it as plain JSON
    diagram       the data-flow diagram as SVG

A mitigation is a sentence with the checks that prove it, and with what they must have looked at.
The rooms that own those checks run them; here their results are only read.
"""

from purpleteam.threats.diagram import draw
from purpleteam.threats.loading import load_system, system_from
from purpleteam.threats.model import SystemModel
from purpleteam.threats.status import derive, matrix, missing, summary, to_facts, verdicts

__all__ = ["SystemModel", "derive", "draw", "load_system", "matrix", "missing", "summary"]
__all__ += ["system_from", "to_facts", "verdicts"]
