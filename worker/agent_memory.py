"""What a step inside an agent reads of the others, from this process's database."""

from engine.agent_memory import call_of, cap_left_picousd, conversation
from engine.attempts import Claimed
from engine.ports import Conversation, ToolCall
from engine.store.database import Database


class StepMemory:
    """engine.ports.AgentMemory for one claimed step."""

    def __init__(self, database: Database, held: Claimed) -> None:
        self._database = database
        self._held = held

    async def conversation(self) -> Conversation:
        """All turns before this one."""
        run_id, key = self._held.run["id"], self._held.key
        return await self._database.read(lambda tx: conversation(tx, run_id, key))

    async def left_picousd(self) -> int | None:
        """What is left of the agent's `max_cost_usd`; None: no limit."""
        held = self._held
        return await self._database.read(lambda tx: cap_left_picousd(tx, held.run["id"], held.key, held.step))

    async def call(self) -> tuple[ToolCall, bool]:
        """The call that this step makes, and whether it has been approved."""
        run_id, key = self._held.run["id"], self._held.key
        return await self._database.read(lambda tx: call_of(tx, run_id, key))
