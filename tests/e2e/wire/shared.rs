//! Shared subscriptions.

use std::collections::BTreeMap;

use turnpike_tests::broker::Broker;
use turnpike_tests::client::{Client, End, expect_fence, fence};
use turnpike_tests::time::{SOON, until};
use turnpike_tests::wire::{self, Connect, Prop, Publish, Version};

fn member(broker: &Broker, version: Version, id: &str, qos: u8) -> Client {
    let mut member = broker.clean(version, id);
    assert_eq!(member.subscribe(&[("$share/group/t/#", qos)]), [qos]);
    expect_fence(&mut member);
    member
}

/// What each member got of all that was published so far.
fn got(publisher: &mut Client, members: &mut [Client]) -> Vec<Vec<String>> {
    members
        .iter_mut()
        .map(|member| fence(publisher, member).iter().map(|publish| publish.text().to_owned()).collect())
        .collect()
}

/// A fence reaches every subscriber: take it from those that it isn't meant for.
fn skip_fences(publisher: &mut Client, members: &mut [Client]) -> Vec<Vec<String>> {
    publisher.send(&Publish::new("fence", "last").encode(publisher.version()));
    members
        .iter_mut()
        .map(|member| {
            let mut texts = Vec::new();
            loop {
                let publish = member.take();
                match (publish.topic.as_str(), publish.text()) {
                    ("fence", "last") => return texts,
                    ("fence", _) => {}
                    (_, text) => texts.push(text.to_owned()),
                }
            }
        })
        .collect()
}

#[test]
fn each_message_goes_to_one_member_and_all_have_their_share() {
    let broker = Broker::start();
    for version in Version::ALL {
        for qos in 0..=2u8 {
            let mut members: Vec<Client> =
                (0..3).map(|n| member(&broker, version, &format!("member{n}"), qos)).collect();
            let mut publisher = broker.clean(version, "publisher");
            for n in 0..30u16 {
                publisher.publish(&Publish::new("t/x", format!("{n}")).qos(qos, n + 1));
            }
            let shares = skip_fences(&mut publisher, &mut members);
            assert!(shares.iter().all(|share| share.len() >= 5), "{version:?} QoS {qos}: {shares:?}");
            let mut all: Vec<u32> = shares.concat().iter().map(|text| text.parse().expect("a number")).collect();
            all.sort_unstable();
            assert_eq!(all, (0..30).collect::<Vec<_>>());
        }
    }
}

#[test]
fn groups_and_plain_subscribers_each_get_their_copy() {
    let broker = Broker::start();
    let mut clients: Vec<Client> = ["one", "two", "plain"].map(|id| broker.clean(Version::V5, id)).into();
    clients[0].subscribe(&[("$share/a/t", 0)]);
    clients[1].subscribe(&[("$share/b/t", 0)]);
    clients[2].subscribe(&[("t", 0)]);
    clients.iter_mut().for_each(expect_fence);
    let mut publisher = broker.clean(Version::V5, "publisher");
    for n in 0..5 {
        publisher.publish(&Publish::new("t", format!("{n}")));
    }
    for share in skip_fences(&mut publisher, &mut clients) {
        assert_eq!(share, ["0", "1", "2", "3", "4"]);
    }
}

#[test]
fn one_client_may_have_both_a_shared_and_a_plain_subscription() {
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "both");
    client.subscribe_with(&[("$share/group/t", 0)], &[Prop::SubscriptionId(1)]);
    client.subscribe_with(&[("t", 0)], &[Prop::SubscriptionId(2)]);
    expect_fence(&mut client);
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("t", "x"));
    let mut copies: Vec<Vec<Prop>> =
        fence(&mut publisher, &mut client).into_iter().map(|publish| publish.props).collect();
    copies.sort_by_key(|props| format!("{props:?}"));
    assert_eq!(copies, [[Prop::SubscriptionId(1)], [Prop::SubscriptionId(2)]]);
}

#[test]
fn a_member_that_leaves_gets_nothing_more() {
    let broker = Broker::start();
    for version in [Version::V311, Version::V5] {
        let mut members: Vec<Client> = (0..3).map(|n| member(&broker, version, &format!("member{n}"), 1)).collect();
        let codes = members[0].unsubscribe(&["$share/group/t/#"]);
        assert!(version != Version::V5 || codes == [0]);
        members.remove(1).disconnect();
        let mut publisher = broker.clean(version, "publisher");
        until("the member that disconnected is out", SOON, || {
            publisher.publish(&Publish::new("t/x", "x").qos(1, 1));
            let shares = skip_fences(&mut publisher, &mut members);
            assert_eq!(shares[0], Vec::<String>::new());
            (shares[1].len() == 1).then_some(())
        });
        for n in 0..10u16 {
            publisher.publish(&Publish::new("t/x", format!("{n}")).qos(1, n + 1));
        }
        let shares = skip_fences(&mut publisher, &mut members);
        assert_eq!((shares[0].len(), shares[1].len()), (0, 10));
    }
}

#[test]
fn what_a_dead_member_did_not_acknowledge_goes_to_another() {
    let broker = Broker::start();
    for version in [Version::V311, Version::V5] {
        let mut first = member(&broker, version, "first", 1);
        let mut publisher = broker.clean(version, "publisher");
        for n in 0..10u16 {
            publisher.publish(&Publish::new("t/x", format!("{n}")).qos(1, n + 1));
        }
        let mut open = Vec::new();
        for n in 0..10 {
            let publish = first.publish_in();
            if n < 3 {
                first.send(&wire::ack(4, publish.id, 0));
            } else {
                open.push(publish.text().to_owned());
            }
        }
        first.quiet();
        let mut second = member(&broker, version, "second", 1);
        // Its session ends with the connection; nobody will ever fetch the rest.
        first.drop_connection();
        let handed: Vec<String> = open.iter().map(|_| second.take().text().to_owned()).collect();
        assert_eq!(handed, open, "{version:?}");
        second.quiet();
        second.disconnect();
    }
}

#[test]
fn a_connected_member_is_preferred_to_an_absent_one() {
    let broker = Broker::start();
    let durable = Connect::durable(Version::V5, "durable", 100);
    let mut absent = broker.client(&durable);
    absent.subscribe(&[("$share/group/t/#", 1)]);
    absent.disconnect();
    let mut present = member(&broker, Version::V5, "present", 1);
    let mut publisher = broker.clean(Version::V5, "publisher");
    for n in 0..10u16 {
        publisher.publish(&Publish::new("t/x", format!("{n}")).qos(1, n + 1));
    }
    let shares = got(&mut publisher, std::slice::from_mut(&mut present));
    assert_eq!(shares[0].len(), 10);
}

#[test]
fn with_every_member_absent_a_durable_one_keeps_the_messages() {
    let broker = Broker::start();
    for version in [Version::V311, Version::V5] {
        let durable = Connect::durable(version, "durable", 100);
        let mut absent = broker.client(&durable);
        absent.subscribe(&[("$share/group/t/#", 1)]);
        absent.disconnect();
        let mut publisher = broker.clean(version, "publisher");
        for n in 0..5u16 {
            assert_eq!(publisher.publish(&Publish::new("t/x", format!("{n}")).qos(1, n + 1)), 0);
        }
        let mut back = broker.client(&durable);
        for n in 0..5 {
            assert_eq!(back.take().text(), n.to_string());
        }
        back.disconnect();
        broker.clean(version, "durable").disconnect();
    }
}

#[test]
fn retained_messages_are_not_sent_to_groups() {
    let broker = Broker::start();
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("t/x", "kept").qos(1, 1).retain());
    let mut member = member(&broker, Version::V5, "member", 1);
    assert_eq!(fence(&mut publisher, &mut member), []);
}

#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    // [MQTT-3.8.3-4]
    let broker = Broker::start();
    let mut client = broker.clean(Version::V5, "client");
    client.send(&wire::subscribe(Version::V5, 1, &[("$share/group/t", 4)], &[]));
    assert_eq!(client.end(), End::Disconnected(0x82));
}

#[test]
fn names_of_groups_are_checked() {
    // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    let broker = Broker::start();
    for filter in
        ["$share", "$share/", "$share/group", "$share/group/", "$share//t", "$share/+/t", "$share/#/t", "$share/a#/t"]
    {
        let mut client = broker.clean(Version::V5, "client");
        client.send(&wire::subscribe(Version::V5, 1, &[(filter, 0)], &[]));
        let end = client.end();
        assert!(matches!(end, End::Disconnected(0x81 | 0x82)), "{filter}: {end:?}");
        let mut client = broker.clean(Version::V311, "client");
        client.send(&wire::subscribe(Version::V311, 1, &[(filter, 0)], &[]));
        assert_eq!(client.end(), End::Closed, "{filter}");
    }
}

#[test]
fn a_member_that_refuses_a_message_ends_it_for_the_group() {
    // [MQTT-4.8.2-6]
    let broker = Broker::start();
    let mut members: Vec<Client> = (0..2).map(|n| member(&broker, Version::V5, &format!("member{n}"), 1)).collect();
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("t/x", "unwanted").qos(1, 1));
    publisher.send(&Publish::new("fence", "").encode(Version::V5));
    let mut refused = 0;
    for member in &mut members {
        loop {
            let publish = member.publish_in();
            if publish.topic == "fence" {
                break;
            }
            member.send(&wire::ack(4, publish.id, 0x83));
            refused += 1;
        }
        member.quiet();
    }
    assert_eq!(refused, 1);
    assert!(skip_fences(&mut publisher, &mut members).concat().is_empty());
}

#[test]
fn groups_are_told_apart_by_name_and_filter() {
    let broker = Broker::start();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut clients: Vec<(&str, Client)> = [("a/t", "$share/a/t"), ("a/+", "$share/a/+"), ("b/t", "$share/b/t")]
        .map(|(name, filter)| {
            let mut client = broker.clean(Version::V5, &name.replace('/', "-"));
            client.subscribe(&[(filter, 0)]);
            expect_fence(&mut client);
            (name, client)
        })
        .into();
    let mut publisher = broker.clean(Version::V5, "publisher");
    publisher.publish(&Publish::new("t", "x"));
    publisher.send(&Publish::new("fence", "last").encode(Version::V5));
    for (name, client) in &mut clients {
        loop {
            let publish = client.take();
            match publish.topic.as_str() {
                "t" => *counts.entry(name).or_default() += 1,
                _ => break,
            }
        }
    }
    assert_eq!(counts, BTreeMap::from([("a/+", 1), ("a/t", 1), ("b/t", 1)]));
}
