"""The service's documentation as one page, made from its OpenAPI document. Loads no torch.

No script, and nothing from another machine: it is read where there is no network, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from markdown_it import MarkdownIt

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; }
pre { background: #f4f4f4; padding: 0.7rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
td, th { border: 1px solid #ccc; padding: 0.3rem 0.6rem; text-align: left; vertical-align: top; }
@media (prefers-color-scheme: dark) {
  body { color: #e8e8e8; background: #171717; } a { color: #8ab4f8; }
  pre { background: #262626; } h2, td, th { border-color: #555; } }
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
# Of a schema, what is told beside its type.
LIMITS = ("minimum", "maximum", "minLength", "maxLength", "pattern", "enum", "default")


def page(document: Mapping[str, Any]) -> str:
    """One page of HTML on all routes of an OpenAPI document.

    Args:
        document: as ``/openapi.json`` has it.
    """
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n",
        _text(info.get("description", "")),
        '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>\n<ul>\n',
        *(
            f'<li><a href="#{escape(one["operationId"])}"><code>{method} {escape(path)}</code></a> '
            f"{_summary(one)}</li>\n"
            for method, path, one in operations
        ),
        "</ul>\n",
        *(part for one in operations for part in _operation(*one, document)),
        "</body>\n</html>\n",
    ]
    return "".join(parts)


def _operation(
    method: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]
) -> Iterator[str]:
    name = escape(operation["operationId"])
    yield f'<h2 id="{name}"><code>{method} {escape(path)}</code></h2>\n'
    yield _text(operation.get("description", ""))
    parameters = operation.get("parameters", ())
    rows = [
        [
            one["name"],
            one["in"],
            *_type_and_limits(one["schema"], document),
            one.get("description", ""),
        ]
        for one in parameters
    ]
    yield _table(["parameter", "in", "type", "limits", ""], rows)
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        yield from _body(method, path, body["schema"], document)
    answers = [
        [status, answer.get("description", "")] for status, answer in operation["responses"].items()
    ]
    yield _table(["status", "answer"], answers)
    example = operation["responses"].get("200", {}).get("content", {})
    shown = example.get("application/json", {}).get("example")
    if shown is not None:
        yield f"<details><summary>An answer</summary>{_json(shown)}</details>\n"


def _body(
    method: str, path: str, schema: Mapping[str, Any], document: Mapping[str, Any]
) -> Iterator[str]:
    resolved = _resolved(schema, document)
    needed = resolved.get("required", ())
    rows = [
        [name, "needed" if name in needed else "", *_type_and_limits(one, document)]
        for name, one in resolved.get("properties", {}).items()
    ]
    yield _table(["field", "", "type", "limits"], rows)
    for example in resolved.get("examples", ()):
        sent = escape(json.dumps(example))
        yield (
            f"<pre>curl -X {method} -H 'Content-Type: application/json' -d '{sent}' "
            f"http://127.0.0.1:8000{escape(path)}</pre>\n"
        )


def _type_and_limits(schema: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str, str]:
    """A schema's type and limits."""
    resolved = _resolved(schema, document)
    either = [_resolved(one, document) for one in resolved.get("anyOf", ())]
    kinds = [str(one.get("type", "any")) for one in either or [resolved]]
    limits = [
        f"{name} {json.dumps(one[name])}"
        for one in [resolved, *either]
        for name in LIMITS
        if name in one
    ]
    return " or ".join(kinds), ", ".join(limits)


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        place: Any = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            place = place[name]
        schema = place
    return schema


def _summary(operation: Mapping[str, Any]) -> str:
    return escape(operation.get("description", "").partition("\n")[0])


def _text(markdown: str) -> str:
    """Of our own docstrings; what would be markup is shown as it stands."""
    return str(MarkdownIt("commonmark", {"html": False}).render(markdown))


def _table(columns: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f"<table>\n<tr>{head}</tr>\n{body}</table>\n"


def _json(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2))}</pre>"
