"""What a served model gives away: texts of exceptions, and a score for every class."""

import ast
from collections.abc import Iterator

from purpleteam.scan.rules import Hit, Module, nodes_of, rule
from purpleteam.scan.rules.served import Function, Test, answers, flow, functions, routes, served

TRACES = frozenset({"traceback.format_exc", "traceback.format_exception", "sys.exc_info"})
TEXTS = ("args", "message", "msg", "strerror", "reason", "__str__", "__repr__")
NETS = frozenset({"model", "net", "network", "classifier"})
ERROR_HANDLERS = ("errorhandler", "app_errorhandler", "exception_handler")
SOFTMAX = frozenset({"softmax", "Softmax", "log_softmax", "predict_proba", "sigmoid"})
FEW = frozenset({
    *("argmax", "argmin", "argsort", "max", "min", "topk", "most_common", "sum", "len", "shape"),
    *("any", "all", "isfinite", "isnan"),
})  # fmt: skip
ONE = frozenset({"float", "int", "round", "bool", "item"})  # of each in a loop, they are all scores


@rule("PT007", "medium", 209, "log the exception; answer with a fixed text", "medium")
def exception_text(module: Module) -> Iterator[Hit]:
    """The text of an exception in an answer to a client."""
    answering = set(served(module))
    for function in functions(module):
        inner = list(nodes_of(function))
        names = {row.name for row in inner if isinstance(row, ast.ExceptHandler) and row.name}
        caught = set(names)
        handles = any(
            getattr(getattr(row, "func", row), "attr", "") in ERROR_HANDLERS
            and not _of_http(module, row)
            for row in routes(function)
        )
        if handles or _is_handler(module, function):
            names |= {row.arg for row in function.args.args[-1:]}
        tells = flow(function, _told_of(module, names))
        for node in answers(module, function, returns=function in answering):
            named = (row.value for row in getattr(node, "keywords", ()))
            given = [*getattr(node, "args", ()), *named]
            if tells(node) or any(getattr(row, "id", None) in caught for row in given):
                yield Hit(node, "the text of an exception goes to the client")


def _of_http(module: Module, route: ast.expr) -> bool:
    """Return whether a handler gets errors of HTTP alone, whose texts are fixed or for clients."""
    what = route.args[0] if isinstance(route, ast.Call) and route.args else None
    code = getattr(what, "value", None)
    fixed = isinstance(code, int) and (code != 500 or module.imports("flask", "quart"))
    return fixed or module.dotted(what).endswith("HTTPException")


def _is_handler(module: Module, function: Function) -> bool:
    makers = ("register_error_handler", "add_exception_handler")
    given = (row for call, name in module.calls if name.endswith(makers) for row in call.args)
    return any(getattr(row, "id", "") == function.name for row in given)


def _told_of(module: Module, names: set[str]) -> Test:
    """Return whether a node is the text of an exception of these names, or a traceback."""

    def is_text(node: ast.AST | None) -> bool:
        match node:
            case ast.Name(id=used) | ast.Attribute(value=ast.Name(id=used), attr="args"):
                return used in names
            case ast.Attribute(value=ast.Name(id=used), attr=attribute):
                return used in names and attribute in TEXTS
        return False

    def source(node: ast.AST) -> bool:
        match node:
            case ast.Call(func=ast.Name(id="str" | "repr" | "ascii" | "format"), args=[used, *_]):
                return is_text(used)
            case ast.Call(func=ast.Attribute(attr="format"), args=used):
                return any(map(is_text, used))
            case ast.FormattedValue(value=used):
                return is_text(used)
            case ast.BinOp(op=ast.Mod(), right=used):
                return any(map(is_text, used.elts if isinstance(used, ast.Tuple) else [used]))
            case ast.Attribute():
                return is_text(node)
            case ast.Call():
                return module.dotted(node.func) in TRACES
        return False

    return source


@rule("PT012", "medium", 200, "answer with the label, or with the best score rounded", "low")
def all_confidences(module: Module) -> Iterator[Hit]:
    """A served function that returns a score for every class: help for whoever copies the model."""
    keras, onnx = module.imports("keras", "tensorflow"), module.imports("onnxruntime")
    loops = ast.ListComp | ast.DictComp | ast.GeneratorExp | ast.SetComp | ast.For
    giving: set[str] = set()  # functions whose callers get all scores

    def source(node: ast.AST) -> bool:
        name = module.dotted(getattr(node, "func", None))
        last = name.rpartition(".")[2]
        runs = onnx and last == "run" and not name.startswith(("subprocess.", "asyncio."))
        return last in SOFTMAX or (keras and last == "predict") or runs or name in giving

    def scores_of(function: Function) -> Test:
        rows = (row for row in nodes_of(function) if isinstance(row, loops))
        looped = {inner for row in rows for inner in nodes_of(row)}

        def stop(node: ast.AST) -> bool:
            match node:
                case (
                    ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))
                    | ast.Attribute(attr=name)
                ):
                    return name in FEW or (name in ONE and node not in looped)
                case ast.Subscript(slice=ast.Slice(upper=ast.expr())):
                    return True
            return False

        def of_net(node: ast.AST) -> bool:
            return module.dotted(getattr(node, "func", None)).rpartition(".")[2] in NETS

        raw = flow(function, of_net, stop)

        def told(node: ast.AST) -> bool:
            made = getattr(node, "func", node)
            return source(node) or (getattr(made, "attr", "") == "tolist" and raw(made))

        return flow(function, told, stop)

    for function in functions(module):
        holds = scores_of(function)
        if any(isinstance(node, ast.Return) and holds(node) for node in nodes_of(function)):
            giving.add(function.name)
    for function in served(module):
        holds = scores_of(function)
        for node in answers(module, function, returns=True):
            if holds(node):
                yield Hit(node, f"{function.name} returns the scores of all classes")
                break
