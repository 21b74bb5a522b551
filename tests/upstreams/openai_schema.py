"""What OpenAI's `chat/completions` and `embeddings` take, as data. Source: OpenAI's API reference."""

from upstreams.checks import ANY_OBJECT, FLAG, TEXT, WHOLE, array, nullable, obj, one_of

TEXT_PART = obj({"type": one_of("text"), "text": TEXT}, "type", "text")
IMAGE_PART = obj(
    {
        "type": one_of("image_url"),
        "image_url": obj(
            {"url": {"type": "string", "pattern": r"^(https?://|data:image/[\w.+-]+;base64,)"}, "detail": TEXT}, "url"
        ),
    },
    "type",
    "image_url",
)
FILE_PART = obj({"type": one_of("file"), "file": ANY_OBJECT}, "type", "file")
AUDIO_PART = obj({"type": one_of("input_audio"), "input_audio": ANY_OBJECT}, "type", "input_audio")
REFUSAL_PART = obj({"type": one_of("refusal"), "refusal": TEXT}, "type", "refusal")


def _content(*parts: dict) -> dict:
    return {"anyOf": [TEXT, array({"anyOf": list(parts)}, 1)]}


TOOL_CALL = obj(
    {"id": TEXT, "type": one_of("function"), "function": obj({"name": TEXT, "arguments": TEXT}, "name", "arguments")},
    "id",
    "type",
    "function",
)
MESSAGES = {
    "system": obj({"role": TEXT, "content": _content(TEXT_PART), "name": TEXT}, "role", "content"),
    "developer": obj({"role": TEXT, "content": _content(TEXT_PART), "name": TEXT}, "role", "content"),
    "user": obj(
        {"role": TEXT, "content": _content(TEXT_PART, IMAGE_PART, FILE_PART, AUDIO_PART), "name": TEXT},
        "role",
        "content",
    ),
    "assistant": obj(
        {
            "role": TEXT,
            "content": nullable(_content(TEXT_PART, REFUSAL_PART)),
            "refusal": nullable(TEXT),
            "name": TEXT,
            "tool_calls": array(TOOL_CALL, 1),
            "audio": nullable(ANY_OBJECT),
            "annotations": {"type": "array"},
            "function_call": nullable(ANY_OBJECT),
        },
        "role",
    ),
    "tool": obj(
        {"role": TEXT, "content": _content(TEXT_PART), "tool_call_id": TEXT}, "role", "content", "tool_call_id"
    ),
}
CUSTOM_TOOL = obj({"type": one_of("custom"), "custom": ANY_OBJECT}, "type", "custom")
TOOL = obj(
    {
        "type": one_of("function"),
        "function": obj(
            {
                "name": {"type": "string", "pattern": r"^[a-zA-Z0-9_-]{1,64}$"},
                "description": TEXT,
                "parameters": ANY_OBJECT,
                "strict": nullable(FLAG),
            },
            "name",
        ),
    },
    "type",
    "function",
)
RESPONSE_FORMAT = {
    "anyOf": [
        obj({"type": one_of("text", "json_object")}, "type"),
        obj(
            {
                "type": one_of("json_schema"),
                "json_schema": obj(
                    {
                        "name": {"type": "string", "pattern": r"^[a-zA-Z0-9_-]{1,64}$"},
                        "description": TEXT,
                        "schema": ANY_OBJECT,
                        "strict": nullable(FLAG),
                    },
                    "name",
                ),
            },
            "type",
            "json_schema",
        ),
    ]
}
CHAT = obj(
    {
        "model": TEXT,
        "messages": array(ANY_OBJECT, 1),
        "audio": nullable(ANY_OBJECT),
        "frequency_penalty": nullable({"type": "number", "minimum": -2, "maximum": 2}),
        "function_call": {"anyOf": [TEXT, ANY_OBJECT]},
        "functions": array(ANY_OBJECT, 1),
        "logit_bias": nullable(ANY_OBJECT),
        "logprobs": nullable(FLAG),
        "max_completion_tokens": nullable({"type": "integer", "minimum": 1}),
        "max_tokens": nullable({"type": "integer", "minimum": 1}),
        "metadata": nullable(ANY_OBJECT),
        "modalities": nullable(array(TEXT)),
        "moderation": nullable(ANY_OBJECT),
        "n": nullable({"type": "integer", "minimum": 1, "maximum": 128}),
        "parallel_tool_calls": FLAG,
        "prediction": nullable(ANY_OBJECT),
        "presence_penalty": nullable({"type": "number", "minimum": -2, "maximum": 2}),
        "prompt_cache_key": nullable(TEXT),
        "prompt_cache_options": ANY_OBJECT,
        "prompt_cache_retention": nullable(TEXT),
        "reasoning_effort": nullable(one_of("none", "minimal", "low", "medium", "high", "xhigh", "max")),
        "response_format": RESPONSE_FORMAT,
        "safety_identifier": nullable(TEXT),
        "seed": nullable(WHOLE),
        "service_tier": nullable(one_of("auto", "default", "flex", "scale", "priority", "fast")),
        "stop": {"anyOf": [TEXT, {"type": "null"}, {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 4}]},
        "store": nullable(FLAG),
        "stream": nullable(FLAG),
        "stream_options": nullable(obj({"include_usage": FLAG, "include_obfuscation": FLAG})),
        "temperature": nullable({"type": "number", "minimum": 0, "maximum": 2}),
        "tool_choice": {"anyOf": [one_of("none", "auto", "required"), ANY_OBJECT]},
        "tools": array({"anyOf": [TOOL, CUSTOM_TOOL]}, 1),
        "top_logprobs": nullable({"type": "integer", "minimum": 0, "maximum": 20}),
        "top_p": nullable({"type": "number", "minimum": 0, "maximum": 1}),
        "user": TEXT,
        "verbosity": nullable(one_of("low", "medium", "high")),
        "web_search_options": ANY_OBJECT,
    },
    "model",
    "messages",
)
EMBEDDINGS = obj(
    {
        "model": TEXT,
        "input": {
            "anyOf": [{"type": "string", "minLength": 1}, array(TEXT, 1), array(WHOLE, 1), array(array(WHOLE, 1), 1)]
        },
        "encoding_format": one_of("float", "base64"),
        "dimensions": {"type": "integer", "minimum": 1},
        "user": TEXT,
    },
    "model",
    "input",
)
