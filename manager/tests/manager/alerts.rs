//! Alerts: grouped, counted, never capped; what people make of them.

use holdfast_common::event::Event;
use holdfast_manager::app::{AlertEdit, App, AppError, Change};
use holdfast_manager::store::Store;
use holdfast_manager::store::alerts::{Alert, AlertFilter, Raise, alert_raise};
use holdfast_manager::store::numbers::first_number;

use crate::world::{On, World, bytes, malware, model, on_both, until};

pub async fn alerts(app: &App) -> Vec<Alert> {
    let filter = AlertFilter { until_ms: i64::MAX, limit: 500, ..AlertFilter::default() };
    app.alert_list(&filter).await.expect("alerts")
}

fn edit(state: &str, resolution: Option<&str>) -> AlertEdit {
    AlertEdit {
        state: Some(state.to_owned()),
        resolution: resolution.map(str::to_owned),
        assignee: None,
    }
}

on_both! {
    async fn of_a_fleet_that_falls_silent_in_one_millisecond_every_host_has_its_alert(world: World) {
        let host = world.host("one").await;
        let store = Store::open(world.settings.place.clone()).await.expect("store");
        let host = store.host_get(host).await.expect("read").expect("host").number;
        let now_ms = 1_700_000_000_000;
        let raise = |key: &[u8]| Raise {
            host,
            kind: "health",
            group_key: key.to_vec(),
            model: "link".to_owned(),
            cause: String::new(),
            title: "Host is silent".to_owned(),
            level: "high".to_owned(),
            attack: String::new(),
            simulated: false,
            count: 1,
            first_ms: now_ms,
            last_ms: now_ms,
            evidence: "{}".to_owned(),
        };
        // One has the last place of the millisecond.
        let mut tx = store.begin().await.expect("begin");
        alert_raise(&mut tx, &raise(b"last"), now_ms).await.expect("raise");
        tx.commit().await.expect("commit");
        let last = first_number(now_ms + 1) - 1;
        world.raw(&format!("UPDATE alerts SET number = {last}")).await.expect("move");
        // So many that some ask for one place: 500,000 are in a millisecond.
        let many: u32 = 4000;
        let mut tx = store.begin().await.expect("begin");
        let mut numbers = std::collections::HashSet::new();
        for one in 0..many {
            let raise = raise(&one.to_be_bytes());
            numbers.insert(alert_raise(&mut tx, &raise, now_ms).await.expect("raise").number);
        }
        tx.commit().await.expect("commit");
        assert_eq!(numbers.len(), many as usize);
        store.close().await;
    }

    async fn detections_of_one_host_model_and_cause_are_one_alert_and_counted(world: World) {
        let (one, two) = (world.host("one").await, world.host("two").await);
        let sniffs: Vec<Event> = (0..700).map(|_| model("Network Sniffing", "tcpdump")).collect();
        for part in sniffs.chunks(300) {
            world.store(one, part).await;
        }
        world.store(one, &sniffs[..10]).await;
        world.store(one, &[model("Network Sniffing", "tshark")]).await;
        world.store(one, &[model("Credential Dumping!", "tcpdump")]).await;
        world.store(two, &[model("Network Sniffing", "tcpdump")]).await;
        let eicar = "ab".repeat(32);
        world.store(two, &[malware("/a", &eicar), malware("/b", &eicar)]).await;
        world.store(two, &[malware("/a", &"cd".repeat(32))]).await;
        let mut counts: Vec<_> = alerts(&world.app).await.iter().map(|a| a.count).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 1, 1, 1, 2, 700]);
        let all = alerts(&world.app).await;
        let big = all.iter().find(|alert| alert.count == 700).expect("big");
        assert_eq!(big.attack, "T1040");
        let page = world.app.alert_events(big.id, None, 500).await.expect("events");
        let rest = world.app.alert_events(big.id, page.next, 500).await.expect("events");
        assert_eq!(page.events.len() + rest.events.len(), 700);
        assert!(rest.next.is_none());
    }

    async fn a_resolved_alert_stays_and_the_next_detection_opens_another(world: World) {
        let host = world.host("web1").await;
        world.store(host, &[model("Network Sniffing", "tcpdump")]).await;
        let first = alerts(&world.app).await.remove(0);
        let app = &world.app;
        for bad in [edit("resolved", None), edit("closed", None), edit("new", Some("ignored"))] {
            let refused = app.alert_edit(first.id, &bad, "ann").await;
            assert!(matches!(refused, Err(AppError::Invalid(_))));
        }
        app.alert_edit(first.id, &edit("in_progress", None), "ann").await.expect("progress");
        world.store(host, &[model("Network Sniffing", "tcpdump")]).await;
        assert_eq!(alerts(app).await[0].count, 2);
        let done = edit("resolved", Some("false_positive"));
        app.alert_edit(first.id, &done, "ann").await.expect("resolve");
        world.store(host, &[model("Network Sniffing", "tcpdump")]).await;
        let both = alerts(app).await;
        assert_eq!(both.len(), 2);
        assert_eq!((both[0].count, both[0].state.as_str()), (1, "new"));
        assert_eq!(both[0].previous, Some(first.id));
        assert_eq!(both[1].resolution.as_deref(), Some("false_positive"));
        let again = app.alert_edit(first.id, &edit("new", None), "ann").await;
        assert!(matches!(again, Err(AppError::Conflict(_))), "two open alerts of one group");
        app.alert_note(first.id, "looked at it", "ann").await.expect("note");
        let detail = app.alert_get(first.id).await.expect("alert");
        assert_eq!(detail.notes[0].author, "ann");
    }

    async fn a_model_that_only_writes_the_journal_raises_nothing(world: World) {
        let host = world.host("web1").await;
        let mut quiet = model("Quiet", "ls");
        if let holdfast_common::event::EventBody::Model(model) = &mut quiet.body {
            "none".clone_into(&mut model.response);
        }
        world.store(host, &[quiet]).await;
        assert!(alerts(&world.app).await.is_empty());
        assert_eq!(world.find("kind:model").await.len(), 1);
    }

    async fn a_new_alert_is_told_to_whoever_looks(world: World) {
        let host = world.host("web1").await;
        let mut changes = world.app.changes();
        world.store(host, &[model("Network Sniffing", "tcpdump")]).await;
        let alert = alerts(&world.app).await.remove(0).id;
        assert_eq!(changes.recv().await, Ok(Change::Alert(alert)));
    }
}

#[test]
fn two_managers_count_on_one_alert_and_hear_of_each_others() {
    crate::world::run(On::Postgres, |world| async move {
        let host = world.host("web1").await;
        let other = App::start(world.settings.clone()).await.expect("second manager");
        let mut heard = other.changes();
        let mut rounds = Vec::new();
        for _ in 0..25 {
            for app in [world.app.clone(), other.clone()] {
                let events = bytes(&[model("A", "x"), model("BB", "y"), model("CCC", "z")]);
                rounds.push(tokio::spawn(async move { app.events_store(host, events).await }));
            }
        }
        for round in rounds {
            round.await.expect("round").expect("store");
        }
        let counts: Vec<_> = alerts(&other).await.iter().map(|alert| alert.count).collect();
        assert_eq!(counts, [50, 50, 50]);
        // From here on only the first one writes.
        while heard.try_recv().is_ok() {}
        world.store(host, &[model("Dddd", "x")]).await;
        until("the other manager hears of it", || {
            let alert = heard.try_recv();
            async move { matches!(alert, Ok(Change::Alert(_))) }
        })
        .await;
        other.stop().await;
    });
}
