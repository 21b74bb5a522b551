"""The keys of the steps that ask models: `llm`, and `agent`, which has tools too."""

from engine.key_kinds import Key, Kind, Rendering, StepType

MAX_TOOLS = 128  # that one request may offer: OpenAI's limit
TOOL_PATTERN = r"^[^/\s$][^/$]*/[^\s$]+$"  # server/tool


def _sampling(kind: Kind, description: str, minimum: float | None = None, maximum: float | None = None) -> Key:
    return Key(kind, description, Rendering.VALUE, minimum=minimum, maximum=maximum)


LLM = StepType(
    "Asks a model. The result is its text, or data where `schema` is given.",
    {
        "prompt": Key(Kind.TEXT, "What the user says to the model; {% if %} and {% for %} work.", Rendering.TEXT),
        "messages": Key(
            Kind.MESSAGES, "The whole conversation, as a list or as one expression that gives a list.", Rendering.TEXT
        ),
        "images": Key(
            Kind.PICTURES, "Pictures beside the prompt: a data: or http(s): URL, or a list of them.", Rendering.VALUE,
            examples=("${input.photo}",),
        ),
        "system": Key(Kind.TEXT, "The system prompt; {% if %} and {% for %} work.", Rendering.TEXT),
        "model": Key(
            Kind.TEXT, "A configured name, provider/model, or a provider.", Rendering.VALUE, required=True, minimum=1,
            examples=("local", "anthropic/claude-sonnet-4-5"),
        ),
        "schema": Key(Kind.JSON_SCHEMA, "JSON Schema that the answer has to follow; the result is then data."),
        "temperature": _sampling(Kind.NUMBER, "Sampling temperature.", 0, 2),
        "top_p": _sampling(Kind.NUMBER, "Nucleus sampling: the probability mass to choose from.", 0, 1),
        "top_k": _sampling(Kind.INTEGER, "How many of the likeliest tokens to choose from.", 0),
        "min_p": _sampling(Kind.NUMBER, "The least probability relative to the likeliest token.", 0, 1),
        "max_tokens": _sampling(Kind.INTEGER, "The most tokens of the answer (default 4096).", 1),
        "stop": _sampling(Kind.STOP, "A text, or a list of texts, at which the answer ends."),
        "seed": _sampling(Kind.INTEGER, "Asks for the same answer to the same request, where the model can do that."),
        "frequency_penalty": _sampling(Kind.NUMBER, "Lowers tokens by how often they came already.", -2, 2),
        "presence_penalty": _sampling(Kind.NUMBER, "Lowers tokens that came already.", -2, 2),
        "repetition_penalty": _sampling(Kind.NUMBER, "Lowers tokens that came already, as a factor.", 0, 10),
        "logit_bias": _sampling(Kind.NUMBERS, "What is added to the likelihood of tokens, by token id."),
        "extra": Key(
            Kind.OBJECT, "Other fields of the request's body, as the provider names them.", Rendering.VALUE,
            examples=({"service_tier": "flex"},),
        ),
        "reasoning_effort": _sampling(Kind.TEXT, "How much a reasoning model thinks, in its provider's words."),
    },
    one_of=("prompt", "messages"),
    not_both=("images", "messages"),
)  # fmt: skip

AGENT = StepType(
    "Asks a model that may call tools, turn by turn, until it answers without. The result is its last text, or data where"
    " `schema` is given.",
    {
        **LLM.keys,
        "tools": Key(
            Kind.TOOLS, "The tools that the model may call, as `server/tool`, or `server/*` for all of a server.",
            required=True, examples=(["docs/search", "git/*"],),
        ),
        "max_turns": Key(
            Kind.INTEGER, "The most questions to the model (default 10); one that still asks for tools in the last fails the step.",
            minimum=1, maximum=1000,
        ),
        "max_cost_usd": Key(
            Kind.NUMBER, "The most that the step may cost, in USD; it fails before a call that could cost more.",
            minimum=0, maximum=1_000_000,
        ),
        "approve": Key(
            Kind.TOOLS, "Of the tools, those whose calls wait for the signal `approve` before they run.",
            examples=(["mail/send"],),
        ),
        "approve_timeout": Key(
            Kind.DURATION, "How long a call waits for approval; then it counts as refused (default: for ever).",
            examples=("1d",),
        ),
    },
    one_of=("prompt", "messages"),
    refused=("cache",),
)  # fmt: skip

NOT_EXTRA = frozenset({"messages", "response_format", "stream", "stream_options", *LLM.keys})  # of `extra`
NOT_EXTRA_OF_AGENTS = frozenset({"tools", "functions"})  # they have their `tools`
MESSAGE_ROLES = ("system", "developer", "user", "assistant")
