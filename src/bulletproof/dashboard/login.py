"""The pages that need no script: logging in, and what is wrong when there is nothing else to show."""

from html import escape

from starlette.responses import HTMLResponse

_POLICY = "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --ground: #f3f5f8; --card: #fff; --line: #d5dbe3;
  --accent: #1558d6; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa5b4; --ground: #11151b; --card: #1a2029;
  --line: #303947; --accent: #8ab4ff; --bad: #ff8a80 } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { width: min(26rem, 100%); background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 1.75rem }
h1 { font-size: 1.25rem; margin: 0 0 .25rem }
p { margin: 0 0 1rem; color: var(--soft) }
.bad { color: var(--bad); font-weight: 600 }
label { display: block; font-weight: 600; margin-bottom: .35rem }
input, button { width: 100%; font: inherit; padding: .65rem .75rem; border-radius: 8px }
input { border: 1px solid var(--soft); background: transparent; color: inherit; margin-bottom: 1rem }
button { border: 0; background: var(--accent); color: var(--card); font-weight: 600; cursor: pointer }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
"""
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
