"""What a served model gives away or lets in: debuggers, shares, traces, floods, confidences."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from purpleteam.scan.rules.rule import RULES, Hit, Module, Rule, argument, is_literal

FRAMEWORKS = ("flask", "fastapi", "starlette", "gradio", "django", "bottle", "aiohttp", "sanic")
APPS = ("Flask", "FastAPI", "Starlette")
ANSWERS = frozenset({
    "jsonify", "make_response", "json_response", "abort", "HTTPException",
    "Response", "JSONResponse", "PlainTextResponse", "HTMLResponse",
})  # fmt: skip
ROUTES = frozenset({
    "route", "get", "post", "put", "patch", "delete", "websocket",
    "errorhandler", "exception_handler",
})  # fmt: skip
REQUEST_BODIES = frozenset(
    f"flask.request.{name}" for name in ("files", "data", "json", "get_json", "get_data")
)
TRACES = frozenset({"traceback.format_exc", "traceback.format_exception"})
SOFTMAX = frozenset({"softmax", "Softmax", "log_softmax", "predict_proba"})


@RULES.register("PT005")
class DebugServer(Rule):
    """A web app that is started with its debugger."""

    id = "PT005"
    severity = "high"
    cwe = "CWE-489"
    fix = "leave debug off; Werkzeug's debugger runs code for whoever reaches it"

    def look(self, module: Module) -> Iterator[Hit]:
        for call, name in module.calls():
            starts = name.endswith((".run", ".run_server")) or name.split(".")[-1] in APPS
            if starts and module.imports(*FRAMEWORKS) and is_literal(argument(call, "debug"), True):
                yield Hit(call, f"{name} with debug=True")
        for node in module.nodes:
            if isinstance(node, ast.Assign) and any(map(_is_debug, node.targets)):
                on = isinstance(node.value, ast.Constant) and node.value.value in ("1", "true", 1)
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

    id = "PT006"
    severity = "medium"
    cwe = "CWE-668"
    fix = "leave share out, and bind to 127.0.0.1"

    def look(self, module: Module) -> Iterator[Hit]:
        for call, name in module.calls():
            launches = name.endswith("launch") or getattr(call.func, "attr", "") == "launch"
            if launches and is_literal(argument(call, "share"), True):
                yield Hit(call, "launch with share=True opens a public address")


@RULES.register("PT007")
class ExceptionText(Rule):
    """The text of an exception in an answer to a client."""

    id = "PT007"
    severity = "medium"
    confidence = "medium"
    cwe = "CWE-209"
    fix = "log the exception; answer with a fixed text"

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
    names = (call.func if isinstance(call, ast.Call) else call for call in function.decorator_list)
    return any(isinstance(name, ast.Attribute) and name.attr in ROUTES for name in names)


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
    """Tell the text of an exception of that name, or a traceback, in an answer."""
    for inner in ast.walk(node):
        match inner:
            case (
                ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=used)])
                | ast.FormattedValue(value=ast.Name(id=used))
                | ast.Attribute(value=ast.Name(id=used), attr="args" | "message")
            ) if used == name:
                return True
            case ast.Call() if module.dotted(inner.func) in TRACES:
                return True
    return False


@RULES.register("PT010")
class NoUploadLimit(Rule):
    """A Flask app that reads a request of any size."""

    id = "PT010"
    severity = "medium"
    confidence = "medium"
    cwe = "CWE-770"
    fix = "set app.config['MAX_CONTENT_LENGTH'] to what an image needs"

    def look(self, module: Module) -> Iterator[Hit]:
        limited = any("MAX_CONTENT_LENGTH" in line for line in module.lines)
        attributes = (node for node in module.nodes if isinstance(node, ast.Attribute))
        reads = any(module.dotted(node) in REQUEST_BODIES for node in attributes)
        for call, name in module.calls():
            if name == "flask.Flask" and reads and not limited:
                yield Hit(call, "the app reads uploads and sets no MAX_CONTENT_LENGTH")


@RULES.register("PT012")
class AllConfidences(Rule):
    """A served function that returns a score for every class: help for whoever copies the model."""

    id = "PT012"
    severity = "low"
    confidence = "low"
    cwe = "CWE-200"
    fix = "answer with the label, or with the best score rounded"

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
