"""Attacks by way of sockets. What is tried to be reached is on this machine; nothing is sent anywhere else."""

from __future__ import annotations

from riallm.bench.attacks.attack import Attack, Proof

_SAYS, _RECEIVED = Proof.SAYS, Proof.RECEIVED
# connecting a datagram socket sends nothing; it only asks the kernel for a route
_ROUTE = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(({0!r}, {1})); through()"
_OPEN = "import socket\nsocket.socket({0}, {1}, {2}); through()"
_PATH = (
    "import socket\ns = socket.socket(socket.AF_UNIX); s.settimeout(3); s.connect({0}); s.send(world['mark'].encode())"
)

NETWORK: tuple[Attack, ...] = (
    Attack(
        name="stream to a service of the machine", number="44", proof=_RECEIVED,
        source="import socket\ns = socket.create_connection(('127.0.0.1', world['tcp']), 3)\n"
        "s.send(world['mark'].encode())",
    ),
    Attack(
        name="stream over IPv6", number="44", proof=_RECEIVED, needs="ipv6",
        source="import socket\ns = socket.create_connection(('::1', world['tcp6']), 3)\n"
        "s.send(world['mark'].encode())",
    ),
    Attack(
        name="datagram to a service of the machine", number="42", proof=_RECEIVED,
        source="import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.sendto(world['mark'].encode(), ('127.0.0.1', world['udp']))",
    ),
    Attack(
        name="a route to the outside", number="41", proof=_SAYS, needs="route", source=_ROUTE.format("192.0.2.1", 443)
    ),
    Attack(
        name="a route to a name server", number="43", proof=_SAYS, needs="route", source=_ROUTE.format("192.0.2.53", 53)
    ),
    Attack(
        name="a route to the metadata address", number="45", proof=_SAYS, needs="route",
        source=_ROUTE.format("169.254.169.254", 80),
    ),
    Attack(name="socket in a folder outside", number="46", proof=_RECEIVED, source=_PATH.format("world['socket']")),
    Attack(name="socket in the workspace", number="46", proof=_RECEIVED, source=_PATH.format("world['inner_socket']")),
    Attack(
        name="socket in the abstract space", number="46", proof=_RECEIVED,
        source=_PATH.format("'\\0' + world['abstract']"),
    ),
    Attack(name="virtual machine sockets", number="47", proof=_SAYS, needs="vsock", source=_OPEN.format(40, 1, 0)),
    Attack(name="netlink sockets", number="47", proof=_SAYS, source=_OPEN.format(16, 3, 0)),
    Attack(name="packet sockets", number="47", proof=_SAYS, needs="root", source=_OPEN.format(17, 3, 0)),
    Attack(name="raw sockets", number="47", proof=_SAYS, needs="root", source=_OPEN.format(2, 3, 1)),
    Attack(
        name="sockets of the kernel's ciphers", number="47", proof=_SAYS, needs="ciphers", source=_OPEN.format(38, 5, 0)
    ),
)  # fmt: skip
