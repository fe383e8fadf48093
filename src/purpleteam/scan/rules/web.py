"""What a served model gives away or lets in: debuggers, shares, traces, floods, confidences."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import ClassVar

from purpleteam.core.records import Severity
from purpleteam.scan.module import Module, argument, is_true
from purpleteam.scan.rules.rule import RULES, Hit, Rule

__all__ = ["AllConfidences", "DebugServer", "ExceptionText", "NoUploadLimit", "PublicShare"]

FRAMEWORKS = ("flask", "fastapi", "starlette", "gradio", "django", "bottle", "aiohttp", "sanic")
APPS = ("Flask", "FastAPI", "Starlette")
ANSWERS = frozenset(
    {
        *("jsonify", "make_response", "json_response", "abort", "HTTPException"),
        *("Response", "JSONResponse", "PlainTextResponse", "HTMLResponse"),
    }
)
ROUTES = frozenset(
    {
        *("route", "get", "post", "put", "patch", "delete", "websocket"),
        *("errorhandler", "exception_handler"),
    }
)
TRACES = frozenset({"traceback.format_exc", "traceback.format_exception"})
SOFTMAX = frozenset({"softmax", "Softmax", "log_softmax", "predict_proba"})


@RULES.register("PT005")
class DebugServer(Rule):
    """A web app that is started with its debugger."""

    id: ClassVar[str] = "PT005"
    severity: ClassVar[Severity] = "high"
    confidence: ClassVar[str] = "high"
    cwe: ClassVar[str] = "CWE-489"
    fix: ClassVar[str] = "leave debug off; Werkzeug's debugger runs code for whoever reaches it"

    def look(self, module: Module) -> Iterator[Hit]:
        for call, name in module.calls():
            starts = name.endswith((".run", ".run_server")) or name.split(".")[-1] in APPS
            if starts and module.imports(*FRAMEWORKS) and is_true(argument(call, "debug")):
                yield Hit(call, f"{name} with debug=True")
        for node in module.nodes:
            if isinstance(node, ast.Assign) and any(map(_is_debug, node.targets)):
                on = is_true(node.value) or (
                    isinstance(node.value, ast.Constant) and node.value.value in ("1", "true", 1)
                )
                if on and module.imports(*FRAMEWORKS, "os"):
                    yield Hit(node, "the debugger is switched on")


def _is_debug(target: ast.expr) -> bool:
    match target:
        case ast.Attribute(attr="debug"):
            return True
        case ast.Subscript(slice=ast.Constant(value="DEBUG" | "FLASK_DEBUG")):
            return True
    return False


@RULES.register("PT006")
class PublicShare(Rule):
    """A Gradio app that opens a public tunnel."""

    id: ClassVar[str] = "PT006"
    severity: ClassVar[Severity] = "medium"
    confidence: ClassVar[str] = "high"
    cwe: ClassVar[str] = "CWE-668"
    fix: ClassVar[str] = "leave share out, and bind to 127.0.0.1"

    def look(self, module: Module) -> Iterator[Hit]:
        for call, name in module.calls():
            launches = name.endswith("launch") or getattr(call.func, "attr", "") == "launch"
            if launches and is_true(argument(call, "share")):
                yield Hit(call, "launch with share=True opens a public address")


@RULES.register("PT007")
class ExceptionText(Rule):
    """The text of an exception in an answer to a client."""

    id: ClassVar[str] = "PT007"
    severity: ClassVar[Severity] = "medium"
    confidence: ClassVar[str] = "medium"
    cwe: ClassVar[str] = "CWE-209"
    fix: ClassVar[str] = "log the exception; answer with a fixed text"

    def look(self, module: Module) -> Iterator[Hit]:
        for function in _functions(module):
            served = _is_route(function)
            for handler in ast.walk(function):
                if not isinstance(handler, ast.ExceptHandler):
                    continue
                for node in ast.walk(handler):
                    if _answers(module, node, served) and _tells(module, node, handler.name):
                        yield Hit(node, "the text of an exception goes to the client")


def _functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _is_route(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    calls = (one.func if isinstance(one, ast.Call) else one for one in function.decorator_list)
    return any(isinstance(one, ast.Attribute) and one.attr in ROUTES for one in calls)


def _answers(module: Module, node: ast.AST, served: bool) -> bool:
    """Tell an answer: a return of a route, or a response that is built or raised."""
    if isinstance(node, ast.Return):
        return served
    return (
        isinstance(node, ast.Call)
        and module.imports(*FRAMEWORKS)
        and module.dotted(node.func).split(".")[-1] in ANSWERS
    )


def _tells(module: Module, node: ast.AST, name: str | None) -> bool:
    for inner in ast.walk(node):
        match inner:
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=used)]):
                told = used == name
            case ast.FormattedValue(value=ast.Name(id=used)):
                told = used == name
            case ast.Attribute(value=ast.Name(id=used), attr="args" | "message"):
                told = used == name
            case ast.Call():
                told = module.dotted(inner.func) in TRACES
            case _:
                told = False
        if told:
            return True
    return False


@RULES.register("PT010")
class NoUploadLimit(Rule):
    """A Flask app that reads a request of any size."""

    id: ClassVar[str] = "PT010"
    severity: ClassVar[Severity] = "medium"
    confidence: ClassVar[str] = "medium"
    cwe: ClassVar[str] = "CWE-770"
    fix: ClassVar[str] = "set app.config['MAX_CONTENT_LENGTH'] to what an image needs"

    def look(self, module: Module) -> Iterator[Hit]:
        limited = any("MAX_CONTENT_LENGTH" in line for line in module.lines)
        reads = any(
            module.dotted(node)
            in ("flask.request.files", "flask.request.data", "flask.request.json")
            or module.dotted(node) in ("flask.request.get_json", "flask.request.get_data")
            for node in module.nodes
            if isinstance(node, ast.Attribute)
        )
        for call, name in module.calls():
            if name == "flask.Flask" and reads and not limited:
                yield Hit(call, "the app reads uploads and sets no MAX_CONTENT_LENGTH")


@RULES.register("PT012")
class AllConfidences(Rule):
    """A served function that returns a score for every class: help for whoever copies the model."""

    id: ClassVar[str] = "PT012"
    severity: ClassVar[Severity] = "low"
    confidence: ClassVar[str] = "low"
    cwe: ClassVar[str] = "CWE-200"
    fix: ClassVar[str] = "answer with the label, or with the best score rounded"

    def look(self, module: Module) -> Iterator[Hit]:
        if not module.imports(*FRAMEWORKS):
            return
        for function in _functions(module):
            names = {name.split(".")[-1] for _, name in module.calls(function)}
            methods = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
            many = any(
                isinstance(node, ast.Return)
                and isinstance(node.value, ast.Dict | ast.DictComp | ast.ListComp)
                for node in ast.walk(function)
            )
            if many and SOFTMAX & (names | methods):
                yield Hit(function, f"{function.name} returns the scores of all classes")
