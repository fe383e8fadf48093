"""Functions that answer clients, and what flows through them from name to name."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from purpleteam.scan.rules import Module, nodes_of

FRAMEWORKS = (
    *("flask", "fastapi", "starlette", "gradio", "django", "bottle", "aiohttp", "sanic"),
    *("http", "streamlit", "tornado", "quart", "litestar", "falcon", "flask_restful", "bentoml"),
)
ROUTES = frozenset({
    *("route", "get", "post", "put", "patch", "delete", "websocket", "api_route", "api"),
    *("errorhandler", "app_errorhandler", "exception_handler", "do_GET", "do_POST", "do_PUT"),
})  # fmt: skip
ANSWERS = frozenset({
    *("jsonify", "make_response", "json_response", "send_json", "HTTPException", "send_error"),
    *("Response", "JSONResponse", "PlainTextResponse", "HTMLResponse", "ORJSONResponse"),
    *("HttpResponse", "JsonResponse", "HttpResponseBadRequest", "HttpResponseServerError", "abort"),
    *("render_template", "render_template_string", "TemplateResponse", "flash", "send_text"),
})  # fmt: skip
SHOWN = (
    *(".write", ".json", ".table", ".dataframe", ".bar_chart", ".markdown", ".text"),
    *("Error", "Warning", "Info", ".error", ".exception", ".warning"),
)
VIEWS = ("View", "Handler", "Endpoint", "Resource")
EVERYWHERE = frozenset({"map", "filter", "sorted", "min", "max", "print", "len", "isinstance"})
SIZES = frozenset({"size", "width", "height", "verify"})
ROUNDS = 5  # of names that get their value from names; longer ways are not followed
NAMELESS = re.compile(r"(?:https?:)?(?://)?(?:%s|\{|$)")  # what follows is the host
Function = ast.FunctionDef | ast.AsyncFunctionDef
Test = Callable[[ast.AST], bool]


@lru_cache(maxsize=2)
def functions(module: Module, *packages: str) -> list[Function]:
    """Return every function, and the script, of a module that imports what serves, or a package."""
    if not module.imports(*(packages or FRAMEWORKS)):
        return []
    body = [node for node in module.body if not isinstance(node, Function | ast.ClassDef)]
    nobody = ast.arguments([], [], None, [], [], None, [])
    script = ast.FunctionDef("<script>", nobody, body, [])
    return [script, *module.of(ast.FunctionDef, ast.AsyncFunctionDef)]


def served(module: Module) -> Iterator[Function]:
    """Yield the functions that answer a client: decorated, handed on, or of a view."""
    if not functions(module):
        return
    handed = {
        getattr(name, "attr", getattr(name, "id", ""))
        for call, called in module.calls
        if called not in EVERYWHERE
        for given in (*call.args, *(keyword.value for keyword in call.keywords))
        for name in (given.elts if isinstance(given, ast.List | ast.Tuple) else [given])
        if isinstance(name, ast.Name) or getattr(getattr(name, "value", None), "id", "") == "self"
    }
    methods = {
        item
        for node in module.of(ast.ClassDef)
        if any(module.dotted(base).endswith(VIEWS) for base in node.bases)
        for item in node.body
    }
    for function in functions(module):
        first = function.args.args[0].arg if function.args.args else ""
        if (
            function.name in handed
            or routes(function)
            or (function in methods and function.name in ROUTES)
            or (first == "request" and module.imports("django"))
            or (function.name == "<script>" and module.imports("streamlit"))
        ):
            yield function


def routes(function: Function) -> list[ast.expr]:
    """Return the decorators that make a function answer clients."""
    return [
        row
        for row in function.decorator_list
        if getattr(getattr(row, "func", row), "attr", "") in ROUTES
    ]


def answers(module: Module, function: Function, *, returns: bool) -> Iterator[ast.AST]:
    """Yield what a function sends to a client: calls that make an answer, and what it returns."""
    for node in nodes_of(function):
        if isinstance(node, ast.Return) and returns and node.value is not None:
            yield node
        if isinstance(node, ast.Call):
            name = module.dotted(node.func)
            shown = name.startswith(("gradio.", "streamlit.")) and name.endswith(SHOWN)
            shown |= name in ("self.write", "self.finish") and module.imports("tornado")
            if shown or name.split(".")[-1] in ANSWERS or name.endswith("wfile.write"):
                yield node


def looks_at_size(function: Function) -> bool:
    """Return whether a function compares the size of something."""
    tests = (node for node in nodes_of(function) if isinstance(node, ast.Compare))
    return any(getattr(row, "attr", "") in SIZES for test in tests for row in nodes_of(test))


def flow(body: ast.AST, source: Test, stop: Test = lambda _: False, *, begin: bool = False) -> Test:
    """Return whether an expression holds what a source gave, also by way of names of the body.

    Nothing is followed into an expression at which `stop` holds; with `begin`, of a text that is
    put together only its beginning counts, which names the host of an address.
    """
    names: set[str] = set()

    def holds(node: ast.AST) -> bool:
        waiting = [node]
        while waiting:
            one = waiting.pop()
            if stop(one):
                continue
            if source(one) or (isinstance(one, ast.Name) and one.id in names):
                return True
            match one:
                case ast.Subscript(value=whole) | ast.Call(func=ast.Attribute(attr="get") as whole):
                    waiting.append(whole)  # what a table has is not what it is asked for
                case (
                    ast.BinOp(left=first, right=then)
                    | ast.JoinedStr(values=[first, then, *_])
                    | ast.Call(func=ast.Attribute(value=first, attr="format"), args=[then, *_])
                ) if begin:
                    nameless = NAMELESS.match(str(getattr(first, "value", "a host")))
                    waiting.append(then if nameless else first)
                case _:
                    waiting.extend(ast.iter_child_nodes(one))
        return False

    bound = list(bindings(body)) if any(map(source, nodes_of(body))) else []
    for _ in range(ROUNDS):
        known = len(names)
        for target, value in bound:
            if holds(value):
                names.update(row.id for row in nodes_of(target) if isinstance(row, ast.Name))
        if len(names) == known:
            break
    return holds


def bindings(body: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield each name, or names, with what they get."""
    for node in nodes_of(body):
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:  # of `a[key] = x`, the name `a` and not `key`
                    yield target.value if isinstance(target, ast.Subscript) else target, value
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                yield target, value
            case ast.AugAssign() | ast.NamedExpr():
                yield node.target, node.value
            case ast.For() | ast.AsyncFor() | ast.comprehension():
                yield node.target, node.iter
            case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
                yield target, value
