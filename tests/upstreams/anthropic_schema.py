"""What Anthropic's `/v1/messages` takes, as data. Source: Anthropic's API reference."""

from upstreams.checks import ANY_OBJECT, FLAG, TEXT, WHOLE, array, nullable, obj, one_of

CACHE = nullable(obj({"type": one_of("ephemeral"), "ttl": one_of("5m", "1h")}, "type"))
FILLED = {"type": "string", "minLength": 1}
BASE64 = {"type": "string", "pattern": r"^[A-Za-z0-9+/=\s]+$"}
SOURCE = {
    "anyOf": [
        obj({"type": one_of("base64"), "media_type": TEXT, "data": BASE64}, "type", "media_type", "data"),
        obj({"type": one_of("url"), "url": {"type": "string", "pattern": "^https?://"}}, "type", "url"),
        obj({"type": one_of("file"), "file_id": TEXT}, "type", "file_id"),
    ]
}
_PLAIN = obj({"type": one_of("text"), "media_type": one_of("text/plain"), "data": FILLED}, "type", "media_type", "data")
BLOCKS = {
    "text": obj({"type": TEXT, "text": FILLED, "cache_control": CACHE, "citations": {}}, "type", "text"),
    "image": obj({"type": TEXT, "source": SOURCE, "cache_control": CACHE}, "type", "source"),
    "document": obj(
        {
            "type": TEXT,
            "source": {"anyOf": [*SOURCE["anyOf"], _PLAIN]},
            "cache_control": CACHE,
            "title": {},
            "context": {},
            "citations": {},
        },
        "type",
        "source",
    ),
    "tool_use": obj(
        {
            "type": TEXT,
            "id": {"type": "string", "pattern": r"^[a-zA-Z0-9_-]+$"},
            "name": FILLED,
            "input": ANY_OBJECT,
            "cache_control": CACHE,
        },
        "type",
        "id",
        "name",
        "input",
    ),
    "tool_result": obj(
        {
            "type": TEXT,
            "tool_use_id": {"type": "string", "pattern": r"^[a-zA-Z0-9_-]+$"},
            "content": {"anyOf": [TEXT, array(ANY_OBJECT)]},
            "is_error": FLAG,
            "cache_control": CACHE,
        },
        "type",
        "tool_use_id",
    ),
    "thinking": obj({"type": TEXT, "thinking": TEXT, "signature": FILLED}, "type", "thinking", "signature"),
    "redacted_thinking": obj({"type": TEXT, "data": FILLED}, "type", "data"),
}
TOOL = obj(
    {
        "type": one_of("custom"),
        "name": {"type": "string", "pattern": r"^[a-zA-Z0-9_-]{1,128}$"},
        "description": TEXT,
        "input_schema": {"type": "object", "required": ["type"], "properties": {"type": one_of("object")}},
        "cache_control": CACHE,
        "strict": FLAG,
    },
    "name",
    "input_schema",
)
TOOL_CHOICE = {
    "anyOf": [
        obj({"type": one_of("auto", "any"), "disable_parallel_tool_use": FLAG}, "type"),
        obj({"type": one_of("tool"), "name": TEXT, "disable_parallel_tool_use": FLAG}, "type", "name"),
        obj({"type": one_of("none")}, "type"),
    ]
}
MESSAGE = obj({"role": TEXT, "content": {"anyOf": [FILLED, array(ANY_OBJECT, 1)]}}, "role", "content")
SAMPLING = {
    "temperature": {"type": "number", "minimum": 0, "maximum": 1},
    "top_p": {"type": "number", "minimum": 0, "maximum": 1},
    "top_k": WHOLE,
}
FIELDS = {
    "model": TEXT,
    "messages": array(ANY_OBJECT, 1),
    "max_tokens": {"type": "integer", "minimum": 1},
    "system": {"anyOf": [TEXT, array(BLOCKS["text"])]},
    "stop_sequences": array({"type": "string", "pattern": r"\S"}),
    "stream": FLAG,
    "metadata": obj({"user_id": nullable(TEXT)}),
    "service_tier": one_of("auto", "standard_only"),
    "thinking": ANY_OBJECT,
    "tool_choice": TOOL_CHOICE,
    "tools": array(TOOL),
    "cache_control": CACHE,
    "container": {},
    "inference_geo": nullable(TEXT),
    "speed": nullable(one_of("standard", "fast")),
    "output_config": obj(
        {
            "effort": nullable(one_of("low", "medium", "high", "xhigh", "max")),
            "format": nullable(obj({"type": one_of("json_schema"), "schema": ANY_OBJECT}, "type", "schema")),
        }
    ),
}
REQUEST = obj(FIELDS, "model", "max_tokens", "messages")
REQUEST_WITH_SAMPLING = obj({**FIELDS, **SAMPLING}, "model", "max_tokens", "messages")
# What structured output cannot enforce and refuses.
REFUSED_IN_SCHEMAS = frozenset(
    {
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern",
        "maxItems", "uniqueItems", "minProperties", "maxProperties", "oneOf",
    }
)  # fmt: skip
