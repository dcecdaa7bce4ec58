"""The aliyun-iot-linkkit SDK in front of a broker that its own settings name: its `host_name` or `endpoint`, port and authority.

The MQTT library inside it, of which the SDK has a copy, reads and acknowledges in the SDK's thread and publishes in the caller's, on one TLS connection without a lock.
Where the two meet, OpenSSL says `bad length`, the SDK handles the same message again for ever and sends nothing more. So one thread at a time is let to the socket;
nothing else of the SDK is changed.
"""

import functools
import threading

from linkkit import linkkit

lock = threading.Lock()


def locked(call):
    @functools.wraps(call)
    def under_lock(*args):
        # Neither waits for the peer: the socket doesn't block.
        with lock:
            return call(*args)

    return under_lock


for name in ["_sock_recv", "_sock_send"]:
    setattr(linkkit.mqtt.Client, name, locked(getattr(linkkit.mqtt.Client, name)))


def client(port, product, device, secret, ca):
    """With the file of an authority: the vendor's TLS, at the endpoint. Without: plain TCP, by the host name that the SDK leaves as it is."""
    made = linkkit.LinkKit("localhost" if ca is None else "cn-shanghai", product, device, secret)
    settings = {"port": port, "secure": "", "auto_reconnect_max_sec": 1}
    if ca:
        with open(ca, encoding="ascii") as file:
            settings.update(secure="TLS", endpoint="localhost", cadata=file.read())
    made.config_mqtt(**settings)
    return made
