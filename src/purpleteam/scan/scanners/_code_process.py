"""Bandit's tests and our rules over the files named on stdin; a program of its own.

A file is parsed once for both, and asked of a test of Bandit's only if it holds a word that the
test needs: `NEEDS` was read off Bandit 1.9, and with another version every test is asked of every
file. A line of JSON for each file and scanner is the answer. Copies of this process share the work.
"""

import ast
import gc
import io
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

READ_OFF = "1.9."
GATED = metadata.version("bandit").startswith(READ_OFF)
sys.path.insert(0, str(Path(__file__).parents[3]))  # this package, and no other of its name
import purpleteam  # noqa: E402, F401

del sys.path[0]

from bandit.core import config, docs_utils, test_set, utils  # noqa: E402
from bandit.core.context import Context  # noqa: E402

from purpleteam.core.records import Finding, Severity  # noqa: E402
from purpleteam.scan.rules import Module, nodes_of  # noqa: E402
from purpleteam.scan.scanner import ScanResult, guarded, time_limit  # noqa: E402
from purpleteam.scan.scanners.ml_code import Code, look  # noqa: E402

TOOL = f"bandit {metadata.version('bandit')}"
SECONDS = 60  # of processor time for one file
LEVELS: dict[str, Severity] = {"LOW": "low", "MEDIUM": "medium", "HIGH": "high"}
PASSWORDS = ("pas", "pwd", "token", "secret")
STARTS = ("exec", "spawn", "startfile")
SHELLS = ("system", "popen", "getoutput", "getstatusoutput")
COMMANDS = ("subprocess", *SHELLS)
VERSIONS = ("ssl", "tls")
NEEDS: dict[str, tuple[str, ...]] = {  # of which one is in the file, where `held` looks for it
    "B102": ("exec",), "B103": ("chmod",), "B104": ("0.0.0",), "B105": PASSWORDS,
    "B106": PASSWORDS, "B107": PASSWORDS, "B108": ("tmp", "shm"), "B113": ("requests", "httpx"),
    "B201": ("flask",), "B202": ("extractall",), "B324": ("hashlib", "crypt"),
    "B501": ("requests", "httpx"), "B502": VERSIONS, "B503": VERSIONS, "B504": ("wrap_socket",),
    "B505": ("generate",), "B506": ("yaml",), "B507": ("paramiko",), "B508": ("communitydata",),
    "B509": ("usmuserdata",), "B601": ("paramiko",), "B602": ("subprocess",),
    "B603": ("subprocess",), "B604": ("shell",), "B605": SHELLS, "B606": STARTS,
    "B607": (*COMMANDS, *STARTS), "B608": ("select", "delete", "insert", "update"),
    "B609": COMMANDS, "B610": ("extra",), "B611": ("rawsql",), "B612": ("listen",),
    "B614": ("torch",), "B615": ("transformers", "datasets", "huggingface"), "B701": ("jinja2",),
    "B702": ("mako",), "B703": ("safestring",), "B704": ("markup",),
}  # fmt: skip
UPWARDS = {"B104", "B105", "B108", "B608", "B703"}  # tests that ask for the node around one


class Bandit:
    """Bandit's tests, each with the kind of node that it looks at and the words that it needs."""

    def __init__(self) -> None:
        profile = {"include": set[str](), "exclude": set[str]()}
        tests = test_set.BanditTestSet(config.BanditConfig(), profile).tests
        listed = {kind: set[str]().union(*_names(kind, rows)) for kind, rows in tests.items()}
        self.calls = listed["Call"] | {"importlib.import_module", "importlib.__import__"}
        self.last_names = {None, *(name.rpartition(".")[2] for name in self.calls)}
        self.tests = list[tuple[str, Any, tuple[str, ...]]]()
        for kind, test in ((kind, test) for kind, rows in tests.items() for test in rows):
            tops = (name.partition(".")[0].lower() for name in listed[kind])
            words = tuple(tops) if kind.startswith("Import") else NEEDS.get(test._test_id, ("",))
            self.tests.append((kind, test, words if GATED else ("",)))

    def __call__(self, code: Code) -> ScanResult:
        """Return what the tests say of a file."""
        try:
            with time_limit(SECONDS):
                found = tuple(Visit(self, code).found)
                return ScanResult(findings=found, scanned=(code.name,))
        except Exception as error:
            syntax = isinstance(error, SyntaxError)
            why = (
                "syntax error while parsing AST from file"
                if syntax
                else "exception while scanning file"
            )
            why = str(error.strerror) if isinstance(error, OSError) else why
        unread = code.file.suffix == ".ipynb" and "script" not in vars(code)  # what rules tell
        return ScanResult(skipped=() if unread else ((code.name, f"bandit: {why}"),))


def _names(kind: str, tests: Any) -> list[list[str]]:
    """Return Bandit's lists of names, where a test looks one up."""
    return [
        row["qualnames"] for test in tests if test._test_id == "B001" for row in test._config[kind]
    ]


class Visit:
    """One file, and what the tests say of it."""

    def __init__(self, bandit: Bandit, code: Code) -> None:
        self.bandit, self.code, self.module = bandit, code, code.module
        self.found: list[Finding] = []
        self.aliases: dict[str, str] = {}
        self.imports: set[str] = set()
        names, held = self.module.identifiers, self.held()
        asked: dict[str, list[Any]] = {}
        for kind, test, words in bandit.tests:
            if any(map(held.get(test._test_id, names).__contains__, words)):
                asked.setdefault(kind, []).append(test)
        data = self.module.source
        upwards = {test._test_id for tests in asked.values() for test in tests} & UPWARDS
        nodes = self.module.nodes if upwards or not GATED else []
        try:
            for node in nodes:
                for inner in ast.iter_child_nodes(node):
                    inner._bandit_parent = node  # type: ignore[attr-defined]
            self.visit(asked)
            if not (GATED and data.isascii() and b"coding" not in data):  # for B613
                self.ask(asked.get("File", ()), {"lineno": 0, "file_data": io.BytesIO(data)})
        finally:
            for node in nodes:  # no circle is left for the collector, which is off
                node.__dict__.pop("_bandit_parent", None)

    def held(self) -> dict[str, str]:
        """Return what may hold the words that a test needs, in small, where it is not all names.

        Of B105 and B608 that is texts that are keys, parts of others, or before a method.
        """
        of, texts = self.module.of, self.module.texts
        found = [part for row in of(ast.BinOp) for part in (row.left, row.right)]
        found += [row.value for row in of(ast.Attribute)] + [row.slice for row in of(ast.Subscript)]
        found += [key for row in of(ast.Dict) for key in row.keys]
        parts = {row.value for row in found if type(row) is ast.Constant and type(row.value) is str}
        for row in of(ast.JoinedStr):
            parts.add("".join(str(one.value) for one in row.values if type(one) is ast.Constant))
        told = "\n".join(parts).lower()
        options = "\n".join(row.arg or "" for row in of(ast.keyword)).lower()
        passwords = f"{self.module.identifiers}\n{told}"
        return {"B104": texts, "B105": passwords, "B106": options, "B108": texts, "B608": told}

    def visit(self, asked: dict[str, list[Any]]) -> None:
        bandit, of = self.bandit, self.module.of
        texts = {"str": asked.pop("Str", []), "bytes": asked.pop("Bytes", [])}
        unlisted = [test for test in asked.get("Call", ()) if test._test_id != "B001"]
        nodes = [node for kind in {*asked} - {"Call"} for node in of(getattr(ast, kind, str))]
        nodes += of(ast.Constant) if any(texts.values()) else []
        for node in of(ast.Call):  # a name alone may stand for any other
            if unlisted or getattr(node.func, "attr", None) in bandit.last_names:
                nodes.append(node)
        for kind in {"Import", "ImportFrom"} - asked.keys():
            nodes += of(getattr(ast, kind))
        for node in in_order(self.module, nodes):
            facts, is_a = {"node": node}, type(node)
            tests = asked.get(is_a.__name__, [])
            if is_a is ast.Constant and type(node._bandit_parent) is not ast.Expr:  # a docstring
                facts[type(node.value).__name__] = node.value
                tests = texts.get(type(node.value).__name__, [])
            elif is_a is ast.Import or is_a is ast.ImportFrom:
                facts |= self.imported(node)
            elif is_a is ast.Call:
                name = utils.get_call_name(node, self.aliases)
                facts |= {"call": node, "qualname": name, "name": name.rpartition(".")[2]}
                own = getattr(node.func, "id", "") == "__import__"
                tests = tests if own or name in bandit.calls else unlisted
            elif is_a is ast.FunctionDef:
                facts |= {"function": node, "qualname": node.name, "name": node.name}
            if tests:
                self.ask(tests, facts)

    def imported(self, node: Any) -> dict[str, Any]:
        """Take in the names of an import; return what tests are told of it."""
        module, facts = getattr(node, "module", None), dict[str, Any]()
        for row in node.names:
            name = row.name if module is None else f"{module}.{row.name}"
            if module is not None or row.asname:
                self.aliases[row.asname or row.name] = name
            self.imports.add(name)
            facts = {"module": row.name} if module is None else {"module": module, "name": row.name}
        return facts

    def ask(self, tests: Any, facts: dict[str, Any]) -> None:
        lineno = getattr(facts.get("node"), "lineno", 0)
        facts |= {"imports": self.imports, "import_aliases": self.aliases}
        context = Context(facts | {"filename": str(self.code.file), "lineno": lineno})
        for test in tests:
            try:
                rows = (context, test._config) if hasattr(test, "_config") else (context,)
                found = test(*rows)
            except Exception:  # noqa: S112 - as Bandit does: the other tests still look
                continue
            if found is None:
                continue
            rule, text = found.test_id or test._test_id, " ".join(str(found.text).split())
            self.found.append(Finding(
                tool=TOOL, rule=rule, severity=LEVELS.get(found.severity, "note"),
                confidence=str(found.confidence).lower(),
                cwe=f"CWE-{found.cwe.id}" if found.cwe.id else None,
                place=self.code.place(lineno if found.lineno is None else found.lineno),
                message=f"{test.__name__}: {text}".encode("utf-8", "replace").decode(),
                fix=docs_utils.get_url(rule),
            ))  # fmt: skip


def in_order(module: Module, nodes: list[Any]) -> list[Any]:
    """Return nodes in Bandit's order: decorators after what they decorate.

    That is the order of their places, since no import, after which names mean something else, is a
    part of an expression.
    """
    late = {
        inner: (node.end_lineno, node.end_col_offset)
        for node in module.of(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        for part in (*node.decorator_list, getattr(node, "returns", None))
        for inner in (nodes_of(part) if part else ())
    }

    def place(node: Any) -> tuple[int, int]:
        return late.get(node) or (getattr(node, "lineno", 0), getattr(node, "col_offset", 0))

    return sorted(nodes, key=place)


def main() -> None:
    """Write "ready", and then a line for each file and scanner."""
    gc.disable()
    looks: dict[str, Callable[[Code], ScanResult | None]] = {
        "bandit": Bandit(),
        "ml-code": lambda code: guarded("ml-code", partial(look, code), code.file, code.name),
    }
    os.write(1, b"ready\n")
    scanners, *parts = json.load(sys.stdin)
    first, copies, status = os.getpid(), list[int](), 0
    while len(parts) > 1 and os.getpid() == first:
        copies.append(os.fork())
        parts = parts[1:] if copies[-1] else parts[:1]
    for file, name in parts[0]:
        code = Code(Path(file), name)
        for scanner in scanners:
            result = looks[scanner](code) or ScanResult()
            told = vars(result) | {"findings": [*map(vars, result.findings)]}
            os.write(1, json.dumps([file, scanner, told]).encode() + b"\n")
    for copy in copies if os.getpid() == first else ():
        status = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) or status
    os._exit(abs(status))  # without clearing away a hundred thousand nodes


if __name__ == "__main__":
    main()
