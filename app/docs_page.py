"""Swagger UI at `/docs`, from this service's own files; `/` leads to it."""

import re
from base64 import b64encode
from hashlib import sha256

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, RedirectResponse

from app.links import RootPath

_PATH = "/docs"
_FILES = "/static-offline-docs"  # where fastapi_offline serves them

_STYLE = """
/* The service ignores empty fields, so whether they are sent is no choice to think about. */
.swagger-ui .parameter__empty_value_toggle { display: none; }
@media (max-width: 640px) {
  .swagger-ui .wrapper, .swagger-ui .opblock-description-wrapper { padding: 0 10px; }
  .swagger-ui .opblock .opblock-section-header { flex-wrap: wrap; gap: 8px; padding: 8px 10px; }
  .swagger-ui .try-out { display: flex; gap: 8px; padding: 0; }
  .swagger-ui .try-out .btn { margin: 0; min-width: 0; padding: 5px 14px; }
  .swagger-ui .parameters-container, .swagger-ui .table-container, .swagger-ui .responses-inner { padding: 10px; }
  .swagger-ui .opblock-section-request-body > div:last-child > div { padding: 0 10px; }
  .swagger-ui table.parameters, .swagger-ui .parameters tbody, .swagger-ui tr.parameters,
  .swagger-ui .parameters tr, .swagger-ui .parameters td, .swagger-ui .opblock-section-request-body table,
  .swagger-ui .opblock-section-request-body tbody, .swagger-ui .opblock-section-request-body tr,
  .swagger-ui .opblock-section-request-body td, .swagger-ui .responses-table, .swagger-ui .responses-table > tbody,
  .swagger-ui tr.response, .swagger-ui .response > td {
    box-sizing: border-box; display: block; max-width: 100%; min-width: 0; width: 100%;
  }
  .swagger-ui .parameters-col_description, .swagger-ui .response-col_description { padding-left: 0; padding-right: 0; }
  .swagger-ui .parameters thead, .swagger-ui .responses-table > thead, .swagger-ui .response > .response-col_links {
    display: none;
  }
  .swagger-ui input, .swagger-ui select, .swagger-ui textarea, .swagger-ui .parameters-col_description .markdown {
    box-sizing: border-box; max-width: 100%; min-width: 0;
  }
  .swagger-ui input[type=text], .swagger-ui input[type=file], .swagger-ui textarea { width: 100%; }
  .swagger-ui .opblock-body pre, .swagger-ui .renderedMarkdown code { overflow-wrap: anywhere; white-space: pre-wrap; }
}
"""


def _policy(html: bytes) -> str:
    """The content security policy of a page: files of this service, and the scripts and styles within the page."""
    scripts, styles = (
        " ".join(
            f"'sha256-{b64encode(sha256(text).digest()).decode()}'" for text in re.findall(inline, html, re.DOTALL)
        )
        for inline in (rb"<script>(.*?)</script>", rb"<style>(.*?)</style>")
    )
    return (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' {styles}; img-src 'self' data: blob:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def serve_docs(app: FastAPI) -> None:
    """Add the page and the way to it."""

    @app.get(_PATH, include_in_schema=False)
    async def docs(root_path: RootPath) -> HTMLResponse:
        files = f"{root_path}{_FILES}"
        page = get_swagger_ui_html(
            openapi_url=f"{root_path}{app.openapi_url}",
            title=app.title,
            swagger_js_url=f"{files}/swagger-ui-bundle.js",
            swagger_css_url=f"{files}/swagger-ui.css",
            swagger_favicon_url=f"{files}/favicon.png",
            swagger_ui_parameters=app.swagger_ui_parameters,
        )
        html = bytes(page.body).replace(b"</head>", f"<style>{_STYLE}</style></head>".encode(), 1)
        return HTMLResponse(html, headers={"Content-Security-Policy": _policy(html)})

    @app.get("/", include_in_schema=False)
    async def root(root_path: RootPath) -> RedirectResponse:
        return RedirectResponse(f"{root_path}{_PATH}")
