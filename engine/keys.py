"""The words of the workflow language as tables: every key, what it takes and what it means (those of models in `engine.llm_keys`).

`engine.shapes` checks definitions against these tables and `engine.schema` makes the JSON Schema from them, so that the two
cannot drift apart. A new step type is an entry here plus its executor.
"""

from engine.key_kinds import Key, Kind, Rendering, StepType
from engine.llm_keys import AGENT, LLM
from engine.schedule_spec import MAX_CATCH_UP, Overlap
from engine.states import ErrorClass, Priority

ID_PATTERN = r"^[a-z][a-z0-9_]*$"
WORKFLOW_NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]*$"
TAKEN_NAMES = frozenset({"input", "steps", "run", "item", "index"})
# Words that an expression reads as something else, so that an output of that name could never be read.
EXPRESSION_WORDS = frozenset(
    {"and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "null", "loop", "range"}
)
MAX_STEPS = 5_000
MAX_NAME = 100
MAX_CASE = 80  # characters of a case's value
MAX_KEY = 300  # characters of a step's key, its numbers included
MAX_ITEMS = 100_000
MAX_SCHEDULES = 50
MAX_CONCURRENCY = 10_000  # runs of one workflow, or of one key of it, under way at once
SIGNAL_PATTERN = r"^[A-Za-z0-9_.-]{1,100}$"


ERROR_CLASSES = tuple(sorted(ErrorClass))

RETRY_KEYS: dict[str, Key] = {
    "max_attempts": Key(Kind.INTEGER, "Attempts in total, the first included (default 3).", minimum=1, maximum=100),
    "initial": Key(Kind.DURATION, "Pause before the second attempt (default 1s).", examples=("1s",)),
    "factor": Key(Kind.NUMBER, "What each further pause is multiplied by (default 2).", minimum=1, maximum=100),
    "max": Key(Kind.DURATION, "The longest pause (default 60s).", examples=("60s",)),
    "jitter": Key(
        Kind.BOOLEAN, "Whether pauses are spread at random, so that many steps do not return at once (default true)."
    ),
    "errors": Key(
        Kind.CHOICES,
        "The classes of errors that are tried again (default rate_limit, overloaded, timeout, connection, server_error).",
        choices=ERROR_CLASSES,
    ),
}

SCHEDULE_KEYS: dict[str, Key] = {
    "cron": Key(
        Kind.TEXT,
        "When: minute, hour, day of month, month, day of week, as in cron(5), or a name such as @daily.",
        required=True,
        examples=("0 7 * * MON-FRI", "*/15 * * * *", "@daily"),
    ),
    "timezone": Key(
        Kind.TEXT, "The time zone of those times, by its IANA name (default UTC).", examples=("Europe/Berlin",)
    ),
    "overlap": Key(
        Kind.CHOICE,
        "What happens when the schedule's run before is still under way: skip leaves the firing out, queue lets it wait"
        " (default skip).",
        choices=tuple(Overlap),
    ),
    "catch_up": Key(
        Kind.INTEGER,
        "How many firings that nobody was there for are made up afterwards, the newest ones, one run behind the other; with"
        " queue also how many may wait (default 1).",
        minimum=0,
        maximum=MAX_CATCH_UP,
    ),
    "input": Key(Kind.OBJECT, "The input of each run, as it stands: expressions are not evaluated here."),
    "tags": Key(Kind.OBJECT, "Tags of each run: names and texts."),
    "priority": Key(Kind.CHOICE, "The priority of each run (default normal).", choices=tuple(Priority)),
    "enabled": Key(Kind.BOOLEAN, "Whether it comes due at all (default true)."),
}

CONCURRENCY_KEYS: dict[str, Key] = {
    "limit": Key(
        Kind.INTEGER, "How many runs are under way at once.", required=True, minimum=1, maximum=MAX_CONCURRENCY
    ),
    "key": Key(
        Kind.TEXT,
        "What is counted apart: an expression over the input that gives text, a number or a boolean.",
        Rendering.VALUE,
        examples=("${input.customer}",),
    ),
}

STEP_KEYS: dict[str, Key] = {
    "id": Key(Kind.ID, "The step's name, unique in the whole workflow.", required=True),
    "type": Key(Kind.CHOICE, "What the step does.", required=True),
    "if": Key(Kind.CONDITION, "The step is skipped unless this expression is true.", Rendering.CONDITION),
    "needs": Key(
        Kind.NEEDS, "Ids of the steps of the same list to wait for. Left out: the step before. Empty: starts at once."
    ),
    "output": Key(Kind.ID, "The name under which later expressions read the step's result."),
    "timeout": Key(Kind.DURATION, "The longest that one attempt may take.", examples=("30s", "5m")),
    "deadline": Key(Kind.DURATION, "The longest that all attempts together may take.", examples=("10m",)),
    "retry": Key(Kind.RETRY, "How failed attempts are tried again."),
    "on_error": Key(
        Kind.ON_ERROR,
        "What follows when the step has failed for good: `fail` ends the run, `continue` goes on with null as the result,"
        " `{steps: […]}` runs these and goes on with the output of the last one.",
        choices=("fail", "continue"),
    ),
    "cache": Key(
        Kind.DURATION,
        "How long the result of the same rendered call is used again instead of calling.",
        examples=("1h",),
    ),
}

MCP_TOOL = StepType(
    "Calls a tool of an MCP server. The result is its structured content, else its text.",
    {
        "tool": Key(Kind.NAME, "The tool's name.", required=True),
        "server": Key(Kind.NAME, "The MCP server's name. Left out: any connected server that has the tool."),
        "params": Key(Kind.OBJECT, "The tool's arguments.", Rendering.VALUE),
    },
)

SET = StepType(
    "Makes a value. The result is that value.",
    {"value": Key(Kind.ANY, "Any value; expressions in it are evaluated.", Rendering.VALUE, required=True)},
    refused=("cache",),
)

_CONTAINER = ("retry", "cache")

IF = StepType(
    "Chooses between two lists of steps. The result is the output of the last step that ran.",
    {
        "condition": Key(Kind.CONDITION, "An expression that gives a boolean.", Rendering.CONDITION, required=True),
        "then": Key(Kind.STEPS, "The steps to run when it is true.", required=True),
        "else": Key(Kind.STEPS, "The steps to run when it is false."),
    },
    branches=("then", "else"),
    refused=_CONTAINER,
)

SWITCH = StepType(
    "Chooses one of several lists of steps by a value. The result is the output of the last step that ran.",
    {
        "value": Key(
            Kind.ANY, "What is compared with the names of the cases, as text.", Rendering.VALUE, required=True,
            examples=("${category}",),
        ),
        "cases": Key(Kind.CASES, "A list of steps for each value.", required=True),
        "default": Key(Kind.STEPS, "The steps to run when no case has the value. Left out: none, the result is null."),
    },
    branches=("cases", "default"),
    refused=_CONTAINER,
)  # fmt: skip

FOREACH = StepType(
    "Runs a list of steps for each item of a list. The result is a list with one entry per item, in the items' order.",
    {
        "items": Key(Kind.LIST, "The list, mostly one expression.", Rendering.VALUE, required=True, examples=("${files}",)),
        "steps": Key(Kind.STEPS, "The steps to run; `item` and `index` (from 0) are known inside.", required=True),
        "concurrency": Key(
            Kind.INTEGER, "How many items are under way at once (default 10).", minimum=1, maximum=1000
        ),
        "collect": Key(Kind.ANY, "An item's entry in the result. Left out: the output of the last step.", Rendering.VALUE),
        "on_item_error": Key(
            Kind.CHOICE,
            "What follows when an item has failed: `fail` fails the whole step (default), `continue` makes its entry null.",
            choices=("fail", "continue"),
        ),
    },
    branches=("steps",),
    inside=("collect",),
    gives=("item", "index"),
    scoped=True,
    refused=_CONTAINER,
)  # fmt: skip

PARALLEL = StepType(
    "Runs several lists of steps at once. The result is an object with each list's last output under its name.",
    {"branches": Key(Kind.CASES, "The lists of steps by name.", required=True)},
    branches=("branches",),
    scoped=True,
    refused=_CONTAINER,
)

WHILE = StepType(
    "Runs a list of steps for as long as a condition holds. The result is the last output of the last iteration.",
    {
        "condition": Key(
            Kind.CONDITION,
            "Asked before each iteration; it sees the results of the iteration before (null at first) and `index` (from 0).",
            Rendering.CONDITION, required=True, examples=("index == 0 or score < 8",),
        ),
        "max_iterations": Key(
            Kind.INTEGER, "The most iterations; behind the last one the step ends as if the condition were false.",
            required=True, minimum=1, maximum=10_000,
        ),
        "steps": Key(
            Kind.STEPS,
            "The steps to run. A name that is not set yet in this iteration has its value of the iteration before.",
            required=True,
        ),
        "collect": Key(Kind.ANY, "Makes the result a list with this value of every iteration.", Rendering.VALUE),
    },
    branches=("steps",),
    inside=("condition", "collect"),
    gives=("index",),
    scoped=True,
    refused=_CONTAINER,
)  # fmt: skip

SLEEP = StepType(
    "Waits for time to pass. The result is null.",
    {
        "duration": Key(Kind.DURATION, "How long.", Rendering.VALUE, examples=("5m",)),
        "until": Key(
            Kind.TIME, "Until when, as an ISO 8601 time; without a zone it is UTC. A time that has passed ends the step at once.",
            Rendering.VALUE, examples=("2030-01-01T09:00:00Z",),
        ),
    },
    one_of=("duration", "until"),
    refused=("timeout", *_CONTAINER),
)  # fmt: skip

WAIT = StepType(
    "Waits for a signal: a person's approval, an event from outside. The result is the signal's payload.",
    {
        "signal": Key(
            Kind.SIGNAL, "The signal's name, as in POST /v1/runs/{id}/signals/{name}.", Rendering.VALUE, required=True,
            examples=("approval",),
        ),
        "schema": Key(Kind.JSON_SCHEMA, "JSON Schema that the payload has to follow; another one is refused."),
        "on_timeout": Key(
            Kind.ON_ERROR,
            "What follows when `timeout` has passed without the signal: `fail` (default), `continue` with null as the result,"
            " or `{steps: […]}`, whose last output is the result.",
            choices=("fail", "continue"),
        ),
    },
    refused=_CONTAINER,
)  # fmt: skip

HTTP = StepType(
    "Makes an HTTP request. The result is `{status, headers, body}`; a JSON body is data, another one text.",
    {
        "url": Key(
            Kind.URL, "Where to; http or https, and no private network unless the configuration allows it.",
            Rendering.VALUE, required=True, examples=("https://example.com/api/${input.id}",),
        ),
        "method": Key(
            Kind.CHOICE, "The method (default GET).", choices=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        ),
        "headers": Key(Kind.OBJECT, "Headers of the request.", Rendering.VALUE),
        "json": Key(Kind.ANY, "The body as data, sent as JSON.", Rendering.VALUE),
        "body": Key(Kind.TEXT, "The body as text.", Rendering.VALUE),
        "expect_status": Key(Kind.STATUSES, "The statuses that are no error, one or a list (default 200 to 299)."),
    },
    not_both=("json", "body"),
)  # fmt: skip

WORKFLOW = StepType(
    "Runs another workflow as a run of its own. The result is its output; what it costs counts for this run too.",
    {
        "workflow": Key(Kind.NAME, "The stored workflow's name; its newest version runs.", required=True),
        "input": Key(Kind.OBJECT, "Its input.", Rendering.VALUE),
    },
    refused=_CONTAINER,
)

STEP_TYPES: dict[str, StepType] = {
    "llm": LLM,
    "agent": AGENT,
    "mcp_tool": MCP_TOOL,
    "http": HTTP,
    "set": SET,
    "if": IF,
    "switch": SWITCH,
    "foreach": FOREACH,
    "parallel": PARALLEL,
    "while": WHILE,
    "workflow": WORKFLOW,
    "sleep": SLEEP,
    "wait": WAIT,
}
HANDLERS = ("on_error", "on_timeout")  # keys of any step whose value may hold steps

TOP_KEYS: dict[str, Key] = {
    "name": Key(Kind.NAME, "The workflow's name."),
    "description": Key(Kind.TEXT, "What the workflow is for."),
    "inputs": Key(Kind.INPUTS, "A JSON Schema for each input. Required unless it has a `default`; others are refused."),
    "budget_usd": Key(Kind.NUMBER, "The most that a run may cost, in USD.", minimum=0, maximum=1_000_000),
    "deadline": Key(Kind.DURATION, "The longest that a run may take.", examples=("1h",)),
    "schedule": Key(
        Kind.SCHEDULE,
        "When a run starts by itself, as long as the definition is stored: a cron line, an object, or a list of those.",
        examples=("0 7 * * *",),
    ),
    "concurrency": Key(
        Kind.CONCURRENCY,
        "How many runs of this workflow are under way at once: a number, or `{limit, key}` to count runs apart by a key."
        " Others wait, queued, and start in order of priority and submission.",
        examples=(5, {"limit": 1, "key": "${input.customer}"}),
    ),
    "steps": Key(Kind.STEPS, "What the workflow does, in order unless `needs` says otherwise.", required=True),
    "on_failure": Key(
        Kind.STEPS, "Steps to run when the run has failed, before it ends; `run.error` says why it failed."
    ),
    "finally": Key(
        Kind.STEPS, "Steps to run at the end, whether the run succeeded or failed; not when it was cancelled."
    ),
    "output": Key(Kind.ANY, "The run's result. Left out: the output of the last step.", Rendering.VALUE),
}
