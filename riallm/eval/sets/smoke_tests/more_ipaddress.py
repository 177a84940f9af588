"""More behaviour of ipaddress."""

import importlib

ip = importlib.import_module("library.ipaddress")


def test_kinds() -> None:
    assert ip.ip_address("127.0.0.1").is_loopback
    assert ip.ip_address("10.1.2.3").is_private
    assert ip.ip_address("224.0.0.1").is_multicast
    assert not ip.ip_address("8.8.8.8").is_private
    assert ip.ip_address("fe80::1").is_link_local


def test_ranges() -> None:
    first, last = ip.ip_address("192.0.2.0"), ip.ip_address("192.0.2.130")
    assert [str(net) for net in ip.summarize_address_range(first, last)] == [
        "192.0.2.0/25",
        "192.0.2.128/31",
        "192.0.2.130/32",
    ]
    nets = [ip.ip_network(text) for text in ("10.0.0.0/25", "10.0.0.128/25", "10.0.2.0/24")]
    assert [str(net) for net in ip.collapse_addresses(nets)] == ["10.0.0.0/24", "10.0.2.0/24"]


def test_exclusion_and_order() -> None:
    net = ip.ip_network("192.0.2.0/28")
    rest = sorted(net.address_exclude(ip.ip_network("192.0.2.1/32")))
    assert [str(part) for part in rest] == ["192.0.2.0/32", "192.0.2.2/31", "192.0.2.4/30", "192.0.2.8/29"]
    assert sorted([ip.ip_network("10.0.0.0/8"), ip.ip_network("10.0.0.0/24")])[0].prefixlen == 8


def test_masks_and_interfaces() -> None:
    assert ip.ip_network("10.0.0.0/255.255.0.0").prefixlen == 16
    assert ip.ip_network("10.0.0.0/0.0.255.255").prefixlen == 16
    face = ip.ip_interface("192.0.2.5/24")
    assert str(face.network) == "192.0.2.0/24"
    assert str(face.ip) == "192.0.2.5"
    assert str(face) == "192.0.2.5/24"
    assert ip.ip_address("1.2.3.4").packed == b"\x01\x02\x03\x04"
    assert ip.ip_address("1.2.3.4").reverse_pointer == "4.3.2.1.in-addr.arpa"
    assert ip.ip_network("2001:db8::/126").num_addresses == 4
