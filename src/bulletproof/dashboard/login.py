"""The pages that need no script: logging in, and what is wrong when there is nothing else to show."""

from html import escape
from pathlib import Path

from starlette.responses import HTMLResponse

_POLICY = "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
_STYLE = Path(__file__).with_name("login.css").read_text(encoding="utf-8")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>{title}</title><style nonce="{nonce}">{style}</style></head>
<body><main><h1>{title}</h1>{body}</main></body></html>
"""
_FORM = """<p>Use one of the API keys of the service.</p>{problem}
<form method="post" action="{action}"><label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button></form>"""


def login_page(action: str, *, nonce: str, problem: str = "", status: int = 200) -> HTMLResponse:
    """Return the form that takes an API key; the nonce lets the style of this page alone through its policy."""
    told = f'<p class="bad" role="alert">{escape(problem)}</p>' if problem else ""
    return _page("Dashboard", _FORM.format(action=escape(action), problem=told), nonce, status)


def notice_page(title: str, lines: list[str], *, nonce: str, status: int, refresh: int = 0) -> HTMLResponse:
    """Return a page that says what is wrong and what to do."""
    body = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return _page(title, body, nonce, status, f'<meta http-equiv="refresh" content="{refresh}">' if refresh else "")


def _page(title: str, body: str, nonce: str, status: int, refresh: str = "") -> HTMLResponse:
    content = _PAGE.format(title=escape(title), body=body, nonce=nonce, style=_STYLE, refresh=refresh)
    headers = {"Content-Security-Policy": _POLICY.format(nonce=nonce), "Cache-Control": "no-store"}
    # With no referrer at all, a browser would not say either that the form comes from here.
    headers["Referrer-Policy"] = "same-origin"
    return HTMLResponse(content, status_code=status, headers=headers)
