"""What a served model gives away or lets in: debuggers, shares, traces, floods, confidences."""

import ast
from collections.abc import Iterator

from purpleteam.scan.rules import Hit, Module, argument, is_literal, rule

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
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


@rule("PT005", "high", 489, "leave debug off; Werkzeug's debugger runs code for whoever reaches it")
def debug_server(module: Module) -> Iterator[Hit]:
    """A web app that is started with its debugger."""
    for call, name in module.calls:
        starts = name.endswith((".run", ".run_server")) or name.split(".")[-1] in APPS
        if starts and module.imports(*FRAMEWORKS) and is_literal(argument(call, "debug"), True):
            yield Hit(call, f"{name} with debug=True")
    for node in module.nodes:
        if isinstance(node, ast.Assign) and module.imports(*FRAMEWORKS, "os"):
            on = isinstance(node.value, ast.Constant) and node.value.value in ("1", "true", 1)
            if on and any(map(_is_debug, node.targets)):
                yield Hit(node, "the debugger is switched on")


def _is_debug(target: ast.expr) -> bool:
    match target:
        case ast.Attribute(attr=name):
            return name == "debug"
        case ast.Subscript(slice=ast.Constant(value=key)):
            return key in ("DEBUG", "FLASK_DEBUG")
    return False


@rule("PT006", "medium", 668, "leave share out, and bind to 127.0.0.1")
def public_share(module: Module) -> Iterator[Hit]:
    """A Gradio app that opens a public tunnel."""
    for call, name in module.calls:
        launches = name.endswith("launch") or getattr(call.func, "attr", "") == "launch"
        if launches and is_literal(argument(call, "share"), True):
            yield Hit(call, "launch with share=True opens a public address")


@rule("PT007", "medium", 209, "log the exception; answer with a fixed text", "medium")
def exception_text(module: Module) -> Iterator[Hit]:
    """The text of an exception in an answer to a client."""
    for function in module.nodes:
        if isinstance(function, FUNCTIONS):
            made = [getattr(row, "func", row) for row in function.decorator_list]
            served = any(isinstance(row, ast.Attribute) and row.attr in ROUTES for row in made)
            for handler in ast.walk(function):
                if isinstance(handler, ast.ExceptHandler):
                    for node in ast.walk(handler):
                        answers = served and isinstance(node, ast.Return)
                        if isinstance(node, ast.Call) and module.imports(*FRAMEWORKS):
                            answers = module.dotted(node.func).split(".")[-1] in ANSWERS
                        if answers and _tells(module, node, handler.name):
                            yield Hit(node, "the text of an exception goes to the client")


def _tells(module: Module, node: ast.AST, name: str | None) -> bool:
    """Return whether an answer holds the text of the exception of that name, or a traceback."""
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


@rule(
    "PT010", "medium", 770, "set app.config['MAX_CONTENT_LENGTH'] to what an image needs", "medium"
)
def no_upload_limit(module: Module) -> Iterator[Hit]:
    """A Flask app that reads a request of any size."""
    limited = any("MAX_CONTENT_LENGTH" in line for line in module.lines)
    attributes = (node for node in module.nodes if isinstance(node, ast.Attribute))
    if not limited and any(module.dotted(node) in REQUEST_BODIES for node in attributes):
        for call, name in module.calls:
            if name == "flask.Flask":
                yield Hit(call, "the app reads uploads and sets no MAX_CONTENT_LENGTH")


@rule("PT012", "low", 200, "answer with the label, or with the best score rounded", "low")
def all_confidences(module: Module) -> Iterator[Hit]:
    """A served function that returns a score for every class: help for whoever copies the model."""
    many = ast.Dict | ast.DictComp | ast.ListComp
    for function in module.nodes if module.imports(*FRAMEWORKS) else ():
        if isinstance(function, FUNCTIONS):
            inner = tuple(ast.walk(function))
            names = {name.split(".")[-1] for _, name in module.calls_in(inner)}
            names |= {node.attr for node in inner if isinstance(node, ast.Attribute)}
            returned = [node.value for node in inner if isinstance(node, ast.Return)]
            if SOFTMAX & names and any(isinstance(value, many) for value in returned):
                yield Hit(function, f"{function.name} returns the scores of all classes")
