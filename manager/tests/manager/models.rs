//! Shipped detection models, and what they found.

use holdfast_common::event::EventBody;
use holdfast_common::link::{Heartbeat, ModelReach};
use holdfast_manager::app::{AlertEdit, AppError, Reach, now_ms};
use holdfast_manager::store::Store;
use holdfast_manager::store::alerts::AlertFilter;
use holdfast_manager::store::models::models_forget;
use uuid::Uuid;

use crate::world::{World, heartbeat, model, on_both};

const ALWAYS: (i64, i64) = (0, i64::MAX);

on_both! {
    async fn a_models_alerts_are_counted_on_all_hosts_and_found_by_it(world: World) {
        let app = &world.app;
        let list = app.model_list(ALWAYS).await.expect("list");
        assert!(list.iter().all(|one| one.found.alerts == 0 && one.found.last_ms.is_none()));
        let sniffing = list.iter().find(|one| one.model.title == "Network Sniffing");
        let id = sniffing.expect("sniffing").model.id;
        let mut fired = model("Network Sniffing", "tcpdump");
        if let EventBody::Model(one) = &mut fired.body {
            one.model_id = id;
        }
        for name in ["web1", "web2"] {
            let host = world.host(name).await;
            world.store(host, &[fired.clone(), model("another", "x")]).await;
        }
        let state = app.model_get(id, ALWAYS).await.expect("model");
        assert_eq!((state.found.alerts, state.found.open), (2, 2));
        assert_eq!(state.found.last_ms, Some(fired.time_ms));
        let before = app.model_get(id, (0, 1_000)).await.expect("model");
        assert_eq!((before.found.alerts, before.found.open), (0, 2));
        let filter = AlertFilter {
            model: id.to_string(), until_ms: i64::MAX, limit: 10, ..AlertFilter::default()
        };
        let alerts = app.alert_list(&filter).await.expect("alerts");
        assert_eq!(alerts.len(), 2);
        let edit = AlertEdit {
            state: Some("resolved".to_owned()),
            resolution: Some("false_positive".to_owned()),
            assignee: None,
        };
        app.alert_edit(alerts[0].id, &edit, "test").await.expect("edit");
        let state = app.model_get(id, ALWAYS).await.expect("model");
        assert_eq!((state.found.alerts, state.found.open), (2, 1));
        let unknown = app.model_get(Uuid::now_v7(), ALWAYS).await;
        assert!(matches!(unknown, Err(AppError::NotFound(_))));
    }

    async fn it_is_told_on_how_many_hosts_a_model_can_fire_and_why_not_on_others(world: World) {
        let app = &world.app;
        let id = app.model_list(ALWAYS).await.expect("list")[0].model.id;
        let reach = async || app.model_get(id, ALWAYS).await.expect("model").reach;
        let says = async |admitted, enabled, why_not: Option<&str>| {
            let why_not = why_not.map(str::to_owned);
            let other = ModelReach { id: Uuid::nil(), enabled: true, why_not: None };
            let models = Some(vec![ModelReach { id, enabled, why_not }, other]);
            let beat = Heartbeat { models, ..heartbeat(&[]) };
            app.heartbeat_store(admitted, beat).await.expect("heartbeat");
        };
        assert_eq!(reach().await, Reach::default());
        let mut hosts = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            hosts.push(world.connected(name).await);
        }
        says(hosts[0], true, None).await;
        says(hosts[1], true, None).await;
        says(hosts[2], false, Some("no audit")).await;
        says(hosts[3], true, Some("no audit")).await;
        says(hosts[4], true, Some(&"x\0".repeat(1_000))).await;
        let found = reach().await;
        assert_eq!((found.fires, found.off, found.blind), (2, 1, 2));
        assert_eq!(found.reasons.len(), 2);
        assert!(found.reasons.iter().all(|(reason, hosts)| reason.len() <= 1_500 && *hosts == 1));
        // A heartbeat without a word of them changes nothing; a new word does.
        app.heartbeat_store(hosts[0], heartbeat(&[])).await.expect("heartbeat");
        says(hosts[1], false, None).await;
        says(hosts[4], true, Some("no audit")).await;
        let found = reach().await;
        assert_eq!((found.fires, found.off, found.blind), (1, 2, 2));
        assert_eq!(found.reasons, [("no audit".to_owned(), 2)]);
        // Who is revoked counts no more; what nobody says any more goes after a day.
        app.host_revoke(hosts[0].host, "test", "gone").await.expect("revoked");
        assert_eq!(reach().await.fires, 0);
        app.retention_round(now_ms() + 3_600_000).await.expect("round");
        let store = Store::open(world.settings.place.clone()).await.expect("store");
        let mut tx = store.begin().await.expect("begin");
        // What the last one said first.
        assert_eq!(models_forget(&mut tx, now_ms() + 1).await.expect("forget"), 1);
        tx.commit().await.expect("commit");
        store.close().await;
        assert_eq!(reach().await, Reach { fires: 0, ..found });
    }
}
