"""The live board of a project: a page that is complete as it is served, and a WebSocket that keeps it so."""

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path as FilePath
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Path, Request, WebSocket, WebSocketDisconnect
from fastapi.requests import HTTPConnection
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from sqlalchemy.exc import SQLAlchemyError

from taskflow.application import Application
from taskflow.errors import NotFound
from taskflow.services.board import CARDS_IN_A_COLUMN, BoardFeed, Viewer
from taskflow.web.dependencies import PathId
from taskflow.web.problems import documented
from taskflow.web.schemas import LARGEST_ID

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/projects", tags=["board"])

HERE: Final = FilePath(__file__).parent
STATIC: Final = HERE / "static"
# Nothing but our own files, and no script or style inside the page: a title cannot become either.
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Codes of RFC 6455 for applications; board.js knows that the first is final.
NO_SUCH_PROJECT: Final = 4404
TRY_AGAIN_LATER: Final = 1013
FOREIGN_ORIGIN: Final = 1008

_templates = Jinja2Templates(HERE / "templates")


def _feed(connection: HTTPConnection) -> BoardFeed:
    application: Application = connection.app.state.taskflow
    return application.boards


CurrentFeed = Annotated[BoardFeed, Depends(_feed)]


@router.get("/{project_id}/board", response_class=HTMLResponse, responses=documented(404, 422))
async def project_board(project_id: PathId, request: Request, feed: CurrentFeed) -> HTMLResponse:
    """A web page with a project's tasks, which follows every change while it is open."""
    board = await feed.board(project_id)
    return _templates.TemplateResponse(
        request, "board.html", {"board": board, "most": CARDS_IN_A_COLUMN}, headers=HEADERS
    )


@router.websocket("/{project_id}/board/ws")
async def board_news(
    socket: WebSocket, project_id: Annotated[int, Path(ge=1, le=LARGEST_ID)], feed: CurrentFeed
) -> None:
    """The board as a message, then a message for each change, and a beat in quiet times."""
    if not _from_our_own_page(socket):
        await socket.close(FOREIGN_ORIGIN)
        return
    await socket.accept()
    try:
        with feed.viewer(project_id) as viewer:
            await _until_one_ends(_send(socket, viewer), _notice_the_end(socket))
    except WebSocketDisconnect:
        pass
    except NotFound as error:
        await socket.close(NO_SUCH_PROJECT, str(error))
    except (SQLAlchemyError, OSError) as error:
        logger.warning("the board of project %d cannot be shown: %s", project_id, error)
        await socket.close(TRY_AGAIN_LATER, "The database did not answer.")


def _from_our_own_page(socket: WebSocket) -> bool:
    """Browsers say which page opens a socket; pages of other sites must not read the board."""
    origin = socket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == socket.headers.get("host")


async def _send(socket: WebSocket, viewer: Viewer) -> None:
    async for message in viewer:
        await socket.send_text(message)


async def _notice_the_end(socket: WebSocket) -> None:
    """Until the browser leaves; what it says is read and ignored."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def _until_one_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run them until one has ended, stop the others, and raise what it raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
