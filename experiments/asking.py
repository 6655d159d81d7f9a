"""What a script says about asking Gemini: what it may cost, what it did cost, what came."""

from collections.abc import Sequence

from realdex_jax.select.gemini import GeminiScorer
from realdex_jax.select.scorer import Task


def costs(scorer: GeminiScorer) -> list[str]:
    """What was asked of Gemini, what came of it, and what it cost."""
    usage = scorer.report()
    notes = [
        f"{scorer.name}: {usage.answered} of {usage.asked} grasps scored, {usage.kept} of them "
        f"kept from before; {usage.requests} requests, which cost {usage.charged:.4f} of --cap "
        f"{scorer.budget.cap:g} at most, {usage.reported:.4f} by the usage in the replies"
    ]
    if usage.unreported:
        notes.append(f"{usage.unreported} requests may have cost more: their usage never came")
    if usage.reasons:
        why = "; ".join(f"{reason} ({count})" for reason, count in usage.reasons.items())
        notes.append(f"not scored by {scorer.name}: {why}")
    return notes


def too_dear(scorer: GeminiScorer, task: Task, pngs: Sequence[bytes]) -> list[str]:
    """A note if the cap may end before all pictures of an object are scored."""
    cost, budget = scorer.worst_case(task, pngs, attempts=1), scorer.budget
    left = budget.cap - budget.spent - budget.reserved
    if cost <= left:
        return []
    return [
        f"{task.object_name}: scoring {len(pngs)} grasps may cost {cost:.4f}, and {left:.4f} of "
        "--cap is left; those that it does not reach are scored by the local scorer"
    ]
