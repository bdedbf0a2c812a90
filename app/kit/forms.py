"""Models made of form and query fields."""

from collections.abc import Awaitable, Callable
from inspect import Parameter, Signature
from typing import Annotated, Any, TypeVar, get_args, get_origin

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import from_json

Model = TypeVar("Model", bound=BaseModel)


def fields_of(model: type[Model], place: Callable[..., Any]) -> Callable[..., Awaitable[Model]]:
    """A dependency for FastAPI: a model from form or query fields, one for each field of the model.

    A dictionary is given as the text of a JSON object. `place`: `fastapi.Form` or `fastapi.Query`.
    """

    async def read(**given: Any) -> Model:
        values = {name: value for name, value in given.items() if value is not None}
        for name in values.keys() & objects:
            values[name] = _parsed(name, values[name])
        try:
            return model.model_validate(values)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error

    objects = {name for name, field in model.model_fields.items() if _is_object(field.annotation)}
    parameters = [_parameter(name, field, place, name in objects) for name, field in model.model_fields.items()]
    # FastAPI reads a dependency's fields from its signature, and takes no form model together with files.
    dependency: Any = read
    dependency.__signature__ = Signature(parameters)
    return read


def _parameter(name: str, field: FieldInfo, place: Callable[..., Any], as_text: bool) -> Parameter:
    default = None if field.default in ([], {}) else field.default
    kind: Any = str if as_text else field.annotation
    if default is None:
        kind |= None
    checks = [] if as_text else field.metadata
    options = place(description=field.description, examples=field.examples)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[(kind, *checks, options)])


def _is_object(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(map(_is_object, get_args(annotation)))


def _parsed(name: str, text: str) -> dict[str, Any]:
    try:
        content = from_json(text)
    except ValueError as error:
        raise _invalid(name, text, f"must be a JSON object: {error}") from error
    if not isinstance(content, dict):
        raise _invalid(name, text, "must be a JSON object")
    return content


def _invalid(name: str, text: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "value_error", "loc": (name,), "msg": message, "input": text}])
