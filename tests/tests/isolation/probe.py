"""What sends and what observes in the isolation tests; one process a namespace.

observe INTERFACE: every marker that arrives on the interface is printed as "seen N"; TCP SYNs to
port 20000+N count as marker N. Also answers as the manager (8443) and others (7000, 7001 UDP).
send INTERFACE: reads "KIND N" lines, sends marker N that way, prints "sent N", or "error N WHY".
"""

import mmap
import os
import re
import select
import socket
import struct
import sys
import threading

SOL_PACKET, PACKET_TX_RING, QDISC_BYPASS = 263, 13, 20
OUT4, OUT6 = "10.77.0.3", "fd77::3"
MANAGER4, MANAGER6 = "10.77.0.2", "fd77::2"


def say(*words):
    print(*words, flush=True)


def marker(n):
    return b"HF<%06d>" % n


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def ipv4(source, target, protocol, payload, flags=0):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 77, flags, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(target))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(payload, source=4000, target=7001):
    return struct.pack("!HHHH", source, target, 8 + len(payload), 0) + payload


# ---- observing ----

def observe(interface):
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sniffer.bind((interface, 0))
    sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for port in (8443, 7000):
            threading.Thread(target=serve, args=(family, address, port), daemon=True).start()
    say("ready")
    while True:
        frame, where = sniffer.recvfrom(65535)
        if where[2] == socket.PACKET_OUTGOING:
            continue
        for found in re.findall(rb"HF<(\d{6})>", frame):
            say("seen", int(found))
        for at in (14, 18):
            kind = frame[at - 2:at]
            if kind == b"\x08\x00" and frame[at + 9] == 6:
                tcp = at + (frame[at] & 15) * 4
            elif kind == b"\x86\xdd" and frame[at + 6] == 6:
                tcp = at + 40
            else:
                continue
            port, flags = struct.unpack("!H", frame[tcp + 2:tcp + 4])[0], frame[tcp + 13]
            if flags & 0x12 == 2 and port >= 20000:
                say("seen", port - 20000)


def serve(family, address, port):
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((address, port))
    listener.listen(64)
    clients = []
    while True:
        ready, _, _ = select.select([listener, *clients], [], [])
        for one in ready:
            if one is listener:
                clients.append(one.accept()[0])
                continue
            try:
                data = one.recv(65535)
                if data:
                    one.sendall(data)
                    continue
            except OSError:
                pass
            clients.remove(one)
            one.close()


# ---- sending ----

class Sender:
    def __init__(self, interface):
        self.interface = interface
        self.index = socket.if_nametoindex(interface)
        # sysfs shows another namespace's interfaces; a packet socket knows its own address.
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as one:
            one.bind((interface, 0))
            self.mac = one.getsockname()[4]
        self.open = {}

    def frame(self, n, kind=0x0800, payload=None, to=b"\xff" * 6, tag=b""):
        body = payload if payload is not None else ipv4("10.77.0.1", OUT4, 17, udp(marker(n)))
        return to + self.mac + tag + struct.pack("!H", kind) + body

    def packet(self, frame, protocol=0, bypass=False):
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        if bypass:
            one.setsockopt(SOL_PACKET, QDISC_BYPASS, 1)
        one.sendto(frame, (self.interface, protocol))
        one.close()

    def ring(self, frame, bypass):
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        if bypass:
            one.setsockopt(SOL_PACKET, QDISC_BYPASS, 1)
        one.setsockopt(SOL_PACKET, PACKET_TX_RING, struct.pack("IIII", 4096, 1, 2048, 2))
        one.bind((self.interface, 0))
        ring = mmap.mmap(one.fileno(), 4096)
        # struct tpacket_hdr: status, len, snaplen, mac, net, sec, usec; data 16-aligned behind
        # it, less the room of a sockaddr_ll.
        data = 32
        ring[data:data + len(frame)] = frame
        ring[8:12] = struct.pack("I", len(frame))
        ring[0:8] = struct.pack("Q", 1)
        one.send(b"")
        ring.close()
        one.close()

    def datagram(self, family, target, payload, **options):
        one = socket.socket(family, socket.SOCK_DGRAM)
        for level, name, value in options.get("set", []):
            one.setsockopt(level, name, value)
        if "bind" in options:
            one.bind(options["bind"])
        one.sendto(payload, target)
        one.close()

    def connect(self, family, target, port, limit=0.2):
        one = socket.socket(family, socket.SOCK_STREAM)
        one.settimeout(limit)
        one.connect((target, port))
        return one

    def knock(self, family, target, n):
        try:
            self.connect(family, target, 20000 + n).close()
        except ConnectionRefusedError:
            pass

    def talk(self, family, target, port, n, keep=False):
        """Over a connection that stays when `keep`; the echo must come back."""
        key = (family, target, port)
        one = self.open.get(key) if keep else None
        if one is None:
            one = self.connect(family, target, port, 3)
        if keep:
            self.open[key] = one
        one.settimeout(3 if port == 8443 else 0.2)
        one.sendall(marker(n))
        if port == 8443 and one.recv(100) != marker(n):
            raise OSError("another answer")
        if not keep:
            one.close()

    def raw(self, family, protocol, target, payload, *options):
        one = socket.socket(family, socket.SOCK_RAW, protocol)
        for level, name, value in options:
            one.setsockopt(level, name, value)
        one.sendto(payload, target)
        one.close()

    def send(self, kind, n):
        inet, inet6, mark = socket.AF_INET, socket.AF_INET6, marker(n)
        near = ("ff02::fb", 5353, 0, self.index)
        outside = os.environ.get("OUTSIDE_LINK_LOCAL", "fe80::1")
        hop = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        header = (socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        arp = b"\0\1\x08\0\6\4\0\1" + self.mac + b"\x0a\x4d\0\1" + b"\0" * 6 + b"\x0a\x4d\0\3"
        icmp = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + mark
        icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
        query = b"\0\1\1\0\0\1\0\0\0\0\0\0\x0a" + mark + b"\6tunnel\0\0\x10\0\1"
        solicit = b"\x87\0\0\0\0\0\0\0" + socket.inet_pton(inet6, OUT6) + b"\x0e\2" + mark + b"\0" * 4
        fragment = ipv4("10.77.0.1", MANAGER4, 6, b"\x10\0\x20\xfb" + b"\0" * 16 + mark, 0x2000)
        {
            "udp4": lambda: self.datagram(inet, (OUT4, 7001), mark),
            "udp6": lambda: self.datagram(inet6, (OUT6, 7001), mark),
            "manager_udp4": lambda: self.datagram(inet, (MANAGER4, 8443), mark),
            "dns_tunnel4": lambda: self.datagram(inet, (OUT4, 53), query),
            "dns_tunnel6": lambda: self.datagram(inet6, (OUT6, 53), query),
            "big_udp4": lambda: self.datagram(inet, (OUT4, 7001), mark * 400),
            "big_udp6": lambda: self.datagram(inet6, (OUT6, 7001), mark * 400),
            "icmp4": lambda: self.raw(inet, 1, (OUT4, 0), icmp),
            "icmp6": lambda: self.raw(inet6, 58, (OUT6, 0), b"\x80\0\0\0\0\1\0\1" + mark),
            "tcp4_new": lambda: self.knock(inet, OUT4, n),
            "tcp6_new": lambda: self.knock(inet6, OUT6, n),
            "tcp4_manager_host": lambda: self.knock(inet, MANAGER4, n),
            "tcp4_established": lambda: self.talk(inet, OUT4, 7000, n, True),
            "tcp6_established": lambda: self.talk(inet6, OUT6, 7000, n, True),
            "manager4_new": lambda: self.talk(inet, MANAGER4, 8443, n),
            "manager6_new": lambda: self.talk(inet6, MANAGER6, 8443, n),
            "manager4_established": lambda: self.talk(inet, MANAGER4, 8443, n, True),
            "multicast4": lambda: self.datagram(
                inet, ("224.0.0.251", 5353), mark,
                set=[(0, socket.IP_MULTICAST_IF, socket.inet_aton("10.77.0.1"))]),
            "multicast6": lambda: self.datagram(inet6, near, mark),
            "broadcast4": lambda: self.datagram(
                inet, ("10.77.0.255", 7001), mark, set=[(1, socket.SO_BROADCAST, 1)]),
            "link_local6": lambda: self.datagram(inet6, (outside, 7001, 0, self.index), mark),
            "fragment4": lambda: self.raw(inet, 255, (MANAGER4, 0), fragment, header),
            "raw_ip4": lambda: self.raw(
                inet, 255, (OUT4, 0), ipv4("10.77.0.1", OUT4, 99, mark), header),
            "neighbour_tunnel6": lambda: self.raw(inet6, 58, (OUT6, 0), solicit, hop),
            "dhcp_known": lambda: self.datagram(
                inet, ("10.77.0.2", 67), mark, bind=("10.77.0.1", 68)),
            "dhcp_unknown": lambda: self.datagram(
                inet, (OUT4, 67), mark, bind=("10.77.0.1", 68)),
            "packet": lambda: self.packet(self.frame(n)),
            "packet_lie": lambda: self.packet(self.frame(n), 0x0806),
            "packet_arp_tunnel": lambda: self.packet(self.frame(n, 0x0806, arp + mark * 50)),
            "packet_other": lambda: self.packet(self.frame(n, 0x88B5, mark * 10)),
            "packet_vlan": lambda: self.packet(self.frame(n, tag=b"\x81\0\0\5")),
            "packet_slow": lambda: self.packet(
                self.frame(n, 0x8809, mark * 50, b"\1\x80\xc2\0\0\2")),
            "packet_bypass": lambda: self.packet(self.frame(n), bypass=True),
            "packet_bypass_lie": lambda: self.packet(self.frame(n), 0x0806, True),
            "packet_bypass_vlan": lambda: self.packet(self.frame(n, tag=b"\x81\0\0\5"), 0, True),
            "packet_bypass_arp": lambda: self.packet(
                self.frame(n, 0x0806, arp + mark * 50), 0, True),
            "ring": lambda: self.ring(self.frame(n), False),
            "ring_bypass": lambda: self.ring(self.frame(n), True),
            "inward4": lambda: self.connect(inet, "10.77.0.1", 5555, 0.3).close(),
            "loopback": lambda: self.loopback(mark),
        }[kind]()

    def loopback(self, mark):
        listener = socket.create_server(("127.0.0.1", 0))
        with socket.create_connection(listener.getsockname(), 3) as one:
            one.sendall(mark)
            if listener.accept()[0].recv(100) != mark:
                raise OSError("another answer")


def send(interface):
    sender = Sender(interface)
    if interface == "hp0":
        threading.Thread(target=serve, args=(socket.AF_INET, "0.0.0.0", 5555), daemon=True).start()
    say("ready")
    for line in sys.stdin:
        kind, n = line.split()
        try:
            sender.send(kind, int(n))
            say("sent", n)
        except OSError as error:
            say("error", n, error)


{"observe": observe, "send": send}[sys.argv[1]](sys.argv[2])
