//! Wills.

use std::time::{Duration, Instant};

use turnpike_tests::broker::Broker;
use turnpike_tests::client::{Client, End, expect_fence, fence};
use turnpike_tests::time::pass;
use turnpike_tests::wire::{self, Connect, Prop, Publish, Version, Will, user};

fn watcher(broker: &Broker, version: Version) -> Client {
    let mut watcher = broker.clean(version, "watcher");
    watcher.subscribe(&[("will/#", 2)]);
    expect_fence(&mut watcher);
    watcher
}

fn nothing_more(broker: &Broker, watcher: &mut Client) {
    let mut publisher = broker.clean(Version::V311, "fence-maker");
    assert_eq!(fence(&mut publisher, watcher), []);
}

#[test]
fn a_broken_connection_publishes_the_will() {
    // [MQTT-3.1.2-8]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut watcher = watcher(&broker, version);
        for qos in 0..=2 {
            let will = Will { qos, ..Will::new("will/broken", b"gone") };
            broker.client(&Connect::new(version, "mortal").will(will)).drop_connection();
            let publish = watcher.take();
            assert_eq!((publish.topic.as_str(), publish.text(), publish.qos), ("will/broken", "gone", qos));
            // [MQTT-3.1.2-14]
            assert!(!publish.retain);
        }
        nothing_more(&broker, &mut watcher);
    }
}

#[test]
fn a_good_end_discards_the_will() {
    // [MQTT-3.14.4-3]
    let broker = Broker::start();
    for version in Version::ALL {
        let mut watcher = watcher(&broker, version);
        broker.client(&Connect::new(version, "mortal").will(Will::new("will/no", b"gone"))).disconnect();
        nothing_more(&broker, &mut watcher);
    }
    let mut watcher = watcher(&broker, Version::V5);
    let connect = Connect::new(Version::V5, "mortal").will(Will::new("will/no", b"gone"));
    for bytes in [&[0xe0, 0][..], &[0xe0, 1, 0], &[0xe0, 2, 0, 0], &[0xe0, 7, 0, 5, 0x26, 0, 0, 0, 0]] {
        let mut client = broker.client(&connect);
        client.send(bytes);
        assert_eq!(client.end(), End::Closed);
    }
    nothing_more(&broker, &mut watcher);
}

#[test]
fn reason_4_and_errors_publish_it() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    for code in [0x04, 0x80, 0x98] {
        broker
            .client(&Connect::new(Version::V5, "mortal").will(Will::new("will/yes", b"gone")))
            .disconnect_with(code, &[]);
        assert_eq!(watcher.take().text(), "gone", "{code:#04x}");
    }
    nothing_more(&broker, &mut watcher);
}

#[test]
fn a_protocol_violation_publishes_it() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut watcher = watcher(&broker, version);
        let mut client = broker.client(&Connect::new(version, "mortal").will(Will::new("will/yes", b"gone")));
        client.send(&[0xc1, 0]);
        client.ends_with(0x81);
        assert_eq!(watcher.take().text(), "gone");
    }
}

#[test]
fn a_keep_alive_that_runs_out_publishes_it() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V311);
    let connect = Connect::new(Version::V311, "mortal").keep_alive(1).will(Will::new("will/silent", b"gone"));
    let _client = broker.client(&connect);
    assert_eq!(watcher.take().text(), "gone");
}

#[test]
fn a_refused_connection_has_no_will() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V311);
    let connect = Connect::new(Version::V311, "").clean(false).will(Will::new("will/never", b"gone"));
    let (mut client, ack) = Client::open(broker.mqtt(), &connect);
    assert_eq!(ack.code, 2);
    assert_eq!(client.end(), End::Closed);
    nothing_more(&broker, &mut watcher);
}

#[test]
fn a_retained_will_is_retained() {
    // [MQTT-3.1.2-15]
    for version in Version::ALL {
        let broker = Broker::start();
        let topic = format!("will/kept/{version:?}");
        let will = Will { retain: true, qos: 1, ..Will::new(&topic, b"gone") };
        let mut watcher = watcher(&broker, version);
        broker.client(&Connect::new(version, "mortal").will(will)).drop_connection();
        let live = watcher.take();
        assert!(!live.retain);
        let mut late = broker.clean(version, "late");
        late.subscribe(&[(&topic, 1)]);
        let kept = late.take();
        assert!(kept.retain);
        assert_eq!(kept.text(), "gone");
    }
}

#[test]
fn an_empty_will_is_published() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut watcher = watcher(&broker, version);
        broker.client(&Connect::new(version, "mortal").will(Will::new("will/empty", b""))).drop_connection();
        assert_eq!(watcher.take().payload, b"");
    }
}

#[test]
fn properties_of_the_will_come_with_it_but_the_delay() {
    // [MQTT-3.1.3-10]
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let mut will = Will::new("will/rich", b"gone");
    let forwarded = vec![
        Prop::PayloadFormat(1),
        Prop::ContentType("text/plain".to_owned()),
        Prop::ResponseTopic("answer/here".to_owned()),
        Prop::CorrelationData(b"\0\x01".to_vec()),
        user("b", "1"),
        user("a", "2"),
        user("b", "1"),
    ];
    will.props.push(Prop::WillDelay(0));
    will.props.extend(forwarded.clone());
    broker.client(&Connect::new(Version::V5, "mortal").will(will)).drop_connection();
    assert_eq!(watcher.take().props, forwarded);
}

#[test]
fn a_will_that_expires_keeps_its_interval_until_it_is_published() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let mut will = Will::new("will/expiring", b"gone");
    will.props.push(Prop::MessageExpiry(60));
    let client = broker.client(&Connect::new(Version::V5, "mortal").will(will));
    pass(Duration::from_millis(1200));
    client.drop_connection();
    // The life of the message begins when the will is published.
    assert_eq!(watcher.take().props, [Prop::MessageExpiry(60)]);
}

#[test]
fn a_delayed_will_waits() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let mut will = Will::new("will/late", b"gone");
    will.props.push(Prop::WillDelay(2));
    let client = broker.client(&Connect::durable(Version::V5, "mortal", 60).will(will));
    let begin = Instant::now();
    client.drop_connection();
    nothing_more(&broker, &mut watcher);
    assert_eq!(watcher.take().text(), "gone");
    assert!(begin.elapsed() >= Duration::from_millis(1900), "{:?}", begin.elapsed());
}

#[test]
fn a_delayed_will_comes_with_the_end_of_the_session_if_that_is_earlier() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let mut will = Will::new("will/late", b"gone");
    will.props.push(Prop::WillDelay(600));
    let connect = Connect::durable(Version::V5, "mortal", 1).will(will.clone());
    broker.client(&connect).drop_connection();
    assert_eq!(watcher.take().text(), "gone", "when the session expires");
    // A session that ends with its connection doesn't wait at all.
    broker.client(&Connect::new(Version::V5, "mortal").will(will.clone())).drop_connection();
    assert_eq!(watcher.take().text(), "gone", "at once");
    // Nor does one that a clean start discards.
    broker.client(&Connect::durable(Version::V5, "mortal", 600).will(will)).drop_connection();
    let _fresh = broker.clean(Version::V5, "mortal");
    assert_eq!(watcher.take().text(), "gone", "at the clean start");
}

#[test]
fn coming_back_in_time_cancels_a_delayed_will() {
    // [MQTT-3.1.3-9]
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let mut will = Will::new("will/late", b"gone");
    will.props.push(Prop::WillDelay(2));
    let connect = Connect::durable(Version::V5, "mortal", 600);
    broker.client(&connect.clone().will(will)).drop_connection();
    let (back, ack) = Client::open(broker.mqtt(), &connect);
    assert!(ack.session_present);
    pass(Duration::from_millis(3000));
    nothing_more(&broker, &mut watcher);
    back.disconnect();
}

#[test]
fn taking_over_publishes_the_will_if_the_session_ends_with_it() {
    let broker = Broker::start();
    for version in Version::ALL {
        let mut watcher = watcher(&broker, version);
        let will = Will::new("will/replaced", b"gone");
        let mut old = broker.client(&Connect::new(version, "mortal").will(will));
        let new = broker.clean(version, "mortal");
        old.ends_with(0x8e);
        assert_eq!(watcher.take().text(), "gone", "{version:?}");
        new.disconnect();
    }
}

#[test]
fn taking_over_a_session_that_goes_on_keeps_a_delayed_will_quiet() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5);
    let mut will = Will::new("will/replaced", b"gone");
    will.props.push(Prop::WillDelay(1));
    let connect = Connect::durable(Version::V5, "mortal", 600);
    let mut old = broker.client(&connect.clone().will(will));
    let new = broker.client(&connect);
    old.ends_with(0x8e);
    pass(Duration::from_millis(2000));
    nothing_more(&broker, &mut watcher);
    new.disconnect();
}

#[test]
fn a_will_reaches_durable_subscribers_that_are_away() {
    let broker = Broker::start();
    let connect = Connect::durable(Version::V311, "absent", 0);
    let mut absent = broker.client(&connect);
    absent.subscribe(&[("will/away", 1)]);
    absent.disconnect();
    let mut watcher = watcher(&broker, Version::V311);
    broker
        .client(&Connect::new(Version::V311, "mortal").will(Will { qos: 1, ..Will::new("will/away", b"gone") }))
        .drop_connection();
    assert_eq!(watcher.take().text(), "gone");
    assert_eq!(broker.client(&connect).take().text(), "gone");
}

#[test]
fn a_will_of_the_largest_size_is_published() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V311);
    let payload = vec![b'w'; 65_535];
    broker.client(&Connect::new(Version::V311, "mortal").will(Will::new("will/big", &payload))).drop_connection();
    assert_eq!(watcher.take().payload, payload);
}

#[test]
fn ones_own_will_comes_to_the_session_that_was_resumed() {
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "mortal", 600);
    let mut client = broker.client(&connect.clone().will(Will { qos: 1, ..Will::new("will/own", b"gone") }));
    client.subscribe(&[("will/own", 1)]);
    client.send(&wire::disconnect(4, &[]));
    assert_eq!(client.end(), End::Closed);
    let mut back = broker.client(&connect);
    assert_eq!(back.take().text(), "gone");
    assert_eq!(back.publish(&Publish::new("will/other", "x")), 0);
}
