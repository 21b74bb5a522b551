"""One call that an agent's model asked for. Whatever is wrong with it is told to the model; nothing of it fails the run."""

from dataclasses import dataclass

from engine.agent_steps import APPROVE, covered, split_tool
from engine.nearest import nearest
from engine.ports import Failed, Job, Listening, Outcome, ToolCall
from engine.states import ErrorClass
from mcp_bridge.bridge import McpBridge
from mcp_bridge.catalogue import Tool
from worker.executors.mcp_tool import found_tool, made_call, wrong_arguments

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class AgentCallExecutor:
    """engine.ports.StepExecutor for the calls inside an agent."""

    bridge: McpBridge

    async def execute(self, job: Job) -> Outcome:
        """Waits for approval where the agent's `approve` says so; arguments that cannot work are refused before anybody is asked."""
        assert job.agent is not None
        call, approved = await job.agent.call()
        if call.tool is None:
            return _final(await self._unknown(job, call))
        server, name = split_tool(call.tool)
        tool = await found_tool(self.bridge, name, server)
        if isinstance(tool, Failed):
            return tool
        mistake = _mistake(tool, call)
        if mistake is not None:
            return _final(mistake)
        if not approved and covered(call.tool, job.step.fields.get("approve", ())):
            return Listening(APPROVE)
        assert isinstance(call.arguments, dict)
        return await made_call(self.bridge, job, tool, call.arguments, server=server)

    async def _unknown(self, job: Job, call: ToolCall) -> str:
        assert job.agent is not None
        known = [tool["name"] for tool in (await job.agent.conversation()).tools]
        near = nearest(call.name, known)
        listed = ", ".join(known[:_SHOWN]) + (", …" if len(known) > _SHOWN else "")
        return f"there is no tool '{call.name}'" + (f"; did you mean {near}?" if near else f"; there is: {listed}")


def _mistake(tool: Tool, call: ToolCall) -> str | None:
    """Why the arguments do not fit the tool."""
    if isinstance(call.arguments, str):
        return f"the arguments of {call.name} have to be a JSON object, they are: {call.arguments[:200]}"
    return "; ".join(f"arguments{where} {message}" for where, message in wrong_arguments(tool, call.arguments)) or None


def _final(message: str) -> Failed:
    return Failed(ErrorClass.INVALID_REQUEST, message, final=True)
