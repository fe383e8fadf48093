"""What can be wrong with a model file: one table of rules, and a problem as an exception.

The grades, from the worst: `malicious` names what would run, `ambiguous` is damaged or read
differently by different readers, `unread` was not looked into to the end, `unsupported` is
harmless and of no form that is taken over, `note` keeps nobody from anything.
"""

from typing import Literal, get_args

from purpleteam.core.errors import Refused
from purpleteam.scan.scanner import Rule

_CONVERT = "make it a stored model with: purple import FILE --arch NAME"
_ASK = "do not load it; ask its maker for the weights as safetensors"
_SAVE_ALONE = "where it was made, save model.state_dict() alone, best as safetensors"
_SAVE_AGAIN = "write the file again with the library of its format, and compare digests"

Grade = Literal["note", "unsupported", "unread", "ambiguous", "malicious"]
GRADES: tuple[Grade, ...] = get_args(Grade)
MOST_FINDINGS = 100  # of one file, which may have thousands of faults
MOST_LETTERS = 1000  # of a message, which may tell what the file says
PROBLEMS: dict[str, Rule] = {
    "unsafe-global": Rule("PM001", "critical", "CWE-502", _ASK),
    "pickle": Rule("PM002", "low", "CWE-502", _CONVERT),
    "damaged-pickle": Rule("PM003", "high", "CWE-502", _ASK),
    "archive": Rule("PM004", "high", "CWE-436", _SAVE_AGAIN),
    "bomb": Rule("PM005", "high", "CWE-409", _ASK),
    "safetensors": Rule("PM006", "high", "CWE-20", _SAVE_AGAIN),
    "metadata": Rule("PM007", "note", "CWE-94", "keep plain text in the metadata"),
    "not-finite": Rule("PM008", "medium", "CWE-20", "train again; such weights are useless"),
    "external-data": Rule("PM009", "high", "CWE-73", "save the model as a single file"),
    "custom-operator": Rule("PM010", "medium", "CWE-829", "use standard operators only"),
    "onnx": Rule("PM011", "high", "CWE-20", _SAVE_AGAIN),
    "unknown-format": Rule("PM012", "medium", "CWE-434", _CONVERT),
    "name": Rule("PM013", "high", "CWE-646", "give the file the name of its content"),
    "object-array": Rule("PM014", "low", "CWE-502", _ASK),
    "tensor": Rule("PM015", "high", "CWE-125", _ASK),
    "unread": Rule("PM016", "medium", "CWE-693", "unpack it, and scan what is in it"),
    "unsupported": Rule("PM017", "low", "CWE-20", _SAVE_ALONE),
    "foreign-code": Rule("PM018", "high", "CWE-829", _SAVE_ALONE),
}
"""Kind to rule; the identifiers never change their meaning."""
_GRADES: dict[str, Grade] = {  # all others are ambiguous
    "unsafe-global": "malicious",
    **dict.fromkeys(("unread", "unknown-format"), "unread"),
    **dict.fromkeys(("unsupported", "pickle", "object-array"), "unsupported"),
    "metadata": "note",
}  # fmt: skip


class Problem(Refused):
    """One thing that is wrong with a model file: yielded as a finding, raised as a refusal."""

    def __init__(self, kind: str, message: str, grade: Grade | None = None) -> None:
        super().__init__(message[:MOST_LETTERS])
        self.kind, self.rule = kind, PROBLEMS[kind]
        self.grade: Grade = grade or _GRADES.get(kind, "ambiguous")

    def inside(self, name: str) -> "Problem":
        """Return the problem as one of a file inside of this one."""
        return Problem(self.kind, f"{name[:200]}: {self}", self.grade)
