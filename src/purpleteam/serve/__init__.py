"""The app that serves a stored classifier, and the checks that prove its guards; no torch.

- `engine`    a stored model in ONNX Runtime: 784 bytes in, a label or a reason out
- `ink`       which images are no digit at all, by amount, extent and coherence of their ink
- `app`       the routes: the page, its files, /predict, /livez, /readyz, /version
- `guard`     pure ASGI around the app: headers, hosts, methods, origins, size and time of bodies
- `wire`      the HTTP protocol with bounds on heads, pipelines, waits and connections
- `crowd`     who has a place, and whose request is answered next
- `limits`    those bounds, and the body's
- `main`      `serve` for the command line, `running_app` for tests, checks and the pipeline
- `checks`    the executed checks `web.*`, each with a server that it must fail on
- `static`    the page: plain HTML, CSS and JavaScript, nothing from elsewhere
"""

from __future__ import annotations
