//! Shipped detection models, and what they found.

use holdfast_common::event::EventBody;
use holdfast_manager::app::{AlertEdit, AppError};
use holdfast_manager::store::alerts::AlertFilter;
use uuid::Uuid;

use crate::world::{World, model, on_both};

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
}
