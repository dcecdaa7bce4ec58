"""One thread at a time at the socket of the MQTT library inside the aliyun-iot-linkkit SDK.

That library, of which the SDK has a copy, reads and acknowledges in the SDK's thread and publishes in the caller's, on one TLS connection without a lock. Where the two
meet, OpenSSL says `bad length`, the SDK handles the same message again for ever and sends nothing more. Nothing else of the SDK is changed.
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
