"""Page that describes the API, written from its schema, without resources from elsewhere."""

from collections.abc import Mapping
from html import escape
from typing import Any

from lightning_xt.system.json_text import to_json

EXAMPLES = {
    "/v1/completions": {"prompt": "Once upon a time", "max_tokens": 64, "stream": True},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64},
    "/v1/translations": {"source": "a dog runs", "beams": 4, "n_best": 2},
}
INTRODUCTION = """\
<p>Completions and chat completions have the form of OpenAI's API, whose clients work with the address of this server
followed by <code>/v1</code>. A request with an unknown field is refused. If the server has a key, send it as
<code>Authorization: Bearer KEY</code>. Errors are <code>{"error": {"message", "type", "param", "code"}}</code>.
Machines read <a href="openapi.json">openapi.json</a>; people may try the <a href="./">playground</a>.</p>
"""


def write_page(schema: Mapping[str, Any]) -> str:
    """Return the page of an OpenAPI schema as HTML."""
    sections = [
        _write_route(method.upper(), path, route, schema)
        for path, methods in schema["paths"].items()
        for method, route in methods.items()
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(schema["info"]["title"])}</title><link rel="icon" href="playground/icon.svg">'
        '<link rel="stylesheet" href="docs/style.css"></head><body>\n'
        f"<h1>{escape(schema['info']['title'])}</h1>\n{INTRODUCTION}{''.join(sections)}</body></html>\n"
    )


def _write_route(method: str, path: str, route: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    parts = [f"<section><h2><code>{method} {escape(path)}</code></h2><p>{escape(route.get('description', ''))}</p>\n"]
    if path in EXAMPLES:
        body = escape(to_json(EXAMPLES[path]))
        command = f"curl -N http://127.0.0.1:8000{path} -H 'Content-Type: application/json' \\\n  -d '{body}'"
        parts.append(f"<pre>{command}</pre>\n")
    content = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if content is not None:
        body_schema = _resolve(content, schema)
        required = body_schema.get("required", ())
        rows = [
            _write_field(name, field, name in required, schema) for name, field in body_schema["properties"].items()
        ]
        head = "<tr><th>Field</th><th>Type</th><th>Meaning</th></tr>"
        parts.append(f'<div class="wide"><table>{head}{"".join(rows)}</table></div>\n')
    codes = [f"<code>{code}</code> {escape(each['description'])}" for code, each in route["responses"].items()]
    return "".join([*parts, f"<p>{'<br>'.join(codes)}</p></section>\n"])


def _write_field(name: str, field: Mapping[str, Any], required: bool, schema: Mapping[str, Any]) -> str:
    kinds = list(dict.fromkeys(_name_type(each, schema) for each in field.get("anyOf", [field])))
    kind = " or ".join(each for each in kinds if each != "null")
    text = escape(field.get("description", "")) + (" Required." if required else "")
    return f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{text}</td></tr>"


def _name_type(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return _name_type(_resolve(field, schema), schema)
    if "anyOf" in field:
        return " or ".join(_name_type(each, schema) for each in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_name_type(field['items'], schema)}"
    name = str(field.get("type", "any"))
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum")
    known = {"string": "text", "boolean": "true or false"}.get(name, name)
    if low is None or high is None or high >= 2**53:
        return known
    return f"{known} {'above' if 'exclusiveMinimum' in field else 'from'} {low} to {high}"


def _resolve(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in field:
        return field
    found: Mapping[str, Any] = schema["components"]["schemas"][field["$ref"].rpartition("/")[2]]
    return found
