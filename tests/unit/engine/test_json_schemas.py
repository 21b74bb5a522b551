"""Schemas that lead back to themselves: those that end are fine, those that never would are refused."""

from engine.json_schemas import schema_mistake


def test_a_schema_may_hold_itself_where_that_goes_deeper_into_the_value() -> None:
    tree = {
        "type": "object",
        "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}, "$ref": {"$ref": "#/$defs/x"}},
    }
    linked = {
        "$defs": {"x": {"anyOf": [{"type": "null"}, {"properties": {"next": {"$ref": "#/$defs/x"}}}]}},
        "$ref": "#/$defs/x",
    }
    for schema in (tree | {"$defs": {"x": {"$ref": "#/$defs/y"}, "y": True}}, linked):
        assert schema_mistake(schema) is None
