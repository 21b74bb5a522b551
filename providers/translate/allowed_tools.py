"""`tool_choice: allowed_tools` of OpenAI's chat, for dialects that have no word for it: those tools alone are offered.

Format: OpenAI's API reference, `chat/completions`, ChatCompletionAllowedToolChoice.
"""

from typing import Any

from providers.provider import Json
from providers.shapes import as_object, as_objects, as_text


def tools_and_choice(body: Json) -> tuple[list[Json], Any]:
    """The tools that may be called now, and `tool_choice` as it stands for them."""
    tools, choice = as_objects(body.get("tools")), body.get("tool_choice")
    if as_object(choice).get("type") != "allowed_tools":
        return tools, choice
    told = as_object(as_object(choice).get("allowed_tools"))
    allowed = {_name(tool) for tool in as_objects(told.get("tools"))}
    return [tool for tool in tools if _name(tool) in allowed], told.get("mode") or "auto"


def _name(tool: Json) -> str:
    return as_text(as_object(tool.get("function")).get("name"))
