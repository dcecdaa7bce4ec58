"""A device on paho-mqtt that takes one firmware: over HTTPS, broken at 37 % and resumed, or in blocks over MQTT.

usage: ota_device.py {https|mqtt} HOST PORT PRODUCT DEVICE CLIENT-ID PASSWORD CA-FILE FROM-VERSION FILE
"""

import hashlib
import json
import queue
import ssl
import sys
import urllib.parse
import urllib.request
import zlib

import paho.mqtt.client as paho

SOON = 20
BLOCK, WINDOW = 8192, 16
way, host, port, product, device, client_id, password, ca, version, path = sys.argv[1:]
own = f"dev/{product}/{device}/ota"

messages, subscribed = queue.Queue(), queue.Queue()
client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv311)
client.username_pw_set(f"{product}/{device}", password)
client.on_message = lambda _c, _u, message: messages.put(message)
client.on_subscribe = lambda _c, _u, _m, codes, _p: subscribed.put(codes)
client.connect(host, int(port))
client.loop_start()
client.subscribe([(f"{own}/offer", 1), (f"{own}/block", 0)])
subscribed.get(timeout=SOON)


def say(what, message):
    client.publish(f"{own}/{what}", json.dumps(message), qos=1).wait_for_publish(SOON)


def offer():
    while True:
        message = messages.get(timeout=SOON)
        if message.topic == f"{own}/offer":
            return json.loads(message.payload)


def over_https(offered):
    # The certificate is localhost's.
    url = urllib.parse.urlsplit(offered["url"])
    url = url._replace(netloc=f"localhost:{url.port}").geturl()
    context = ssl.create_default_context(cafile=ca)
    part = offered["size"] * 37 // 100
    with urllib.request.urlopen(url, timeout=SOON, context=context) as answer:
        tag, got = answer.headers["ETag"], answer.read(part)
    assert len(got) == part
    rest = urllib.request.Request(url, headers={"Range": f"bytes={part}-", "If-Range": tag})
    with urllib.request.urlopen(rest, timeout=SOON, context=context) as answer:
        assert answer.status == 206, answer.status
        return got + answer.read()


def over_mqtt(offered):
    got = bytearray(offered["size"])
    for first in range(0, offered["size"], BLOCK * WINDOW):
        say("get", {"offer": offered["offer"], "size": BLOCK, "offset": first, "count": WINDOW})
        left = min(WINDOW, -(-(offered["size"] - first) // BLOCK))
        while left:
            message = messages.get(timeout=SOON)
            if message.topic != f"{own}/block":
                continue
            fields = [int.from_bytes(message.payload[at : at + 4], "big") for at in range(0, 16, 4)]
            block = message.payload[16:]
            assert fields[2:] == [len(block), zlib.crc32(block)] and fields[0] == offered["offer"]
            got[fields[1] : fields[1] + len(block)] = block
            left -= 1
    return bytes(got)


say("check", {"id": 1, "versions": {"mcu": version}, "hardware": "A1", "zone": "+08:00"})
offered = None
while offered is None:
    offered = offer()["offer"]
say("progress", {"offer": offered["offer"], "state": "accepted"})
say("progress", {"offer": offered["offer"], "state": "downloading", "percent": 1})
firmware = over_https(offered) if way == "https" else over_mqtt(offered)
assert hashlib.sha256(firmware).hexdigest() == offered["sha256"]
assert hashlib.md5(firmware).hexdigest() == offered["md5"]
assert f"{zlib.crc32(firmware):08x}" == offered["crc32"]
for state in ("downloaded", "verified", "applying"):
    say("progress", {"offer": offered["offer"], "state": state})
with open(path, "wb") as file:
    file.write(firmware)
say("check", {"id": 2, "versions": {"mcu": offered["version"]}, "hardware": "A1"})
while offer().get("id") != 2:
    pass
client.disconnect()
client.loop_stop()
print("ok")
