"""The description has every path of the door, and each command with the schema of its body."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import msgspec

from journeyman import App, Command, Feature, State
from journeyman.doors.http.openapi import describe
from journeyman.doors.web.exposed import exposed_commands, exposed_queries
from journeyman.examples.blog.app import app as blog
from tests.doors.http.shop import make_app, shop


async def described() -> dict[str, Any]:
    async with shop() as client:
        document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


async def test_every_command_is_there_with_its_body() -> None:
    document = await described()
    for command in exposed_commands(make_app().catalog):
        operation = document["paths"][f"/commands/{command.name}"]["post"]
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = document["components"]["schemas"][reference.removeprefix("#/components/schemas/")]
        names = [field.encode_name for field in msgspec.structs.fields(command.message_type.body)]
        assert list(schema["properties"]) == names


async def test_every_query_is_there_with_its_fields_and_its_answer() -> None:
    document = await described()
    assert {path for path in document["paths"] if path.startswith("/queries/")} == {
        f"/queries/{query.name}" for query in exposed_queries(make_app().catalog)
    }
    echo = document["paths"]["/queries/shop/echo"]["get"]
    parameters = {parameter["name"]: parameter for parameter in echo["parameters"]}
    assert parameters["page"]["schema"] == {"type": "integer", "minimum": 1, "default": 1}
    assert parameters["tags"]["schema"]["type"] == "array"
    assert "application/json" in parameters["line"]["content"]
    assert parameters["Journeyman-At-Least"]["in"] == "header"
    assert echo["responses"]["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Echo"}


async def test_every_path_that_is_described_answers() -> None:
    async with shop() as client:
        for path, operations in (await described())["paths"].items():
            [method] = operations
            if path != "/log/stream":
                response = await client.request(method, path, json={} if method == "post" else None)
                assert response.status_code not in (404, 405), path


def test_it_keeps_to_the_rules_of_openapi() -> None:
    """Not the whole of them: every reference leads somewhere, every schema is one, every operation has its own id."""
    document = describe(blog.catalog)
    schemas = document["components"]["schemas"]
    ids = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    ]
    assert len(ids) == len(set(ids))
    for reference in _references(document):
        kind, _, name = reference.removeprefix("#/components/").partition("/")
        assert name in document["components"][kind], reference
    for name in schemas:
        jsonschema_rs.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}})


def test_two_classes_of_one_name_are_told_apart() -> None:
    one, two = Feature("one", state=State), Feature("two", state=State)

    def number() -> None:
        @one.command("set")
        class Set(Command):
            value: int

    def text() -> None:
        @two.command("set")
        class Set(Command):
            value: str

    number()
    text()
    document = describe(App(features=[one, two]).catalog)

    for name, kind in (("one", "integer"), ("two", "string")):
        operation = document["paths"][f"/commands/{name}/set"]["post"]
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
        assert schema["properties"]["value"] == {"type": kind}


async def test_the_lists_have_what_there_is_with_schemas() -> None:
    async with shop() as client:
        commands = {entry["name"]: entry for entry in (await client.get("/commands")).json()}
        queries = {entry["name"]: entry for entry in (await client.get("/queries")).json()}

    assert {"shop/place", "shop/touch", "journeyman/retry-job"} < set(commands)
    assert "journeyman/job-started" not in commands
    place = commands["shop/place"]
    assert place["description"] == "Place an order.\n\nA number may be used twice."
    assert (place["version"], place["subject"]) == (1, "order_id")
    jsonschema_rs.validate(place["schema"], {"order_id": "a", "number": 1})
    assert set(queries) == {"shop/get", "shop/echo", "shop/break"}
    jsonschema_rs.validate(queries["shop/get"]["answer"], {"order_id": "a", "number": 1})


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for item in value for found in _references(item)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + [found for item in value.values() for found in _references(item)]
