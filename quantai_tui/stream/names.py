"""Name lookups that nobody has to wait for.

The C library's lookup cannot be interrupted, and takes half a minute when a resolver is dead. In the event loop's own pool of
threads it would hold up the end of the program for as long; so it has a daemon thread of its own here.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from concurrent.futures import Future

AddressInfo = tuple[int, int, int, str, tuple[object, ...]]  # family, type, protocol, canonical name, address

_under_way: dict[tuple[str, int, int], Future[list[AddressInfo]]] = {}


async def resolve(host: str, port: int, family: int = socket.AF_UNSPEC) -> list[AddressInfo]:
    """The TCP addresses of `host`. Unbounded in time, but cancellable at any moment: the thread is then left to itself.

    Whoever asks while the same name is being looked up waits for that answer, so that abandoned lookups do not pile up.

    Raises:
        OSError: socket.gaierror, when there is no such name or no answer; EAGAIN, when this machine has no thread left.
        UnicodeError: the name cannot be one.
    """
    key = (host, port, family)
    answer = _under_way.get(key)
    if answer is None:
        answer = _under_way[key] = Future()
        answer.set_running_or_notify_cancel()  # from here on, one who stops waiting does not cancel it for the others
        try:
            threading.Thread(target=_look_up, args=(key, answer), name=f"lookup {host}", daemon=True).start()
        except RuntimeError as error:
            del _under_way[key]  # nobody will answer it: whoever asks next must not wait for that
            raise OSError(errno.EAGAIN, str(error)) from error
    return await asyncio.wrap_future(answer)


def _look_up(key: tuple[str, int, int], answer: Future[list[AddressInfo]]) -> None:
    host, port, family = key
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except Exception as error:  # noqa: BLE001 - handed to whoever waits for the answer
        del _under_way[key]
        answer.set_exception(error)
    else:
        del _under_way[key]
        answer.set_result(list(found))
