"""Fetches images from http and https addresses, within limits of bytes and of time."""

import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import PurePosixPath

from kfpn import __version__

MOST_BYTES = 100_000_000
"""Most bytes of an image that is fetched."""
MOST_SECONDS = 60.0
"""The time in which all of an image must have come."""
SILENT_SECONDS = 15.0
"""The time in which a server must answer, and go on answering."""
LONGEST_STEM = 100


def is_address(name: str) -> bool:
    """Tells whether a name is an http or https address."""
    return re.match(r"https?://", name, re.IGNORECASE) is not None


def stem_of_address(address: str) -> str:
    """Returns the name of the file that an address ends in, without its ending: what a picture of it is called."""
    path = urllib.parse.unquote(re.sub(r"^\w+://[^/?#]*|[?#].*$", "", address))
    stem = re.sub(r"[^\w.()+ -]", "_", PurePosixPath(path).stem)[:LONGEST_STEM].strip(". ")
    return stem or "image"


def fetch_image(address: str) -> bytes:
    """Returns the bytes that an address gives. Redirections are followed, to http and https addresses alone.

    Raises:
        ValueError: without the address, if nothing can be fetched, or more than `MOST_BYTES`, or not in `MOST_SECONDS`.
    """
    deadline = time.monotonic() + MOST_SECONDS
    quoted = urllib.parse.quote(address, safe="%/:=&?~#+!$,;'@()*[]")
    try:
        urllib.parse.urlsplit(quoted).port  # noqa: B018  it raises ValueError for a number that is no port
        request = urllib.request.Request(quoted, headers={"User-Agent": f"kfpn/{__version__}", "Accept": "image/*,*/*"})
        answer = _opener().open(request, timeout=SILENT_SECONDS)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ValueError(f"can't be fetched: {_why_unfetched(error)}") from error
    with answer:
        try:
            return _content(answer, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(f"can't be fetched: {_why_unfetched(error)}") from error


def _why_unfetched(error: Exception) -> str:
    """Returns what is wrong as one line."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return f"the server was silent for {SILENT_SECONDS:g} seconds"
    text = " ".join(str(cause).split()) or type(error).__name__
    if isinstance(error, urllib.error.HTTPError):
        is_endless = urllib.request.HTTPRedirectHandler.inf_msg in str(cause)
        return f"the server answered {error.code} {'again and again' if is_endless else text}"
    return text


def _opener() -> urllib.request.OpenerDirector:
    """Returns an opener of http and https alone: that of urllib also opens files and ftp, to which a server could redirect."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.UnknownHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPRedirectHandler, urllib.request.HTTPErrorProcessor,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


def _content(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    announced = answer.headers.get("Content-Length") or ""
    if announced.isdecimal() and int(announced) > MOST_BYTES:
        raise ValueError(f"must have at most {MOST_BYTES:,} bytes to be fetched, got {int(announced):,}: download it")
    content = bytearray()
    while part := answer.read1(1 << 16):
        content += part
        if len(content) > MOST_BYTES:
            raise ValueError(f"must have at most {MOST_BYTES:,} bytes to be fetched, got more: download it")
        if time.monotonic() > deadline:
            raise ValueError(
                f"must be fetched in {MOST_SECONDS:g} seconds, got {len(content):,} bytes in that time: download it"
            )
    if announced.isdecimal() and len(content) < int(announced):
        raise ValueError(f"can't be fetched: the server broke off after {len(content):,} of {int(announced):,} bytes")
    return bytes(content)
