"""`/v1/models`: the served models."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from lightning_xt.inference.text_completer import MAX_NEW_TOKENS
from lightning_xt.inference.text_generator import Kind
from lightning_xt.server.bodies.completion_body import CompletionBody
from lightning_xt.server.bodies.response_bodies import ModelBody, ModelList
from lightning_xt.server.bodies.translation_body import TranslationBody
from lightning_xt.server.documented_errors import GET_ERRORS, describe_errors
from lightning_xt.server.jobs.request_handler import make_json_response
from lightning_xt.server.served_model import ServedModel
from lightning_xt.server.server_context import Context, ServerContext

router = APIRouter(tags=["models"])

BODIES: dict[Kind, type[BaseModel]] = {"language_model": CompletionBody, "encoder_decoder": TranslationBody}
DEFAULTS: dict[Kind, dict[str, Any]] = {
    "language_model": {
        "temperature": 1.0,
        "n": 1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
    },
    "encoder_decoder": {"temperature": 0.0, "beams": 1, "n_best": 1, "length_penalty": 1.0},
}
"""Values that stand for null; null means no limit in other fields."""
RANGE = {"minimum": "minimum", "exclusiveMinimum": "above", "maximum": "maximum"}
"""Names of the ends of a range, by those of JSON Schema."""


@router.get("/v1/models", response_model=ModelList, responses={**GET_ERRORS, **describe_errors(503)})
async def list_models(context: Context) -> Response:
    """List the served models."""
    models = [model.describe(list_defaults(model, context)) for model in context.models.values()]
    return make_json_response({"object": "list", "data": models})


@router.get("/v1/models/{name}", response_model=ModelBody, responses={**GET_ERRORS, **describe_errors(404, 503)})
async def show_model(name: str, context: Context) -> Response:
    """Describe one model."""
    model = context.models.choose(name)
    return make_json_response(model.describe(list_defaults(model, context)))


def list_defaults(model: ServedModel, context: ServerContext) -> dict[str, dict[str, Any]]:
    """Return the default and the range of each numeric field of a model's requests."""
    found: dict[str, dict[str, Any]] = {}
    for name, schema in BODIES[model.kind].model_json_schema()["properties"].items():
        number = next((each for each in schema.get("anyOf", ()) if each.get("type") in ("number", "integer")), None)
        if number is not None:
            ends = {RANGE[key]: value for key, value in number.items() if key in RANGE}
            found[name] = {"type": number["type"], "default": DEFAULTS[model.kind].get(name), **ends}
    rows, waiting = context.settings.rows, context.settings.max_waiting
    for name, limit in (("beams", rows), ("n_best", rows), ("n", rows + waiting)):
        if name in found:
            found[name]["maximum"] = min(found[name]["maximum"], limit)
    most = context.settings.max_tokens
    if model.max_length is not None:
        most = min(most, model.max_length)
    found["max_tokens"] |= {"minimum": 1, "maximum": most}
    if model.kind == "language_model":
        found["max_tokens"]["default"] = min(MAX_NEW_TOKENS, most)
    return found
