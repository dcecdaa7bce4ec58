"""paho-mqtt against a broker: QoS 0 to 2, retained, will, offline queue, shared subscription, properties of MQTT 5.

usage: paho_tour.py {tcp|tls|ws|wss} HOST PORT {3|4|5} [CA-FILE]
"""

import queue
import socket
import ssl
import sys

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

SOON = 20
transport, host, port, version = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
ca = sys.argv[5] if len(sys.argv) > 5 else None
V5 = version == 5


class Client:
    def __init__(self, name, clean=True, will=None):
        kind = "websockets" if transport in ("ws", "wss") else "tcp"
        session = {} if V5 else {"clean_session": clean}
        self.paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2, f"paho-{name}", protocol=version, transport=kind, **session
        )
        if kind == "websockets":
            self.paho.ws_set_options(path="/mqtt")
        if ca:
            self.paho.tls_set(ca, tls_version=ssl.PROTOCOL_TLS_CLIENT)
        if will:
            self.paho.will_set(*will)
        self.messages, self.events = queue.Queue(), queue.Queue()
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_connect = lambda _c, _u, flags, code, _p: self.events.put(("connect", flags.session_present, code))
        self.paho.on_subscribe = lambda _c, _u, _m, codes, _p: self.events.put(("subscribe", codes))
        self.paho.on_disconnect = lambda _c, _u, _f, code, _p: self.events.put(("disconnect", code))
        more = {}
        if V5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if clean else 100
            more = {"clean_start": clean, "properties": properties}
        self.paho.connect(host, port, 30, **more)
        self.paho.loop_start()
        event = self.events.get(timeout=SOON)
        assert event[0] == "connect" and not event[2].is_failure, event
        self.session_present = event[1]

    def subscribe(self, *filters):
        if V5:
            self.paho.subscribe([(name, SubscribeOptions(qos=qos)) for name, qos in filters])
        else:
            self.paho.subscribe(list(filters))
        event = self.events.get(timeout=SOON)
        assert event[0] == "subscribe" and not any(code.is_failure for code in event[1]), event

    def publish(self, topic, payload, qos=0, retain=False, properties=None):
        self.paho.publish(topic, payload, qos, retain, properties).wait_for_publish(SOON)

    def take(self):
        return self.messages.get(timeout=SOON)

    def end(self):
        self.paho.disconnect()
        assert self.events.get(timeout=SOON)[0] == "disconnect"
        self.paho.loop_stop()

    def die(self):
        """Breaks the connection without DISCONNECT."""
        self.paho.loop_stop()
        sock = self.paho.socket()
        getattr(sock, "_socket", sock).shutdown(socket.SHUT_RDWR)


root = f"paho/{transport}/{version}"
a, b = Client("a"), Client("b")
b.subscribe((f"{root}/qos/#", 2))
for qos in range(3):
    for size in (0, 5, 70_000):
        a.publish(f"{root}/qos/{qos}", b"x" * size, qos)
        message = b.take()
        assert (message.topic, message.qos, len(message.payload), message.retain) == (
            f"{root}/qos/{qos}", qos, size, False,
        ), message

a.publish(f"{root}/kept", "kept", 1, True)
b.subscribe((f"{root}/kept", 1))
message = b.take()
assert (message.payload, message.retain) == (b"kept", True)
a.publish(f"{root}/kept", "", 1, True)
assert b.take().payload == b""

b.subscribe((f"{root}/will", 1))
Client("mortal", will=(f"{root}/will", "gone", 1, False)).die()
assert b.take().payload == b"gone"

sleeper = Client("sleeper", clean=False)
sleeper.subscribe((f"{root}/queue", 2))
sleeper.end()
for number in range(20):
    a.publish(f"{root}/queue", str(number), 1 + number // 10)
sleeper = Client("sleeper", clean=False)
assert version == 3 or sleeper.session_present
assert [int(sleeper.take().payload) for _ in range(20)] == list(range(20))
sleeper.end()
Client("sleeper").end()

members = [Client("member1"), Client("member2")]
for member in members:
    member.subscribe((f"$share/group/{root}/shared", 1))
for number in range(20):
    a.publish(f"{root}/shared", str(number), 1)
seen = []
while len(seen) < 20:
    for member in members:
        try:
            seen.append(int(member.messages.get(timeout=0.05).payload))
        except queue.Empty:
            pass
assert sorted(seen) == list(range(20)), seen
for member in members:
    member.end()

if V5:
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "text/plain"
    properties.ResponseTopic = f"{root}/answer"
    properties.CorrelationData = b"\x00\x01"
    properties.MessageExpiryInterval = 60
    properties.PayloadFormatIndicator = 1
    properties.UserProperty = [("k", "1"), ("k", "2")]
    a.publish(f"{root}/qos/rich", "x", 2, properties=properties)
    got = b.take().properties
    assert got.ContentType == "text/plain" and got.ResponseTopic == f"{root}/answer", got
    assert got.CorrelationData == b"\x00\x01" and 55 <= got.MessageExpiryInterval <= 60, got
    assert got.PayloadFormatIndicator == 1 and got.UserProperty == [("k", "1"), ("k", "2")], got

a.end()
b.end()
print("ok")
