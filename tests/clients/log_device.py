"""A device on paho-mqtt that is asked for its log and sends it, compressed, in chunks; its connection breaks halfway, and it goes on.

usage: log_device.py HOST PORT PRODUCT DEVICE CLIENT-ID PASSWORD CLIENT-ID-2 PASSWORD-2 LOG-FILE
"""

import json
import struct
import sys
import zlib

from paho_device import Device

CHUNK = 1000
host, port, product, name, *logins, path = sys.argv[1:]


def connect(*login):
    return Device((host, port), (product, name), login, [("sys/cmd", 1), ("sys/log/ack", 1)])


def hear(what):
    topic, payload = device.hear()
    assert topic == f"sys/{what}", topic
    return json.loads(payload)


def header(log, number, count, crc):
    return struct.pack(">IHHI", log, number, count, crc)


device = connect(logins[0], logins[1])
command = hear("cmd")
assert command["command"] == "upload-logs", command
with open(path, "rb") as file:
    packed = zlib.compress(file.read(), 9)
chunks = [packed[at : at + CHUNK] for at in range(0, len(packed), CHUNK)]
log, count = command["id"], len(chunks)
assert count > 4, count


def send(number):
    device.say("sys/log", header(log, number, count, zlib.crc32(chunks[number])) + chunks[number])


device.say("sys/cmd/reply", json.dumps({"id": log, "state": "accepted"}))
for number in range(count // 2):
    send(number)
# The connection breaks, without a word.
device.client.loop_stop()
device.client.socket().close()

device = connect(logins[2], logins[3])
device.say("sys/log", header(log, 0, count, zlib.crc32(packed)))
answer = hear("log/ack")
assert answer == {"log": log, "state": "missing", "chunks": list(range(count // 2, count))}, answer
for number in answer["chunks"]:
    send(number)
answer = hear("log/ack")
assert answer == {"log": log, "state": "kept"}, answer
device.say("sys/cmd/reply", json.dumps({"id": log, "state": "done"}))
device.client.disconnect()
device.client.loop_stop()
print("ok")
