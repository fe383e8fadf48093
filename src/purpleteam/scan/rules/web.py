"""How a web app is set up: debuggers, shares, floods, origins, Gradio's switches."""

import ast
from collections.abc import Iterator

from purpleteam.scan.rules import Hit, Module, argument, is_literal, nodes_of, rule
from purpleteam.scan.rules.served import bindings, functions, looks_at_size

DEBUGGERS = (
    *("flask", "quart", "dash", "bottle", "sanic", "fastapi", "starlette", "litestar", "django"),
    *("werkzeug", "tornado"),
)
STARTERS = (".run", ".run_server", "run_simple", "config.update", ".from_mapping")
SETTINGS = ("INSTALLED_APPS", "ROOT_URLCONF", "ALLOWED_HOSTS", "DATABASES")  # Django's
APPS = ("Flask", "FastAPI", "Starlette", "Application")
FLASK_BODIES = frozenset(
    f"flask.request.{name}"
    for name in ("files", "data", "json", "form", "values", "stream", "get_json", "get_data")
)
LIMITS = ("MAX_CONTENT_LENGTH", "content_length", "content-length", "max_part_size")
ORIGINS = frozenset({
    *("CORS_ALLOW_ALL_ORIGINS", "CORS_ORIGIN_ALLOW_ALL", "CORS_ORIGINS", "CORS_ALLOWED_ORIGINS"),
    *("Access-Control-Allow-Origin", "access-control-allow-origin", "CORS_ALLOWED_ORIGIN_REGEXES"),
})  # fmt: skip
EVERYWHERE = ("", ".", "..", "~", "./", "../", "*")  # as a path that Gradio may hand out


@rule("PT005", "high", 489, needs="debug",
      fix="leave debug off; Werkzeug's debugger runs code for whoever reaches it")  # fmt: skip
def debug_server(module: Module) -> Iterator[Hit]:
    """A web app that is started with its debugger."""
    for call, name in module.calls if module.imports(*DEBUGGERS) else ():
        runs = name.endswith(STARTERS)
        on = argument(call, "debug", 2 if runs and module.imports("flask") else None)
        options = (on, argument(call, "use_debugger"), argument(call, "DEBUG"))
        starts = runs or name.split(".")[-1] in APPS
        if starts and any(is_literal(option, True) for option in options):
            yield Hit(call, f"{name} with debug=True")
        elif name == "werkzeug.debug.DebuggedApplication":
            yield Hit(call, f"{name} runs code for whoever reaches it")
    django = any(f"\n{name} =" in f"\n{module.text}" for name in SETTINGS)
    web = module.imports(*DEBUGGERS)
    for node in module.of(ast.Assign):
        if isinstance(node.value, ast.Constant):
            meant = node.value.value in ("1", "true", 1)
            if meant and any(_is_debug(target, web, django) for target in node.targets):
                yield Hit(node, "the debugger is switched on")


def _is_debug(target: ast.expr, web: bool, django: bool) -> bool:
    match target:
        case ast.Name(id="DEBUG"):
            return django
        case ast.Attribute(attr=name):
            return web and name == "debug"
        case ast.Subscript(value=table, slice=ast.Constant(value=key)):
            environ = getattr(table, "attr", getattr(table, "id", "")) == "environ"
            return key == "FLASK_DEBUG" or (web and key == "DEBUG" and not environ)
    return False


@rule("PT006", "medium", 668, "leave share out, and bind to 127.0.0.1", needs="launch")
def public_share(module: Module) -> Iterator[Hit]:
    """A Gradio app that opens a public tunnel."""
    for call, name in module.calls:
        if name.endswith("launch") and is_literal(argument(call, "share"), True):
            yield Hit(call, "launch with share=True opens a public address")


@rule("PT010", "medium", 770, "set app.config['MAX_CONTENT_LENGTH'], or read at most so many bytes",
      "medium")  # fmt: skip
def no_upload_limit(module: Module) -> Iterator[Hit]:
    """An app that reads a request of any size."""
    if any(limit in module.text for limit in LIMITS):
        return
    attributes = module.of(ast.Attribute) if "flask" in module.text else ()
    if any(module.dotted(node) in FLASK_BODIES for node in attributes):
        for call, name in module.calls:
            if name == "flask.Flask":
                yield Hit(call, "the app reads uploads and sets no MAX_CONTENT_LENGTH")
    for function in functions(module) if module.imports("fastapi", "starlette", "litestar") else ():
        files = {
            row.arg
            for row in (*function.args.args, *function.args.kwonlyargs)
            if row.annotation is not None and "UploadFile" in ast.unparse(row.annotation)
        }
        if looks_at_size(function):
            continue
        for target, value in bindings(function):
            if getattr(value, "id", None) in files:
                files.add(getattr(target, "id", ""))
        whole = {f"{name}{part}.read" for name in files for part in ("", ".file")}
        for call, name in module.calls_in(nodes_of(function)):
            if name == "request.body" or (name in whole and not call.args and not call.keywords):
                yield Hit(call, f"{name} takes an upload of any size into memory")


@rule("PT016", "medium", 942, "name the origins that may read answers, or allow none",
      needs="cors access-control-allow-origin")  # fmt: skip
def any_origin(module: Module) -> Iterator[Hit]:
    """A web app whose answers any page may read (CORS)."""
    why = "any page in a visitor's browser may read the answers"
    for call, name in module.calls:
        last = name.split(".")[-1]
        middleware = any("CORSMiddleware" in module.dotted(row) for row in call.args)
        if last == "CORSMiddleware" or middleware:
            wide = [argument(call, option) for option in ("allow_origins", "allow_origin_regex")]
            if any(map(_is_star, wide)):
                yield Hit(call, why)
        elif name.startswith("flask_cors."):
            chosen = argument(call, "origins"), argument(call, "resources", 1)
            default = last in ("CORS", "cross_origin", "init_app") and chosen == (None, None)
            named = chosen[0] is not None or _names_origins(chosen[1])
            if default or any(map(_is_star, chosen)) or (chosen[1] is not None and not named):
                yield Hit(call, why)
        elif getattr((*call.args, call)[0], "value", None) in ORIGINS and any(
            map(_is_star, call.args)
        ):
            yield Hit(call, why)
    for node in module.of(ast.Assign, ast.Dict):
        match node:
            case ast.Assign(targets=[target], value=value):
                part = target.slice if isinstance(target, ast.Subscript) else target
                key = getattr(part, "value" if isinstance(part, ast.Constant) else "id", None)
                if key in ORIGINS and (_is_star(value) or is_literal(value, True)):
                    yield Hit(node, why)
            case ast.Dict(keys=keys, values=values):
                for option, value in zip(keys, values, strict=True):
                    if getattr(option, "value", None) in ORIGINS and _is_star(value):
                        yield Hit(value, why)


def _is_star(node: ast.AST | None) -> bool:
    """Return whether an option says any origin: by itself, in a list or table, or the asker's."""
    if node is None:
        return False
    texts = [row.value for row in nodes_of(node) if isinstance(row, ast.Constant)]
    return any(text in ("*", ".*", "^.*$", "https?://.*", "null", "Origin") for text in texts)


def _names_origins(node: ast.AST | None) -> bool:
    """Return whether a table of paths says which origins it means, or cannot be read here."""
    if not isinstance(node, ast.Dict):
        return not isinstance(node, ast.Constant | ast.List)
    return any(getattr(row, "value", "") == "origins" for row in nodes_of(node))


@rule("PT021", "medium", 1188, "set max_file_size and queue(max_size=...); leave the rest off")
def open_gradio(module: Module) -> Iterator[Hit]:
    """A Gradio app that shows its errors, hands out folders, or takes any number of requests."""
    if not module.imports("gradio"):
        return
    limited = any(
        argument(call, option) is not None
        for call, name in module.calls
        if name.endswith((".queue", "launch"))
        for option in ("max_file_size", "max_size", "max_threads")
    )
    for call, name in module.calls:
        launched = name.endswith(".launch") or name == "launch"
        if launched or name == "gradio.mount_gradio_app":
            faults = []
            if is_literal(argument(call, "show_error"), True):
                faults.append("show_error sends the text of exceptions")
            if _is_wide(argument(call, "allowed_paths")):
                faults.append("allowed_paths hands out files beyond the app's own")
            if launched and not limited:
                faults.append("neither the size of an upload nor the queue has a limit")
            if faults:
                yield Hit(call, f"launch: {'; '.join(faults)}")
        elif name == "gradio.set_static_paths" and _is_wide(argument(call, "paths", 0)):
            yield Hit(call, "set_static_paths hands out files beyond the app's own")


def _is_wide(node: ast.AST | None) -> bool:
    """Return whether a list of folders holds one that is not a fixed folder below the app's own."""
    if node is None:
        return False
    for part in node.elts if isinstance(node, ast.List | ast.Tuple) else [node]:
        text = part.value if isinstance(part, ast.Constant) else None
        if not isinstance(text, str) or text in EVERYWHERE or text.startswith(("/", "~", "..")):
            return True
    return False
