"""Bandit's tests over the files named on stdin, a line of JSON for each; a program of its own.

Bandit's own driver copies its context for each of some thirty tests at each call. Here a file is
walked once, and asked of a test only if it holds one of the texts that the test needs: `NEEDS` was
read off Bandit 1.9, and with another version every test is asked of every file.
"""

import ast
import gc
import io
import json
import signal
import sys
import warnings
from importlib import metadata
from typing import Any

from bandit.core import config, docs_utils, test_set, utils
from bandit.core.context import Context

SECONDS = 60  # of processor time for one file
READ_OFF = "1.9."
PASSWORDS = ("pas", "pwd", "token", "secret")
STARTS = ("exec", "spawn", "startfile")
SHELLS = ("system", "popen", "getoutput", "getstatusoutput")
COMMANDS = ("subprocess", *SHELLS)
VERSIONS = ("ssl", "tls")
NEEDS: dict[str, tuple[str, ...]] = {  # of which one is among a file's names and texts
    "B102": ("exec",), "B103": ("chmod",), "B104": ("0.0.0",),
    "B105": PASSWORDS, "B106": PASSWORDS, "B107": PASSWORDS,
    "B108": ("tmp", "shm"), "B113": ("requests", "httpx"),
    "B201": ("flask",), "B202": ("extractall",), "B324": ("hashlib", "crypt"),
    "B501": ("requests", "httpx"), "B502": VERSIONS, "B503": VERSIONS, "B504": ("wrap_socket",),
    "B505": ("generate",), "B506": ("yaml",), "B507": ("paramiko",), "B508": ("communitydata",),
    "B509": ("usmuserdata",), "B601": ("paramiko",), "B602": ("subprocess",),
    "B603": ("subprocess",), "B604": ("shell",), "B605": SHELLS, "B606": STARTS,
    "B607": (*COMMANDS, *STARTS), "B609": COMMANDS, "B610": ("extra",), "B611": ("rawsql",),
    "B612": ("listen",), "B614": ("torch",), "B615": ("transformers", "datasets", "huggingface"),
    "B701": ("jinja2",), "B702": ("mako",), "B703": ("safestring",), "B704": ("markup",),
}  # fmt: skip
PARENTS = {  # of a text of which the test may say something
    "B105": (ast.Assign, ast.Dict, ast.Subscript, ast.Compare),
    "B608": (ast.BinOp, ast.JoinedStr, ast.Attribute),
}
IMPORTERS = frozenset({"importlib.import_module", "importlib.__import__"})
LEAVES = (ast.Name, ast.Constant, ast.alias, ast.Import, ast.ImportFrom, str, type(None))
NO_NODES = frozenset({"ctx", "op", "ops", "attr", "arg", "kind", "type_comment", "conversion"})
"""Fields that hold no node of which there is a test."""


class Fields(dict[type, tuple[str, ...]]):
    """The fields of a kind of node that may hold nodes, in Bandit's order."""

    def __missing__(self, kind: type[ast.AST]) -> tuple[str, ...]:
        names = () if kind in LEAVES else kind._fields
        self[kind] = tuple(name for name in names if name not in NO_NODES)
        return self[kind]


class Asked(Context):  # type: ignore[misc]
    """A node as tests see it; what several of them ask for is made once."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(facts)
        self.made: dict[str, Any] = {}

    @property
    def call_args(self) -> Any:
        if "args" not in self.made:
            self.made["args"] = super().call_args
        return self.made["args"]

    @property
    def call_keywords(self) -> Any:
        if "keywords" not in self.made:
            self.made["keywords"] = super().call_keywords
        return self.made["keywords"]


class Visit:
    """One file, and what the tests say of it."""

    def __init__(self, path: str, data: bytes, tests: dict[str, list[Any]], gated: bool) -> None:
        self.path, self.data, self.found = path, data, list[dict[str, Any]]()
        self.aliases: dict[str, str] = {}
        self.imports: set[str] = set()
        nodes, words = walked(ast.parse(data))
        asked = {
            kind: [
                test
                for test in listed
                if not gated or any(need in words for need in NEEDS.get(test._test_id, ("",)))
            ]
            for kind, listed in tests.items()
        }
        try:
            self.visit(nodes, asked)
            if not (gated and data.isascii() and b"coding" not in data):  # for B613
                self.ask(asked.get("File", ()), {"lineno": 0, "file_data": io.BytesIO(data)})
        finally:
            for node in nodes:  # no circle is left for the collector, which is off
                node.__dict__.pop("_bandit_parent", None)

    def visit(self, nodes: list[Any], asked: dict[str, list[Any]]) -> None:
        texts = {"str": asked.pop("Str", []), "bytes": asked.pop("Bytes", [])}
        calls = asked.get("Call", [])
        names = (row["qualnames"] for test in calls for row in _listed(test))
        listed = IMPORTERS.union(*names)
        unlisted = [test for test in calls if not _listed(test)]
        for node in nodes:
            kind = type(node)
            if kind is ast.Constant:
                name = type(node.value).__name__
                parent = node._bandit_parent
                if name in texts and type(parent) is not ast.Expr:  # a docstring
                    tests = [
                        test
                        for test in texts[name]
                        if isinstance(parent, PARENTS.get(test._test_id, ast.AST))
                    ]
                    if tests:
                        self.ask(tests, {"node": node, name: node.value})
                continue
            tests = asked.get(kind.__name__, [])
            if kind is ast.Import or kind is ast.ImportFrom:
                self.ask(tests, {"node": node, **self.imported(node)})
            elif not tests:
                continue
            elif kind is ast.Call:
                name = utils.get_call_name(node, self.aliases)
                facts = {"call": node, "qualname": name, "name": name.rpartition(".")[2]}
                known = name in listed or getattr(node.func, "id", "") == "__import__"
                if tests := tests if known else unlisted:
                    self.ask(tests, {"node": node, **facts})
            elif kind is ast.FunctionDef:
                facts = {"function": node, "qualname": node.name, "name": node.name}
                self.ask(tests, {"node": node, **facts})
            else:
                self.ask(tests, {"node": node})

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
        node = facts.get("node")
        lineno = getattr(node, "lineno", 0)
        known = {"imports": self.imports, "import_aliases": self.aliases, "filename": self.path}
        context = Asked({"lineno": lineno} | known | facts)
        for test in tests:
            try:
                rows = (context, test._config) if hasattr(test, "_config") else (context,)
                found = test(*rows)
            except Exception:  # noqa: S112 - as Bandit does: the other tests still look
                continue
            if found is not None:
                told = found.as_dict(with_code=False)
                told["line_number"] = lineno if found.lineno is None else found.lineno
                told["test_id"] = found.test_id or test._test_id
                told |= {"filename": self.path, "test_name": test.__name__}
                self.found.append(told | {"more_info": docs_utils.get_url(told["test_id"])})


def _listed(test: Any) -> Any:
    """Return Bandit's list of calls, where the test looks a call up in it."""
    return test._config["Call"] if test._test_id == "B001" else ()


def walked(tree: ast.AST, fields: Fields = Fields()) -> tuple[list[Any], str]:  # noqa: B008
    """Return the nodes of a tree in Bandit's order, each with its parent, and its words."""
    nodes: list[Any] = []
    words: set[str] = set()
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        kind, inner = type(node), list[Any]()
        if kind is ast.Name:
            words.add(node.id)
        elif kind is ast.Constant:
            if type(node.value) is str:
                words.add(node.value)
        elif kind is ast.Attribute:
            words.add(node.attr)
        elif kind is ast.keyword or kind is ast.arg:
            words.add(node.arg or "")  # none in `**more`
        elif kind is ast.Import or kind is ast.ImportFrom:
            words.update(row.name for row in node.names)
            words.add(getattr(node, "module", None) or "")
        for field in fields[kind]:
            value = getattr(node, field, None)
            if type(value) is list:
                inner += value
            elif isinstance(value, ast.AST):
                inner.append(value)
        if inner:
            inner = [row for row in inner if isinstance(row, ast.AST)]
            for row in inner:
                row._bandit_parent = node
            inner.reverse()
            waiting += inner
    return nodes, "\n".join(words).lower()


def too_slow(*_: object) -> None:
    raise RuntimeError


def main() -> None:
    gc.disable()
    warnings.simplefilter("ignore")  # the scanned code's own, such as odd escapes
    gated = metadata.version("bandit").startswith(READ_OFF)
    profile = {"include": set[str](), "exclude": set[str]()}
    tests = test_set.BanditTestSet(config.BanditConfig(), profile).tests
    signal.signal(signal.SIGVTALRM, too_slow)
    print("ready", flush=True)  # noqa: T201 - a program: its answer
    for path in json.load(sys.stdin):
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        told: dict[str, Any] = {"path": path}
        try:
            with open(path, "rb") as opened:  # noqa: PTH123 - the whole start costs as much
                data = opened.read()
            told["found"] = Visit(path, data, tests, gated).found
        except OSError as error:
            told["broken"] = str(error.strerror)
        except SyntaxError:
            told["broken"] = "syntax error while parsing AST from file"
        except Exception:
            told["broken"] = "exception while scanning file"
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        print(json.dumps(told), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
