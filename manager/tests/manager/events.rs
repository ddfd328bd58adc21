//! Events: each once, whatever happens; what goes when.

use bytes::Bytes;
use holdfast_manager::app::{App, now_ms};
use holdfast_manager::store::Store;
use holdfast_manager::store::events::{NewEvent, events_insert};
use holdfast_manager::store::index::Indexed;
use holdfast_manager::store::retention::DAY_MS;
use uuid::Uuid;

use crate::world::{On, World, bytes, event, exec, on_both};

on_both! {
    async fn an_event_that_is_sent_again_is_kept_once(world: World) {
        let host = world.host("web1").await;
        let events = [exec(&["ls"]), exec(&["cat"])];
        world.store(host, &events).await;
        world.store(host, &events).await;
        world.store(host, &[events[1].clone(), events[1].clone(), exec(&["ps"])]).await;
        assert_eq!(world.find("").await.len(), 3);
        assert_eq!(world.app.counters().events_doubled.get(), 4);
        assert_eq!(world.app.event_totals().await.expect("totals")[0].events, 3);
    }

    async fn one_host_cannot_stand_in_the_way_of_anothers_events(world: World) {
        let (one, two) = (world.host("one").await, world.host("two").await);
        let event = exec(&["ls"]);
        world.store(one, std::slice::from_ref(&event)).await;
        world.store(two, std::slice::from_ref(&event)).await;
        assert_eq!(world.find("").await, [event.id, event.id]);
        assert_eq!(world.find("host:one").await, [event.id]);
    }

    async fn a_nul_is_kept_alike_in_every_text(world: World) {
        let host = world.host("web1").await;
        let store = Store::open(world.settings.place.clone()).await.expect("store");
        let number = store.host_get(host).await.expect("read").expect("host").number;
        let id = Uuid::now_v7();
        let event = NewEvent {
            host: number,
            id,
            time_ms: 1_700_000_000_000,
            kind: "a\0b".to_owned(),
            received_ms: 1,
            body: "{\"a\":\"\0\"}".to_owned(),
            indexed: Indexed::envelope(id, "ab", host, "web1"),
        };
        let mut tx = store.begin().await.expect("begin");
        let placed = events_insert(&mut tx, &[event]).await.expect("insert");
        tx.commit().await.expect("commit");
        let kept = store.event_get(placed[0].number).await.expect("read").expect("event");
        assert_eq!(kept.kind, "a\u{fffd}b");
        assert_eq!(kept.body, "{\"a\":\"\u{fffd}\"}");
        store.close().await;
    }

    async fn no_byte_in_an_event_reaches_the_next_one(world: World) {
        let host = world.host("web1").await;
        let store = Store::open(world.settings.place.clone()).await.expect("store");
        let number = store.host_get(host).await.expect("read").expect("host").number;
        let bodies: Vec<String> = ["", "{}", "a\u{1e}b\u{1e}c", "\u{1e}", "", "\n\u{1f}", "NULL"]
            .map(str::to_owned)
            .into();
        let made = |(at, body): (i64, &String)| NewEvent {
            host: number,
            id: Uuid::now_v7(),
            time_ms: 1_700_000_000_000 + at,
            kind: if at == 3 { String::new() } else { format!("kind{at}\u{1e}") },
            received_ms: at,
            body: body.clone(),
            indexed: Indexed::default(),
        };
        // All together, and one without a body alone.
        let many: Vec<NewEvent> = (0..).zip(&bodies).map(made).collect();
        let alone = [made((100, &String::new()))];
        for events in [&many[..], &alone[..]] {
            let mut tx = store.begin().await.expect("begin");
            let placed = events_insert(&mut tx, events).await.expect("insert");
            tx.commit().await.expect("commit");
            for (event, place) in events.iter().zip(placed) {
                let kept = store.event_get(place.number).await.expect("read").expect("event");
                assert_eq!((kept.id, kept.received_ms), (event.id, event.received_ms));
                let same = |kept: &str, was: &str| {
                    kept.replace('\u{fffd}', "\u{1e}") == was
                };
                assert!(same(&kept.body, &event.body), "{:?}", kept.body);
                assert!(same(&kept.kind, &event.kind), "{:?}", kept.kind);
            }
        }
        store.close().await;
    }

    async fn some_of_a_batch_being_there_already_changes_nothing_for_the_rest(world: World) {
        let host = world.host("web1").await;
        // More than one statement of either database takes.
        let events: Vec<_> = (0..2500).map(|_| exec(&["ls"])).collect();
        let every_third: Vec<_> = events.iter().step_by(3).cloned().collect();
        world.store(host, &every_third).await;
        world.store(host, &events).await;
        assert_eq!(world.app.event_totals().await.expect("totals")[0].events, 2500);
        assert_eq!(world.app.counters().events_doubled.get(), every_third.len() as u64);
        let (first, last) = (&events[0], &events[2499]);
        assert_eq!(world.find(&format!("id:{}", first.id)).await, [first.id]);
        assert_eq!(world.find(&format!("id:{}", last.id)).await, [last.id]);
    }

    async fn many_events_of_one_millisecond_all_find_a_place(world: World) {
        let host = world.host("web1").await;
        let mut events = Vec::new();
        for _ in 0..3000 {
            let mut one = exec(&["ls"]);
            one.time_ms = 1_700_000_000_000;
            events.push(one);
        }
        world.store(host, &events).await;
        world.store(host, &events).await;
        let totals = world.app.event_totals().await.expect("totals");
        assert_eq!(totals[0].events, 3000);
    }

    async fn many_streams_at_once_lose_nothing_and_double_nothing(world: World) {
        let mut streams = Vec::new();
        for host in 0..16 {
            let name = format!("host{host}");
            let (id, app) = (world.host(&name).await, world.app.clone());
            streams.push(tokio::spawn(async move {
                for _ in 0..10 {
                    let events: Vec<_> = (0..50).map(|_| exec(&["ls", "-l"])).collect();
                    // Whoever got no answer sends again.
                    app.events_store(id, bytes(&events)).await.expect("store");
                    app.events_store(id, bytes(&events)).await.expect("store again");
                }
            }));
        }
        for stream in streams {
            stream.await.expect("stream");
        }
        let totals = world.app.event_totals().await.expect("totals");
        assert_eq!(totals[0].events, 16 * 10 * 50);
        assert_eq!(world.app.counters().events_doubled.get(), 16 * 10 * 50);
    }

    async fn what_is_no_event_is_counted_and_harms_no_other(world: World) {
        let host = world.host("web1").await;
        let good = exec(&["ls"]);
        let mut list = bytes(std::slice::from_ref(&good));
        for bad in ["", "{", "[]", "{\"id\":1}", "\u{0}"] {
            list.push(Bytes::from(bad.as_bytes().to_vec()));
        }
        list.push(Bytes::from(vec![0xff, 0xfe]));
        let id = Uuid::now_v7();
        let wrong = format!(r#"{{"id":"{id}","time_ms":1,"kind":"'; DROP TABLE events"}}"#);
        list.push(Bytes::from(wrong));
        world.app.events_store(host, list).await.expect("store");
        assert_eq!(world.find("").await, [good.id]);
        let host = world.app.host_get(host).await.expect("host");
        assert_eq!(host.events_refused, 7);
    }

    async fn an_event_of_a_newer_agent_is_kept_as_it_is(world: World) {
        let host = world.host("web1").await;
        let id = Uuid::now_v7();
        let time_ms = now_ms();
        let json = format!(
            r#"{{"id":"{id}","time_ms":{time_ms},"host":"x","kind":"quantum","spin":1}}"#
        );
        world.app.events_store(host, vec![Bytes::from(json.clone())]).await.expect("store");
        assert_eq!(world.find("kind:quantum").await, [id]);
        let query = holdfast_manager::query::parse("").expect("query");
        let page = world.app.event_search(query, (0, i64::MAX), None, 1).await.expect("search");
        assert_eq!(page.events[0].body, json);
    }

    async fn hostile_text_is_kept_and_found(world: World) {
        let host = world.host("web1").await;
        let hostile = "a\0b'); DROP TABLE events; --\"\\ \u{202e}\u{1f600} NEAR( {facts}:x";
        let one = exec(&["sh", hostile]);
        world.store(host, std::slice::from_ref(&one)).await;
        assert_eq!(world.find("cmdline:\"drop table events\"").await, [one.id]);
        let long = exec(&["sh", &"x ".repeat(100_000)]);
        world.store(host, std::slice::from_ref(&long)).await;
        let wide: String = (0..1000).map(|n| format!("{}{n} ", "\u{1f1e6}é".repeat(30))).collect();
        let wide = exec(&["sh", &wide]);
        world.store(host, std::slice::from_ref(&wide)).await;
        assert_eq!(world.find("exe:sh").await.len(), 3);
    }

    async fn clocks_that_are_wrong_lose_no_event(world: World) {
        let host = world.host("web1").await;
        for time_ms in [i64::MIN, -1, 0, 1, now_ms() + 400 * DAY_MS, i64::MAX] {
            let mut one = exec(&["ls"]);
            one.time_ms = time_ms;
            world.store(host, std::slice::from_ref(&one)).await;
            world.store(host, std::slice::from_ref(&one)).await;
            let found = world.find(&format!("id:{}", one.id)).await;
            assert_eq!(found, [one.id], "{time_ms}");
        }
        let totals = world.app.event_totals().await.expect("totals");
        assert_eq!(totals[0].events, 6);
    }

    async fn an_event_that_is_stored_is_there_after_a_restart(world: World) {
        let host = world.host("web1").await;
        let one = exec(&["ls"]);
        world.store(host, std::slice::from_ref(&one)).await;
        world.app.stop().await;
        assert!(world.app.events_store(host, bytes(std::slice::from_ref(&one))).await.is_err());
        let again = App::start(world.settings.clone()).await.expect("start again");
        again.events_store(host, bytes(std::slice::from_ref(&one))).await.expect("store");
        assert_eq!(again.counters().events_doubled.get(), 1);
        again.stop().await;
    }

    async fn pages_follow_each_other_without_gap_or_double(world: World) {
        let host = world.host("web1").await;
        let events: Vec<_> = (0..25).map(|_| exec(&["ls"])).collect();
        world.store(host, &events).await;
        for text in ["", "kind:exec", "cmdline:ls"] {
            let query = holdfast_manager::query::parse(text).expect("query");
            let (mut seen, mut before) = (Vec::new(), None);
            loop {
                let page = world.app.event_search(query.clone(), (0, i64::MAX), before, 10);
                let page = page.await.expect("search");
                seen.extend(page.events.iter().map(|event| event.number));
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
            assert_eq!(seen.len(), 25, "{text}");
            assert!(seen.is_sorted_by(|a, b| a > b), "{text}");
        }
    }

    async fn old_events_go_by_days_and_too_many_by_bytes(world: World) {
        let host = world.host("web1").await;
        let mut old = exec(&["old"]);
        old.time_ms = now_ms() - 31 * DAY_MS;
        let new = exec(&["new"]);
        world.store(host, &[old, new.clone()]).await;
        assert_eq!(world.app.retention_round(now_ms()).await.expect("round"), 1);
        assert_eq!(world.find("").await, [new.id]);
        assert!(world.find("cmdline:old").await.is_empty());
        world.app.stop().await;
        let mut settings = world.settings.clone();
        settings.retention.kinds.insert(
            "exec".to_owned(),
            holdfast_manager::app::Keep { days: 30, bytes: 1 },
        );
        let tight = App::start(settings).await.expect("start");
        assert_eq!(tight.retention_round(now_ms()).await.expect("round"), 1);
        assert!(tight.event_totals().await.expect("totals").iter().all(|t| t.events == 0));
        tight.stop().await;
    }
}

on_both! {
    async fn events_whose_numbers_meet_are_kept_once_in_whatever_order_they_come(world: World) {
        let host = world.host("web1").await;
        // So many of one millisecond that some have the same number at first.
        let time_ms = now_ms();
        let mut events: Vec<_> = (0..3000)
            .map(|_| {
                let mut event = exec(&["ls"]);
                event.time_ms = time_ms;
                event
            })
            .collect();
        world.store(host, &events).await;
        events.reverse();
        world.store(host, &events).await;
        // And each twice in one call.
        let twice: Vec<_> = events.iter().flat_map(|one| [one.clone(), one.clone()]).collect();
        world.store(host, &twice).await;
        let totals = world.app.event_totals().await.expect("totals");
        assert_eq!(totals[0].events, 3000);
    }
}

#[test]
fn two_managers_on_one_postgres_keep_each_event_once() {
    crate::world::run(On::Postgres, |world| async move {
        let host = world.host("web1").await;
        let other = App::start(world.settings.clone()).await.expect("second manager");
        let mut rounds = Vec::new();
        for _ in 0..20 {
            let events: Vec<_> = (0..200).map(|_| exec(&["ls"])).collect();
            let (one, two) = (world.app.clone(), other.clone());
            let (first, second) = (bytes(&events), bytes(&events));
            rounds.push(tokio::spawn(async move {
                let (a, b) =
                    tokio::join!(one.events_store(host, first), two.events_store(host, second));
                a.expect("one");
                b.expect("two");
            }));
        }
        for round in rounds {
            round.await.expect("round");
        }
        let totals = other.event_totals().await.expect("totals");
        assert_eq!(totals[0].events, 4000);
        let doubled =
            world.app.counters().events_doubled.get() + other.counters().events_doubled.get();
        assert_eq!(doubled, 4000);
        other.stop().await;
    });
}

#[test]
fn events_of_a_day_lie_in_its_partition() {
    crate::world::run(On::Postgres, |world| async move {
        let host = world.host("web1").await;
        let mut far = event(holdfast_common::event::EventBody::AgentStopped);
        far.time_ms = 5;
        world.store(host, &[exec(&["ls"]), far]).await;
        sqlx::any::install_default_drivers();
        let holdfast_manager::store::Place::Server(url) = &world.settings.place else {
            panic!("PostgreSQL");
        };
        let pool = sqlx::AnyPool::connect(url).await.expect("connect");
        let today = now_ms().div_euclid(DAY_MS);
        for (table, count) in [(format!("events_{today}"), 1), ("events_other".to_owned(), 1)] {
            let sql = format!("SELECT COUNT(*) FROM {table}");
            let found: i64 =
                sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.expect("count");
            assert_eq!(found, count, "{table}");
        }
    });
}
