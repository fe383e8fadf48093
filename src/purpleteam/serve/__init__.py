"""The app that serves a stored classifier, and the checks that prove its guards; no torch.

- `main`      `serve` for the command line, `running_app` for notebooks, tests, checks and runs
- `engine`    a stored model in ONNX Runtime;  `app`: the routes;  `static`: the page
- `settings`  all that the app is asked but the model
- `guards`    the bounds on requests, one file each
- `wire`      HTTP/1.1 with the bounds on connections;  `exchange`: a request and its answer on it;
              `crowd`: all connections together
- `tls`       its own certificate;  `tally`, `loglines`, `exposition`: what `guards.watch` tells
- `checks`    the executed checks `web.*`, each with a server that it must fail on
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purpleteam.serve.main import running_app, serve

__all__ = ["running_app", "serve"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'purpleteam.serve' has no attribute {name!r}")
    return getattr(importlib.import_module("purpleteam.serve.main"), name)
