//! The query language on both databases: the same answers, and no way out of it.

use holdfast_common::event::{EventBody, NetworkEvent};
use holdfast_manager::store::Store;
use holdfast_manager::store::events::{NewEvent, events_insert};
use holdfast_manager::store::index::Indexed;
use holdfast_manager::store::search::Search;
use uuid::Uuid;

use crate::world::{World, event, exec, malware, model, on_both, process};

on_both! {
    async fn every_form_of_a_query_finds_the_same_everywhere(world: World) {
        let (web, db) = (world.host("web1").await, world.host("db1").await);
        let sniff = exec(&["tcpdump", "-c", "5", "-nnni", "eth0"]);
        let other = exec(&["tcpdumper", "--help"]);
        let shell = exec(&["bash", "-c", "echo tcpdump"]);
        let fired = model("Network Sniffing", "tcpdump");
        let found = malware("/srv/www/eicar.com", &"ab".repeat(32));
        let net = event(EventBody::Network(Box::new(NetworkEvent {
            process: process(&["curl"]),
            parents: Vec::new(),
            action: "connect".to_owned(),
            protocol: "tcp".to_owned(),
            local_address: "10.0.0.1".to_owned(),
            local_port: 4000,
            remote_address: "203.0.113.9".to_owned(),
            remote_port: 443,
            dns_name: "Evil.Example.".to_owned(),
            dns_type: String::new(),
            dns_answers: Vec::new(),
            count: 1,
        })));
        world.store(web, &[sniff.clone(), other.clone(), fired.clone(), found.clone()]).await;
        world.store(db, &[shell.clone(), net.clone()]).await;
        let (s, o, b, m, f, n) = (sniff.id, other.id, shell.id, fired.id, found.id, net.id);
        let table: &[(&str, &[uuid::Uuid])] = &[
            ("", &[s, o, b, m, f, n]),
            ("cmdline:\"tcpdump -c\"", &[s]),
            ("cmdline:tcpdump", &[s, b, m]),
            ("cmdline:tcpdump*", &[s, o, b, m]),
            ("cmdline:\"TCPDUMP -C 5\"", &[s]),
            ("cmdline:\"c tcpdump\"", &[]),
            ("host:web1 kind:exec cmdline:tcpdump", &[s]),
            ("host:db1 kind:exec", &[b]),
            ("kind:exec -cmdline:tcpdump", &[o]),
            ("-kind:exec", &[m, f, n]),
            ("NOT (kind:exec OR kind:network)", &[m, f]),
            ("(host:web1 kind:model) OR kind:malware", &[m, f]),
            ("-kind:exec -kind:model", &[f, n]),
            ("model:\"network sniffing\"", &[m]),
            ("technique:t1040", &[m]),
            (&format!("sha256:{}", "AB".repeat(32)), &[f]),
            ("path:\"srv www\"", &[f]),
            ("signature:eicar", &[f]),
            ("ip:203.0.113.9 port:443", &[n]),
            ("domain:evil.example", &[n]),
            ("user:root kind:network", &[n]),
            ("exe:tcpdump", &[s, m]),
            ("exe:/usr/bin/tcpdump pid:4242", &[s, m]),
            ("sniffing", &[m]),
            ("text:eicar", &[f]),
            ("user:nobody", &[]),
        ];
        for (query, expected) in table {
            let (mut found, mut expected) = (world.find(query).await, expected.to_vec());
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{query}");
        }
    }

    async fn a_query_cannot_leave_its_place(world: World) {
        let host = world.host("web1").await;
        let one = exec(&["ls"]);
        world.store(host, std::slice::from_ref(&one)).await;
        for hostile in [
            "cmdline:\"x' OR '1'='1\"",
            "cmdline:\"x\\\" OR facts:every\"",
            "user:\"'; DROP TABLE events; --\"",
            "user:\"') OR 1=1 --\"",
            "host:\"$1\"",
            "cmdline:\"x) OR (y\"",
            "cmdline:\"NEAR(a b, 5)\"",
            "cmdline:\"a <-> b | !c & d:*A\"",
            "\"{facts} : every\"",
            "cmdline:\"x\0y\"",
            "\"fx*\"",
            "user:'%'",
            "kind:exec*x",
        ] {
            assert!(world.find(hostile).await.is_empty(), "{hostile}");
        }
        assert_eq!(world.find("ls").await, [one.id]);
        let deep = format!("{}ls{}", "(NOT ".repeat(7), ")".repeat(7));
        assert!(world.find(&deep).await.is_empty());
        let wide = vec!["user:nobody"; 63].join(" OR ") + " OR ls";
        assert_eq!(world.find(&wide).await, [one.id]);
    }

    async fn the_period_is_by_the_hosts_clock(world: World) {
        let host = world.host("web1").await;
        let mut one = exec(&["ls"]);
        one.time_ms = 1_000_000;
        world.store(host, std::slice::from_ref(&one)).await;
        let search = async |from: i64, until: i64, text: &str| {
            let query = holdfast_manager::query::parse(text).expect("query");
            let page = world.app.event_search(query, (from, until), None, 10).await;
            page.expect("search").events.len()
        };
        for text in ["", "cmdline:ls"] {
            assert_eq!(search(1_000_000, 1_000_001, text).await, 1);
            assert_eq!(search(1_000_001, 2_000_000, text).await, 0);
            assert_eq!(search(0, 1_000_000, text).await, 0);
        }
    }

    async fn what_is_rare_and_what_was_frequent_once_are_found_behind_many_others(world: World) {
        let host = world.host("web1").await;
        let store = Store::open(world.settings.place.clone()).await.expect("store");
        let host = store.host_get(host).await.expect("read").expect("host").number;
        // More than PostgreSQL is asked to look through one by one, and more than it sorts.
        let (frequent, all) = (11_000, 32_000);
        for first in (0..all).step_by(4000) {
            let events: Vec<NewEvent> = (first..first + 4000)
                .map(|at: i64| NewEvent {
                    host,
                    id: Uuid::now_v7(),
                    time_ms: 1_700_000_000_000 + at,
                    kind: "exec".to_owned(),
                    received_ms: at,
                    body: "{}".to_owned(),
                    indexed: Indexed {
                        cmdline: format!("{} n{at}", if at < frequent { "once" } else { "now" }),
                        ..Indexed::default()
                    },
                })
                .collect();
            let mut tx = store.begin().await.expect("begin");
            events_insert(&mut tx, &events).await.expect("insert");
            tx.commit().await.expect("commit");
        }
        let found = async |text: &str, before: Option<i64>| {
            let query = holdfast_manager::query::parse(text).expect("query");
            let search = Search { query, from_ms: 0, until_ms: i64::MAX, before, limit: 50 };
            store.event_search(&search).await.expect("search")
        };
        let places = async |text: &str, before: Option<i64>| -> Vec<i64> {
            found(text, before).await.iter().map(|event| event.received_ms).collect()
        };
        assert_eq!(places("n7", None).await, [7]);
        assert_eq!(places("n7 OR n31999 OR n12000", None).await, [31_999, 12_000, 7]);
        let newest: Vec<i64> = (frequent - 50..frequent).rev().collect();
        assert_eq!(places("once", None).await, newest);
        let first = found("now", None).await;
        assert_eq!(first.last().map(|event| event.received_ms), Some(all - 50));
        let next = places("now", first.last().map(|event| event.number)).await;
        assert_eq!(next, (all - 100..all - 50).rev().collect::<Vec<_>>());
        assert!(places("never", None).await.is_empty());
        store.close().await;
    }
}
