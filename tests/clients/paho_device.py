"""A device of the profile `native` on paho-mqtt, with what has come to it."""

import queue

import paho.mqtt.client as paho

SOON = 20  # seconds


class Device:
    """Comes in over plain TCP and subscribes below its own topic `dev/{product}/{device}`: `filters` are pairs of what follows it and a QoS."""

    def __init__(self, address, names, login, filters):
        (host, port), (product, device), (client_id, password) = address, names, login
        self.own = f"dev/{product}/{device}"
        self.messages, subscribed = queue.Queue(), queue.Queue()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv311)
        self.client.username_pw_set(f"{product}/{device}", password)
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_subscribe = lambda _c, _u, _m, codes, _p: subscribed.put(codes)
        self.client.connect(host, int(port))
        self.client.loop_start()
        self.client.subscribe([(f"{self.own}/{rest}", qos) for rest, qos in filters])
        subscribed.get(timeout=SOON)

    def hear(self):
        """What has come next, and on which topic below its own."""
        message = self.messages.get(timeout=SOON)
        return message.topic.removeprefix(f"{self.own}/"), message.payload

    def say(self, rest, payload):
        self.client.publish(f"{self.own}/{rest}", payload, qos=1).wait_for_publish(SOON)
