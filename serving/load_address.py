"""An address becomes one that may be load-tested, and at which somebody listens.

Nothing slow is imported, so that the command line asks here before it imports what loads.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

CONNECT_SECONDS = 1.0


def check_may_be_loaded(url: str, *, allow_hosts: Collection[str] = ()) -> None:
    """Refuse to load-test a machine but this one, unless it was named: it would be an attack.

    Args:
        url: Where the load is to go.
        allow_hosts: Names or addresses, as ``url`` spells them, of machines that may be loaded too.

    Raises:
        ValueError: If ``url`` is no http address of this machine or of those.

    >>> check_may_be_loaded("http://127.0.0.1:3000")
    >>> check_may_be_loaded("http://staging:3000", allow_hosts=["staging"])
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    is_named = host in {name.strip("[]").lower() for name in allow_hosts if name}
    if parts.scheme != "http" or not (is_named or is_loopback(url)):
        raise ValueError(
            f"--url is '{url}'; a load test only goes to this machine, as http://127.0.0.1:3000, "
            "or over http to a host of yours that --allow-host names"
        )


def is_loopback(url: str) -> bool:
    """Say whether an address is this machine's own; no name but ``localhost`` is looked up.

    >>> is_loopback("http://[::1]:3000"), is_loopback("http://staging:3000")
    (True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_listens(url: str) -> None:
    """Refuse an address at which nobody listens.

    Raises:
        ValueError: If the address has no host or port to go to, or no connection to it is made
            within a second, for each address that the host's name has.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"--url is '{url}'; write it as http://127.0.0.1:3000")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:  # a port that is no number is a ValueError
        raise ValueError(
            f"nobody listens at --url {url} ({error}); start a service with "
            "`throughline fraud serve`, or leave --url out"
        ) from error
