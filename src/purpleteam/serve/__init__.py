"""The app that serves a stored classifier, and the checks that prove its guards; no torch.

- `main`      `serve` for the command line, `running_app` for notebooks, tests, checks and runs
- `engine`    a stored model in ONNX Runtime: 784 bytes in, a label or a reason out
- `app`       the routes: the page, its files, /predict, /livez, /readyz, /version
- `guard`     every bound in one place, and pure ASGI around the app: headers, hosts, methods,
              origins, size and time of bodies
- `wire`      the HTTP protocol with bounds on heads, pipelines, waits and connections
- `checks`    the executed checks `web.*`, each with a server that it must fail on
- `static`    the page: plain HTML, CSS and JavaScript, nothing from elsewhere
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purpleteam.serve.main import running_app, serve

__all__ = ["running_app", "serve"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from purpleteam.serve import main

        return getattr(main, name)
    raise AttributeError(f"module 'purpleteam.serve' has no attribute {name!r}")
