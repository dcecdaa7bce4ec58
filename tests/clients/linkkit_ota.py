"""The aliyun-iot-linkkit SDK as it is, taking new firmware: its reports and questions, its callback, its downloader.

usage: linkkit_ota.py PORT PRODUCT DEVICE SECRET FILE [CA-FILE]

Says `told KIND VERSION SIZE METHOD MODULE` for each notice (kind 1: pushed, 2: an answer). On its standard input: `report MODULE VERSION`, `query MODULE`,
`download` (what it was told of last, into FILE), `step MODULE PERCENT`, `leave`. It subscribes to nothing, as the vendor's examples don't.
"""

import json
import sys
import threading

import linkkit_client

SOON = 20  # seconds
port, product, device, secret, path = int(sys.argv[1]), *sys.argv[2:6]
ca = sys.argv[6] if len(sys.argv) > 6 else None
gone = threading.Event()
last = {}


def say(*words):
    # One write: callbacks come from other threads than the commands.
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")


def told(kind, version, size, url, method, sign, module, _extra):
    last.update(url=url, method=method, sign=sign)
    say("told", kind, version, size, method, module)


client = linkkit_client.client(port, product, device, secret, ca)
client.on_connect = lambda _present, rc, _data: say("connected", rc)
client.on_disconnect = lambda _rc, _data: gone.set()
client.on_ota_message_arrived = told
client.connect_async()

for line in sys.stdin:
    command, *words = line.split()
    if command == "report":
        # What it returns says that it failed, even where it didn't: the SDK compares a tuple with a number.
        client.ota_report_version(*words)
    elif command == "query":
        client.query_ota_firmware(*words)
    elif command == "download":
        result = client.download_ota_firmware(last["url"], path, last["method"], last["sign"])
        say("downloaded", result.name)
    elif command == "step":
        # The SDK has no call for it; the vendor's examples publish it so.
        module, percent = words
        progress = {"id": "1", "params": {"step": percent, "desc": "", "module": module}}
        code, _ = client.publish_topic(f"/ota/device/progress/{product}/{device}", json.dumps(progress))
        assert code == 0, code
    elif command == "leave":
        client.disconnect()
        assert gone.wait(SOON)
        break
    else:
        raise SystemExit(f"what is {command}?")
