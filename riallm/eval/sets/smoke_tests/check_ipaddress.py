"""Behaviour of ipaddress."""

import importlib

import pytest

ip = importlib.import_module("library.ipaddress")


def test_version_4_addresses() -> None:
    assert int(ip.ip_address("192.0.2.1")) == 3221225985
    assert str(ip.ip_address(3221225985)) == "192.0.2.1"
    assert ip.ip_address("10.0.0.1") < ip.ip_address("10.0.0.2")
    assert ip.ip_address("10.0.0.1") + 255 == ip.ip_address("10.0.1.0")
    for bad in ("1.2.3", "256.1.1.1", "1.2.3.04", "a.b.c.d", ""):
        with pytest.raises(ValueError, match="does not appear"):
            ip.ip_address(bad)


def test_version_6_addresses() -> None:
    assert str(ip.ip_address("2001:0db8:0:0:0:0:0:1")) == "2001:db8::1"
    assert ip.ip_address("::1").exploded == "0000:0000:0000:0000:0000:0000:0000:0001"
    assert ip.ip_address("::ffff:1.2.3.4").ipv4_mapped == ip.ip_address("1.2.3.4")
    with pytest.raises(ValueError, match="does not appear"):
        ip.ip_address("1::2::3")


def test_networks() -> None:
    net = ip.ip_network("192.0.2.0/29")
    assert net.num_addresses == 8
    assert str(net.broadcast_address) == "192.0.2.7"
    assert str(net.netmask) == "255.255.255.248"
    assert [str(host) for host in net.hosts()][::5] == ["192.0.2.1", "192.0.2.6"]
    assert ip.ip_address("192.0.2.3") in net
    assert ip.ip_address("192.0.2.8") not in net
    with pytest.raises(ValueError, match="host bits"):
        ip.ip_network("192.0.2.1/29")
    assert str(ip.ip_network("192.0.2.1/29", strict=False)) == "192.0.2.0/29"


def test_parts_of_networks() -> None:
    net = ip.ip_network("10.0.0.0/30")
    assert [str(part) for part in net.subnets()] == ["10.0.0.0/31", "10.0.0.2/31"]
    assert str(net.supernet()) == "10.0.0.0/29"
    assert ip.ip_network("10.0.0.0/31").subnet_of(net)
    assert net.overlaps(ip.ip_network("10.0.0.2/31"))
