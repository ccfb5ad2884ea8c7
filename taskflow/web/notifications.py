"""`/notifications`: how they stand, and what waits delivered now."""

from fastapi import APIRouter

from taskflow.web.dependencies import CurrentNotifications
from taskflow.web.schemas import NotificationFigures

router = APIRouter(prefix="/notifications", tags=["notifications"])


@router.get("")
async def get_figures(notifications: CurrentNotifications) -> NotificationFigures:
    """Show what was sent, what failed, and what waits."""
    return NotificationFigures.model_validate(await notifications.figures())


@router.post("/retry", status_code=202)
async def retry(notifications: CurrentNotifications) -> NotificationFigures:
    """Deliver everything that waits, however long it was to wait."""
    await notifications.retry_waiting()
    return NotificationFigures.model_validate(await notifications.figures())
