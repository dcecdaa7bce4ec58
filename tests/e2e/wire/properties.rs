//! Properties of PUBLISH and what travels with them.

use std::time::Duration;

use turnpike_tests::broker::{Broker, Setup};
use turnpike_tests::client::{Client, End, expect_fence, fence};
use turnpike_tests::time::pass;
use turnpike_tests::wire::{Connect, Packet, Prop, Publish, Version, one, subscribe, unsubscribe, user};

fn expiry(publish: &Publish) -> u32 {
    one(&publish.props, |prop| match prop {
        Prop::MessageExpiry(seconds) => Some(*seconds),
        _ => None,
    })
}

#[test]
fn what_the_publisher_says_arrives_unchanged_and_in_order() {
    // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
    let broker = Broker::start();
    let mut watcher = broker.clean(Version::V5, "watcher");
    watcher.subscribe(&[("t", 2)]);
    let mut client = broker.clean(Version::V5, "publisher");
    let props = vec![
        Prop::PayloadFormat(1),
        Prop::ResponseTopic("answer/to/me".to_owned()),
        Prop::CorrelationData(vec![0, 255, 1]),
        Prop::ContentType("text/plain".to_owned()),
        user("z", "1"),
        user("a", "2"),
        user("z", "1"),
        user("", ""),
        user("ключ", "значение"),
    ];
    for qos in 0..=2 {
        let mut publish = Publish::new("t", "x").qos(qos, u16::from(qos));
        publish.props.clone_from(&props);
        client.publish(&publish);
        assert_eq!(watcher.take().props, props, "QoS {qos}");
    }
    // In another order on the wire: user properties keep theirs.
    let mut publish = Publish::new("t", "x");
    publish.props = props.iter().rev().cloned().collect();
    client.publish(&publish);
    let users =
        |props: &[Prop]| props.iter().filter(|prop| matches!(prop, Prop::User(..))).cloned().collect::<Vec<_>>();
    assert_eq!(users(&watcher.take().props), users(&publish.props));
}

#[test]
fn properties_survive_the_queue_the_store_and_retaining() {
    let mut broker = Broker::start();
    let connect = Connect::durable(Version::V5, "away", 1000);
    let mut client = broker.client(&connect);
    client.subscribe(&[("t", 2)]);
    client.disconnect();
    let mut publisher = broker.clean(Version::V5, "publisher");
    let mut publish = Publish::new("t", "x").qos(1, 1).retain();
    publish.props = vec![Prop::ContentType("a/b".to_owned()), user("k", "v"), Prop::CorrelationData(b"c".to_vec())];
    publisher.publish(&publish);
    broker.restart();
    let mut client = broker.client(&connect);
    assert_eq!(client.take().props, publish.props);
    let mut late = broker.clean(Version::V5, "late");
    late.subscribe(&[("t", 1)]);
    assert_eq!(late.take().props, publish.props);
}

#[test]
fn expiry_is_passed_on_less_the_time_of_waiting() {
    // [MQTT-3.3.2-6]
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "away", 100);
    let mut client = broker.client(&connect);
    client.subscribe(&[("t", 2)]);
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("t", "now").qos(1, 1).prop(Prop::MessageExpiry(100)));
    assert_eq!(expiry(&client.take()), 100, "at once: nothing is taken off");
    client.disconnect();
    publisher.publish(&Publish::new("t", "later").qos(1, 1).prop(Prop::MessageExpiry(100)));
    publisher.publish(&Publish::new("t", "never").qos(2, 2).prop(Prop::MessageExpiry(1)));
    publisher.publish(&Publish::new("t", "always").qos(2, 3));
    pass(Duration::from_millis(2200));
    let mut client = broker.client(&connect);
    let later = client.take();
    assert_eq!(later.text(), "later");
    assert!((90..=98).contains(&expiry(&later)), "{later:?}");
    // [MQTT-3.3.2-5]
    assert_eq!(client.take().text(), "always");
    client.quiet();
}

#[test]
fn what_has_been_sent_does_not_expire() {
    // [MQTT-4.3.3-7]
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "slow", 100);
    let mut client = broker.client(&connect);
    client.subscribe(&[("t", 2)]);
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("t", "sent").qos(2, 1).prop(Prop::MessageExpiry(1)));
    let first = client.publish_in();
    client.drop_connection();
    pass(Duration::from_millis(1500));
    let mut client = broker.client(&connect);
    let again = client.take();
    assert_eq!((again.id, again.dup, again.text()), (first.id, true, "sent"));
}

#[test]
fn retained_messages_expire() {
    let broker = Broker::start();
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("t/short", "x").retain().prop(Prop::MessageExpiry(1)));
    publisher.publish(&Publish::new("t/long", "y").qos(1, 1).retain().prop(Prop::MessageExpiry(100)));
    pass(Duration::from_millis(2200));
    let mut late = broker.clean(Version::V5, "late");
    late.subscribe(&[("t/#", 1)]);
    let kept = late.take();
    assert_eq!(kept.text(), "y");
    assert!((90..=98).contains(&expiry(&kept)), "{kept:?}");
    late.quiet();
}

#[test]
fn aliases_of_the_client_stand_for_topics() {
    // [MQTT-3.3.2-12]
    let broker = Broker::start();
    let mut watcher = broker.clean(Version::V5, "watcher");
    watcher.subscribe(&[("t/#", 0)]);
    let (mut client, ack) = Client::open(broker.mqtt(), &Connect::new(Version::V5, "thrifty"));
    let limit = one(&ack.props, |prop| match prop {
        Prop::TopicAliasMaximum(limit) => Some(*limit),
        _ => None,
    });
    for (topic, alias, arrives) in [
        ("t/1", 1, "t/1"),
        ("", 1, "t/1"),
        ("t/max", limit, "t/max"),
        ("", limit, "t/max"),
        ("t/2", 1, "t/2"),
        ("", 1, "t/2"),
        ("", limit, "t/max"),
    ] {
        client.publish(&Publish::new(topic, "x").prop(Prop::TopicAlias(alias)));
        let got = watcher.take();
        assert_eq!((got.topic.as_str(), &got.props[..]), (arrives, &[][..]));
    }
}

#[test]
fn bad_aliases_end_the_connection() {
    let broker = Broker::start();
    let (_client, ack) = Client::open(broker.mqtt(), &Connect::new(Version::V5, "thrifty"));
    let limit = one(&ack.props, |prop| match prop {
        Prop::TopicAliasMaximum(limit) => Some(*limit),
        _ => None,
    });
    for (topic, alias, reason) in
        [("t", 0, 0x94), ("t", limit + 1, 0x94), ("", limit + 1, 0x94), ("", 0, 0x94), ("", 1, 0x82)]
    {
        for qos in 0..=2 {
            let mut client = broker.clean(Version::V5, "thrifty");
            client.send(&Publish::new(topic, "x").qos(qos, 1).prop(Prop::TopicAlias(alias)).encode(Version::V5));
            assert_eq!(client.end(), End::Disconnected(reason), "{topic:?} {alias}");
        }
    }
}

#[test]
fn aliases_do_not_outlive_the_connection() {
    let broker = Broker::start();
    let connect = Connect::durable(Version::V5, "thrifty", 100);
    let mut client = broker.client(&connect);
    client.publish(&Publish::new("t", "x").qos(1, 1).prop(Prop::TopicAlias(1)));
    client.disconnect();
    let mut client = broker.client(&connect);
    client.send(&Publish::new("", "x").prop(Prop::TopicAlias(1)).encode(Version::V5));
    assert_eq!(client.end(), End::Disconnected(0x82));
}

#[test]
fn aliases_can_be_switched_off() {
    let broker = Setup::anonymous().config("[limits]\ntopic_alias_in_max = 0\n").start();
    let (mut client, ack) = Client::open(broker.mqtt(), &Connect::new(Version::V5, "thrifty"));
    assert!(!ack.props.iter().any(|prop| matches!(prop, Prop::TopicAliasMaximum(1..))), "{ack:?}");
    client.send(&Publish::new("t", "x").prop(Prop::TopicAlias(1)).encode(Version::V5));
    assert_eq!(client.end(), End::Disconnected(0x94));
}

#[test]
fn a_request_finds_its_answer() {
    let broker = Broker::start();
    let mut asker = broker.clean(Version::V5, "asker");
    let mut answerer = broker.clean(Version::V5, "answerer");
    answerer.subscribe(&[("question", 1)]);
    asker.subscribe(&[("answer/asker", 1)]);
    let mut question = Publish::new("question", "6 × 7").qos(1, 1);
    question.props = vec![Prop::ResponseTopic("answer/asker".to_owned()), Prop::CorrelationData(b"42".to_vec())];
    asker.publish(&question);
    let got = answerer.take();
    let topic = one(&got.props, |prop| match prop {
        Prop::ResponseTopic(topic) => Some(topic.clone()),
        _ => None,
    });
    let correlation = one(&got.props, |prop| match prop {
        Prop::CorrelationData(data) => Some(data.clone()),
        _ => None,
    });
    answerer.publish(&Publish::new(&topic, "42").qos(1, 1).prop(Prop::CorrelationData(correlation)));
    let answer = asker.take();
    assert_eq!((answer.text(), &answer.props[..]), ("42", &[Prop::CorrelationData(b"42".to_vec())][..]));
}

#[test]
fn a_response_topic_with_wildcards_is_refused() {
    // [MQTT-3.3.2-14]
    let broker = Broker::start();
    for topic in ["a/+", "#"] {
        let mut client = broker.clean(Version::V5, "asker");
        client.send(&Publish::new("t", "x").prop(Prop::ResponseTopic(topic.to_owned())).encode(Version::V5));
        let end = client.end();
        assert!(matches!(end, End::Disconnected(0x81 | 0x82 | 0x90)), "{end:?}");
    }
}

#[test]
fn a_client_that_wants_no_problem_information_gets_none() {
    // [MQTT-3.1.2-29]
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "curt").prop(Prop::RequestProblemInfo(0));
    let mut client = broker.client(&connect);
    let extra = |props: &[Prop]| props.iter().any(|prop| matches!(prop, Prop::ReasonString(_) | Prop::User(..)));
    client.send(&Publish::new("$SYS/x", "x").qos(1, 1).encode(Version::V5));
    assert!(!extra(&client.ack_in(4).props));
    client.send(&Publish::new("$SYS/x", "x").qos(2, 2).encode(Version::V5));
    assert!(!extra(&client.ack_in(5).props));
    client.send(&subscribe(Version::V5, 3, &[("$share/group/a", 0)], &[]));
    assert!(!extra(&client.ack_in(9).props));
    client.send(&unsubscribe(Version::V5, 4, &["nothing"]));
    assert!(!extra(&client.ack_in(11).props));
}

#[test]
fn response_information_is_given_only_on_request() {
    // [MQTT-3.1.2-28]
    let broker = Broker::start();
    for connect in [Connect::new(Version::V5, "x"), Connect::new(Version::V5, "x").prop(Prop::RequestResponseInfo(0))] {
        let (_client, ack) = Client::open(broker.mqtt(), &connect);
        assert!(!ack.props.iter().any(|prop| matches!(prop, Prop::ResponseInfo(_))));
    }
}

#[test]
fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    // [MQTT-3.3.4-6]
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "odd");
    client.send(&Publish::new("t", "x").prop(Prop::SubscriptionId(1)).encode(Version::V5));
    assert_eq!(client.end(), End::Disconnected(0x82));
}

#[test]
fn a_payload_said_to_be_text_is_not_refused_for_not_being_so() {
    let broker = Broker::start();
    let mut watcher = broker.clean(Version::V5, "watcher");
    watcher.subscribe(&[("t", 0)]);
    expect_fence(&mut watcher);
    let mut client = broker.clean(Version::V5, "publisher");
    client.send(&Publish::new("t", [0xff, 0xfe]).qos(1, 1).prop(Prop::PayloadFormat(1)).encode(Version::V5));
    // Checking is allowed (0x99), not checking is, too; closing isn't.
    let Packet::PubAck(ack) = client.recv() else { panic!("PUBACK expected") };
    assert!(matches!(ack.code(), 0 | 0x99));
    assert_eq!(fence(&mut client, &mut watcher).len(), usize::from(ack.code() == 0));
}
