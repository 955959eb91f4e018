"""What a run says it has cost, where that is known and where it isn't."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from consumer.postgres.answers import BilledAnswer
from tests.integration.executor_work import SECTIONS
from tests.integration.postgres_world import World, in_world


@pytest.mark.parametrize(("second", "total"), [(Decimal("0.5"), 0.75), (None, None)])
def test_the_cost_of_a_run_is_null_as_soon_as_one_of_its_calls_has_no_known_price(
    database_url: str, second: Decimal | None, total: float | None
) -> None:
    """A sum of the others would be believed. The day's limit counts the call all the same."""

    async def work(world: World) -> None:
        claim = await world.started()
        for number, cost in enumerate((Decimal("0.25"), second)):
            answer = BilledAnswer(f"{number:064x}", "facts", "a-model", "[]", "end_turn", 100, 20, cost, Decimal("0.5"))
            await world.answers.record(claim.run_id, claim.user_id, answer)
        await world.profiles.save_memory(claim, "## Preferences", 1, 1.0)
        await world.profiles.save_sections(claim, SECTIONS, "soulprint", conversations_sampled=1, model="a-model")
        data = json.loads(await world.value("SELECT data FROM full_pass_outbox WHERE event_type = 'v2-completed'"))
        assert data["usage"] == {"model_calls": 2, "input_tokens": 200, "output_tokens": 40, "cost_usd": total}
        assert await world.value("SELECT sum(cost_usd) FROM full_pass_spend") == 1

    in_world(database_url, work)
