"""A device on paho-mqtt that is asked for its log and sends it, compressed, in chunks; its connection breaks halfway, and it goes on.

usage: log_device.py HOST PORT PRODUCT DEVICE CLIENT-ID PASSWORD CLIENT-ID-2 PASSWORD-2 LOG-FILE
"""

import json
import queue
import struct
import sys
import zlib

import paho.mqtt.client as paho

SOON = 20
CHUNK = 1000
host, port, product, device, *logins, path = sys.argv[1:]
own = f"dev/{product}/{device}/sys"
messages, subscribed = queue.Queue(), queue.Queue()


def connect(client_id, password):
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv311)
    client.username_pw_set(f"{product}/{device}", password)
    client.on_message = lambda _c, _u, message: messages.put(message)
    client.on_subscribe = lambda _c, _u, _m, codes, _p: subscribed.put(codes)
    client.connect(host, int(port))
    client.loop_start()
    client.subscribe([(f"{own}/cmd", 1), (f"{own}/log/ack", 1)])
    subscribed.get(timeout=SOON)
    return client


def hear(what):
    message = messages.get(timeout=SOON)
    assert message.topic == f"{own}/{what}", message.topic
    return json.loads(message.payload)


def say(client, what, payload):
    client.publish(f"{own}/{what}", payload, qos=1).wait_for_publish(SOON)


def header(log, number, count, crc):
    return struct.pack(">IHHI", log, number, count, crc)


client = connect(logins[0], logins[1])
command = hear("cmd")
assert command["command"] == "upload-logs", command
with open(path, "rb") as file:
    packed = zlib.compress(file.read(), 9)
chunks = [packed[at : at + CHUNK] for at in range(0, len(packed), CHUNK)]
log, count = command["id"], len(chunks)
assert count > 4, count


def send(client, number):
    say(client, "log", header(log, number, count, zlib.crc32(chunks[number])) + chunks[number])


say(client, "cmd/reply", json.dumps({"id": log, "state": "accepted"}))
for number in range(count // 2):
    send(client, number)
# The connection breaks, without a word.
client.loop_stop()
client.socket().close()

client = connect(logins[2], logins[3])
say(client, "log", header(log, 0, count, zlib.crc32(packed)))
answer = hear("log/ack")
assert answer == {"log": log, "state": "missing", "chunks": list(range(count // 2, count))}, answer
for number in answer["chunks"]:
    send(client, number)
answer = hear("log/ack")
assert answer == {"log": log, "state": "kept"}, answer
say(client, "cmd/reply", json.dumps({"id": log, "state": "done"}))
client.disconnect()
client.loop_stop()
print("ok")
