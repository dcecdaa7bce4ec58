"""The aliyun-iot-linkkit SDK as it is, in front of a broker that its own settings name: its `host_name` or `endpoint`, port and authority.

usage: linkkit_tour.py PORT PRODUCT DEVICE SECRET [CA-FILE]

Says a line for whatever the SDK reports to its user. On its standard input: `subscribe TOPIC`, `publish TOPIC PAYLOAD`,
`post JSON` (properties), `answer SERVICE ID`, `version TEXT` (of the firmware it has), `firmware` (asks for a newer one), `reconnect`
(leaves, and comes back with another log-in), `leave`.
"""

import json
import os
import sys
import tempfile
import threading

import linkkit_client

SOON = 20  # seconds
port, product, device, secret = int(sys.argv[1]), *sys.argv[2:5]
ca = sys.argv[5] if len(sys.argv) > 5 else None
gone = threading.Event()

# What the vendor's console gives for a product: its thing model.
MODEL = {
    "events": [{"identifier": "post", "outputData": [{"identifier": "power"}]}],
    "services": [
        {"identifier": "set", "inputData": [{"identifier": "power"}]},
        {"identifier": "blink", "inputData": [], "outputData": []},
    ],
}


def say(*words):
    # One write: callbacks come from other threads than the commands.
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")


def disconnected(rc, _data):
    say("disconnected", rc)
    gone.set()


client = linkkit_client.client(port, product, device, secret, ca)
with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as model:
    json.dump(MODEL, model)
assert client.thing_setup(model.name) == 0
os.unlink(model.name)

client.on_connect = lambda present, rc, _data: say("connected", int(present), rc)
client.on_disconnect = disconnected
client.on_thing_enable = lambda _data: say("enabled")
client.on_subscribe_topic = lambda mid, qos, _data: say("subscribed", *qos)
client.on_publish_topic = lambda mid, _data: say("published")
client.on_topic_message = lambda topic, payload, qos, _data: say("message", topic, qos, payload.decode())
client.on_thing_prop_post = lambda id, code, data, text, _data: say("posted", code, text)
client.on_thing_prop_changed = lambda params, _data: say("set", json.dumps(params))
client.on_thing_call_service = lambda name, id, params, _data: say("called", name, id, json.dumps(params))
client.on_ota_message_arrived = lambda kind, version, size, url, method, sign, module, _extra: say("upgrade", kind, version, url)
client.connect_async()

for line in sys.stdin:
    command, _, rest = line.strip().partition(" ")
    if command == "subscribe":
        code, _ = client.subscribe_topic(rest)
        assert code == 0, code
    elif command == "publish":
        topic, _, payload = rest.partition(" ")
        code, _ = client.publish_topic(topic, payload)
        assert code == 0, code
    elif command == "post":
        code, _ = client.thing_post_property(json.loads(rest))
        assert code == 0, code
    elif command == "version":
        client.ota_report_version("default", rest)
    elif command == "firmware":
        # What it returns says that it failed, even where it didn't: the SDK compares a tuple with a number.
        client.query_ota_firmware()
    elif command == "answer":
        name, id = rest.split()
        assert client.thing_answer_service(name, id, 200) == 0
    elif command == "reconnect":
        gone.clear()
        client.disconnect()
        assert gone.wait(SOON)
        client.connect_async()
    elif command == "leave":
        gone.clear()
        client.disconnect()
        assert gone.wait(SOON)
        break
    else:
        raise SystemExit(f"what is {command}?")
