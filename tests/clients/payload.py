"""A device without TLS: paho-mqtt, and the Python of authz/PAYLOAD.md as it stands there.

usage: payload.py HOST PORT PAYLOAD.md PRODUCT DEVICE SECRET CLIENT-ID USER PASSWORD NONCE
"""

import queue
import sys

import paho.mqtt.client as paho

SOON = 20
host, port, document, product, device, secret, client_id, user, password, nonce = sys.argv[1:]
with open(document, encoding="utf-8") as file:
    code = file.read().split("```python\n")[1].split("```")[0]
names = {}
exec(compile(code, document, "exec"), names)
payloads = names["Payloads"](*(text.encode() for text in (product, device, secret, nonce)))

messages = queue.Queue()
client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv311)
client.username_pw_set(user, password)
client.on_message = lambda _c, _u, message: messages.put(message)
client.connect(host, int(port), 30)
client.loop_start()

announcement = messages.get(timeout=SOON)
assert announcement.topic == f"dev/{product}/{device}/sys/key", announcement.topic
assert payloads.hear(announcement.payload) == (3600, 100_000, 60)
topic = f"dev/{product}/{device}/backfill/t"
client.subscribe(topic, 1)
for text in (b"one", b"", b"three"):
    client.publish(topic, payloads.seal(topic.encode(), text), 1).wait_for_publish(SOON)
    message = messages.get(timeout=SOON)
    assert message.payload != text and payloads.open(topic.encode(), message.payload) == text
client.disconnect()
print("ok")
