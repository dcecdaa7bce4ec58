"""A device on paho-mqtt that takes one firmware: over HTTPS, broken at 37 % and resumed, or in blocks over MQTT.

usage: ota_device.py {https|mqtt} HOST PORT PRODUCT DEVICE CLIENT-ID PASSWORD CA-FILE FROM-VERSION FILE
"""

import hashlib
import json
import ssl
import sys
import urllib.parse
import urllib.request
import zlib

from paho_device import SOON, Device

BLOCK, WINDOW = 8192, 16
way, host, port, product, name, client_id, password, ca, version, path = sys.argv[1:]
device = Device((host, port), (product, name), (client_id, password), [("ota/offer", 1), ("ota/block", 0)])


def say(what, message):
    device.say(f"ota/{what}", json.dumps(message))


def offer():
    while True:
        topic, payload = device.hear()
        if topic == "ota/offer":
            return json.loads(payload)


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
            topic, payload = device.hear()
            if topic != "ota/block":
                continue
            fields = [int.from_bytes(payload[at : at + 4], "big") for at in range(0, 16, 4)]
            block = payload[16:]
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
device.client.disconnect()
device.client.loop_stop()
print("ok")
