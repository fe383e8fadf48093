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
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

GATED = metadata.version("bandit").startswith("1.9.")
sys.path.insert(0, str(Path(__file__).parents[3]))  # this package, and no other of its name
import purpleteam  # noqa: E402, F401

del sys.path[0]
gc.disable()
if GATED:  # what shows progress takes as long to load as all else
    sys.modules["rich"] = SimpleNamespace(progress=None)  # type: ignore[assignment]

from bandit.core import config, docs_utils, test_set, utils  # noqa: E402
from bandit.core.context import Context  # noqa: E402
from bandit.plugins import general_hardcoded_password, trojansource  # noqa: E402

from purpleteam.core.records import Finding, Severity  # noqa: E402
from purpleteam.scan.rules import Module, nodes_of  # noqa: E402
from purpleteam.scan.scanner import ScanResult, guarded, time_limit  # noqa: E402
from purpleteam.scan.scanners.ml_code import Code, look  # noqa: E402

TOOL = f"bandit {metadata.version('bandit')}"
PROCESSES = 2
SECONDS = 60  # of processor time for one file
LEVELS: dict[str, Severity] = {"LOW": "low", "MEDIUM": "medium", "HIGH": "high"}
PASSWORDS = ("pas", "pwd", "token", "secret")
CALLED = re.compile(general_hardcoded_password.RE_CANDIDATES.pattern, re.I | re.M)
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
TWO_WAYS = re.compile("|".join(trojansource.BIDI_CHARACTERS).encode())  # of B613
UPWARDS = {"B104", "B105", "B108", "B608", "B703"}  # tests that ask for the node around one


class Bandit:
    """Bandit's tests, each with the kind of node that it looks at and the words that it needs."""

    def __init__(self) -> None:
        profile = {"include": set[str](), "exclude": set[str]()}
        tests = test_set.BanditTestSet(config.BanditConfig(), profile).tests
        self.calls = {"importlib.import_module", "importlib.__import__"}
        self.tests = list[tuple[str, Any, tuple[str, ...]]]()
        for kind, test in ((kind, test) for kind, rows in tests.items() for test in rows):
            words = NEEDS.get(test._test_id, ("",))
            if test._test_id == "B001":  # it looks names up
                listed = {name for row in test._config[kind] for name in row["qualnames"]}
                self.calls |= listed if kind == "Call" else set()
                words = tuple({"" if kind == "Call" else name.partition(".")[0] for name in listed})
            self.tests.append((kind, test, tuple(map(str.lower, words)) if GATED else ("",)))
        self.last_names = {None, *(name.rpartition(".")[2] for name in self.calls)}

    def __call__(self, code: Code) -> ScanResult:
        """Return what the tests say of a file."""
        try:
            with time_limit(SECONDS):
                found = tuple(Visit(self, code).found)
                return ScanResult(findings=found, scanned=(code.name,))
        except OSError as error:
            why = str(error.strerror)
        except SyntaxError:
            why = "syntax error while parsing AST from file"
        except Exception:
            why = "exception while scanning file"
        unread = code.file.suffix == ".ipynb" and "script" not in vars(code)  # what rules tell
        return ScanResult(skipped=() if unread else ((code.name, f"bandit: {why}"),))


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
            told = b"coding" in b"".join(data.split(b"\n", 2)[:2])  # how its bytes are meant
            if told or not GATED or TWO_WAYS.search(data):
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
        names = self.module.identifiers
        held = {"B105": f"{names}\n{told}", "B106": options, "B107": names}
        for test, text in held.items():  # a word as Bandit knows it, and no part of another
            if not (any(map(text.__contains__, PASSWORDS)) and CALLED.search(text)):
                held[test] = ""
        held["B614"] = names if "load" in names else ""
        return held | {"B104": texts, "B108": texts, "B608": told}

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
    """Write a line for each file that is begun, and for each scanner that has looked at it."""
    looks: dict[str, Callable[[Code], ScanResult | None]] = {
        "bandit": Bandit(),
        "ml-code": lambda code: guarded("ml-code", partial(look, code), code.file, code.name),
    }
    scanners, files = json.load(sys.stdin)
    first, (taken, given), copies, status = os.getpid(), os.pipe(), list[int](), 0
    while len(copies) < min(PROCESSES, len(files)) and os.getpid() == first:
        copies.append(os.fork())
    if os.getpid() == first:  # it looks at no file: what ends a copy costs no other file
        os.close(taken)
        with suppress(BrokenPipeError), os.fdopen(given, "wb") as numbers:
            numbers.write(b"".join(number.to_bytes(4) for number in range(len(files))))
        for copy in copies:
            status = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) or status
        os._exit(abs(status))
    os.close(given)
    while os.getppid() == first and (one := os.read(taken, 4)):
        number = int.from_bytes(one)
        os.write(1, b'[%d, "", null]\n' % number)
        code = Code(Path(files[number][0]), files[number][1])
        for scanner in scanners:
            result = looks[scanner](code) or ScanResult()
            told = vars(result) | {"findings": [*map(vars, result.findings)]}
            os.write(1, json.dumps([number, scanner, told]).encode() + b"\n")
    os._exit(0)  # without clearing away a hundred thousand nodes


if __name__ == "__main__":
    main()
