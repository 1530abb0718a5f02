"""The API description and its page, which works without the internet."""

from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from bulletproof.service.schemas import ErrorAnswer

_WHEN = {
    400: "The body itself is broken",
    401: "API key missing or wrong",
    403: "Not allowed",
    404: "No such model, version, run or page",
    405: "Method not allowed",
    409: "Not possible in the present state",
    408: "The body stopped arriving",
    413: "Too large",
    415: "Unsupported file format",
    422: "Understood but invalid; a bad file's content included",
    429: "The caller's own rate limit",
    500: "A bug of ours, or the model failed on valid input",
    502: "A third party answered rubbish",
    503: "Overloaded, or something needed is down; see Retry-After",
    504: "The time allowed is over",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description} for status, description in _WHEN.items()
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Bulletproof AI Processor: API</title>
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout"
});
"""
# Swagger UI sets styles from its script and shows its icons as data.
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def add_pages(app: FastAPI) -> None:
    """Add ``/docs``; its script and styles come from an installed package, not from a CDN."""

    async def page() -> Response:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})

    async def start() -> Response:
        return Response(_START, media_type="text/javascript")

    app.add_api_route("/docs", page, include_in_schema=False)
    app.add_api_route("/docs/start.js", start, include_in_schema=False)
    assets = StaticFiles(directory=str(files("fastapi_offline") / "static"))
    app.router.routes.append(Mount("/docs/assets", app=assets))
