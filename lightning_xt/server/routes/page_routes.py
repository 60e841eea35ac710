"""Pages of a server: the playground and the description of the API."""

from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import Response

from lightning_xt.server.api_errors import ApiError
from lightning_xt.server.offline_docs import write_page

FOLDER = "playground"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
}


def load_files() -> dict[str, tuple[bytes, str]]:
    """Return the files of the playground with their media types; nothing else is ever read for a client."""
    folder = files("lightning_xt.server").joinpath(FOLDER)
    found = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        media_type = MEDIA_TYPES.get("." + file.name.rpartition(".")[2])
        if file.is_file() and media_type is not None:
            found[file.name] = file.read_bytes(), media_type
    return found


def make_page_router() -> APIRouter:
    """Return the routes of the pages, outside of the API's schema."""
    router, pages = APIRouter(include_in_schema=False), load_files()
    style = files("lightning_xt.server").joinpath("offline_docs.css").read_bytes()

    @router.get("/")
    async def show_playground() -> Response:
        return await send_file("index.html")

    @router.get("/playground/{name}")
    async def send_file(name: str) -> Response:
        if name not in pages:
            raise ApiError(404, "there is no such page; GET /docs lists the routes")
        content, media_type = pages[name]
        return Response(content, headers={"Content-Type": media_type, "Cache-Control": "no-cache"})

    @router.get("/docs")
    async def show_docs(request: Request) -> Response:
        return Response(write_page(request.app.openapi()), headers={"Content-Type": MEDIA_TYPES[".html"]})

    @router.get("/docs/style.css")
    async def send_style() -> Response:
        return Response(style, headers={"Content-Type": MEDIA_TYPES[".css"]})

    return router
